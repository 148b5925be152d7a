"""The top-k kernel against a stable sort of whole rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval.ranking import top_k


def by_sorting(scores, k):
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    top = np.take_along_axis(scores, best, 1)
    return np.where(np.isneginf(top), 0, best + 1).astype(np.int32), top


def histories(rows):
    return SimpleNamespace(
        offsets=np.cumsum([0, *map(len, rows)]), values=np.array([item for row in rows for item in row], np.int32)
    )


@pytest.mark.parametrize("n_items", [1, 40, 3000])
@pytest.mark.parametrize("levels", [3, 10**6])  # nearly all tied, nearly none
@pytest.mark.parametrize("threads", [1, 4])
def test_best_k_are_those_of_a_stable_sort(rng, n_items, levels, threads):
    scores = rng.integers(-levels, levels, (50, n_items)).astype(np.float32)
    for value in (-np.inf, np.inf, 0.0, -0.0):  # the last two are a tie
        scores[rng.random(scores.shape) < 0.1] = value
    seen = [rng.permutation(n_items)[: rng.integers(0, n_items)] + 1 for _ in scores]
    before, masked = scores.copy(), scores.copy()
    for row, items in enumerate(seen):
        masked[row, items - 1] = -np.inf
    for k in {1, min(50, n_items), n_items}:
        for asked, expected in ((None, scores), (histories(seen), masked)):
            found = top_k(scores, k, asked, threads=threads)
            assert found[0].dtype == np.int32 and found[1].dtype == np.float32
            for a, b in zip(found, by_sorting(expected, k), strict=True):
                np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(scores, before)


def test_rows_are_added_up_from_left_to_right(rng):
    scores = (rng.normal(size=(9, 60)) * 10.0 ** rng.integers(-6, 6, (9, 60))).astype(np.float32)
    rows = rng.integers(0, 9, (20, 5))
    total = scores[rows[:, 0]]
    for term in range(1, 5):
        total = total + scores[rows[:, term]]
    for a, b in zip(top_k(scores, 60, rows=rows), by_sorting(total, 60), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_items_above_the_bound_are_taken():
    ids, scores = top_k(np.array([[0, 2, -1, 0.5]]), 4, above=0)
    np.testing.assert_array_equal(ids, [[2, 4, 0, 0]])
    np.testing.assert_array_equal(scores, [[2, 0.5, -np.inf, -np.inf]])


def test_padding_in_a_history_is_skipped():
    np.testing.assert_array_equal(top_k(np.array([[1.0, 3, 2]]), 3, histories([[0, 2]]))[0], [[3, 1, 0]])


class Seen(SimpleNamespace):
    def __init__(self, offsets, values):
        super().__init__(offsets=np.array(offsets), values=values)


@pytest.mark.parametrize(
    ("scores", "k", "options", "message"),
    [
        ([1.0, 2.0], 1, {}, "needs scores"),
        ([[1.0, 2.0]], 3, {}, "k from 1 to the items"),
        ([[1.0, 2.0]], 0, {}, "k from 1 to the items"),
        ([[1.0, np.nan]], 1, {}, "Query 0 scores item 2 with NaN"),
        ([[1.0, 2.0]], 1, {"seen": histories([[3]])}, "Query 0 has seen item 3"),
        ([[1.0, 2.0]], 1, {"seen": histories([[-1]])}, "Query 0 has seen item -1"),
        ([[1.0, 2.0]], 1, {"seen": histories([[1], [2]])}, "1 queries need 2 offsets of seen items"),
        ([[1.0, 2.0]], 1, {"seen": Seen([0, 1], np.array([2**32 + 1]))}, "has seen item 2147483647"),
        ([[1.0, 2.0]], 1, {"seen": Seen([0, 1], np.array([1.7]))}, "must be integers"),
        ([[1.0, 2.0]], 1, {"seen": Seen([0, 9], np.array([1]))}, "must rise within 0..1"),
        ([[1.0, 2.0]], 1, {"rows": np.array([[0, 1]])}, "within the 1 rows"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, k, options, message):
    with pytest.raises(ValueError, match=message):
        top_k(np.array(scores), k, **options)
