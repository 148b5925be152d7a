"""Numbers that a run prints about its codebooks."""

import numpy as np
import pytest

import report
from metric import Metrics
from models.vq import ProductQuantiser


def test_codebook_health_of_known_codes():
    quantiser = ProductQuantiser(2, 4, 6, 1, False, 0.9, 0.0, np.random.default_rng(0))
    codes = quantiser.encode(np.array([[[0, 3], [1, 3]], [[2, 3], [3, 3]]]))
    health = report.codebook_health(quantiser, codes)
    assert health["tuples"] == 4
    assert [book["used"] for book in health["codebooks"]] == [4, 1]
    assert [book["perplexity"] for book in health["codebooks"]] == pytest.approx([4, 1])


def test_a_result_below_popularity_is_said_with_both_numbers(capsys):
    def measured(recall):
        return Metrics((5,), {"recall": np.array([[recall], [recall]]), "ndcg": np.array([[0.3], [0.3]])})

    report.below_popularity(measured(0.3), measured(0.3))
    assert capsys.readouterr().out == ""
    report.below_popularity(measured(0.0), measured(0.17))
    said = capsys.readouterr().out
    assert said.startswith(
        "WARNING: worse than recommending the most popular items to everyone: recall@5 0.0000 < 0.17"
    )
    assert said.count("\n") == 1 and "ndcg" not in said
