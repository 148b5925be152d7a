"""Numbers that a run prints about its codebooks."""

import numpy as np
import pytest

from models.vq import ProductQuantiser
from report import codebook_health


def test_codebook_health_of_known_codes():
    quantiser = ProductQuantiser(2, 4, 6, 0.9, 0.0, np.random.default_rng(0))
    codes = quantiser.encode(np.array([[[0, 3], [1, 3]], [[2, 3], [3, 3]]]))
    health = codebook_health(quantiser, codes)
    assert health["tuples"] == 4
    assert [book["used"] for book in health["codebooks"]] == [4, 1]
    assert [book["perplexity"] for book in health["codebooks"]] == pytest.approx([4, 1])
