"""The weight of the wide table: 0 where it misleads, high where it knows the answer, whatever the scales."""

import numpy as np
import pytest

from data.queries import Queries
from data.ragged import Ragged
from models.blend import RATIOS, choose_weight

TARGETS = np.random.default_rng(0).integers(1, 51, 40)
QUERIES = Queries(Ragged.from_rows([[]] * 40), Ragged.from_rows(TARGETS[:, None]))


def knowing(scale):
    """Scores that put the target first, on a scale."""
    scores = np.random.default_rng(1).normal(size=(40, 50)).astype(np.float32)
    scores[np.arange(40), TARGETS - 1] = 5
    return lambda queries: scale * scores


def misled(scale):
    scores = np.random.default_rng(2).normal(size=(40, 50)).astype(np.float32)
    return lambda queries: scale * scores


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_better_part_counts_whatever_its_scale(scale):
    weight, found = choose_weight(misled(1.0), knowing(scale), QUERIES, 5, True)
    assert weight * scale > 0.9 and found[0.0] < 0.3 < 0.9 < max(found.values())
    weight, found = choose_weight(knowing(scale), misled(1.0), QUERIES, 5, True)
    assert weight / scale < 0.3 and found[0.0] == max(found.values())


def test_every_ratio_is_reported():
    assert tuple(choose_weight(misled(1.0), knowing(1.0), QUERIES, 5, False)[1]) == RATIOS
