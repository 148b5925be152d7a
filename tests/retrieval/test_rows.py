"""Given rows become the index that a build makes of the same scores; absent pairs score exactly 0."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval import Pruning, SparseRows, index_of_rows
from retrieval.build import build_pruned

NAMES = ("codes", "offsets", "items", "scores", "floors", "cuts", "removed")
KEYS = np.array([100, 103, 104, 200, 205, 209])


def assert_same(a, b):
    assert (a.n_items, a.pruning) == (b.n_items, b.pruning)
    for name in NAMES:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def built(table, pruning):
    scorer = SimpleNamespace(scores=lambda codes: table[np.searchsorted(KEYS, codes)])
    return build_pruned(scorer, KEYS, table.shape[1], pruning)


@pytest.fixture
def table(rng):
    """Positive, negative and absent pairs; ties; one row of negatives only, one of nothing, one without a gap."""
    table = (rng.integers(-8, 9, (6, 50)) / 8).astype(np.float32)
    table[rng.random(table.shape) < 0.5] = 0
    table[1] = -np.abs(table[1])
    table[2] = 0
    table[3] = rng.random(50) + 1
    return table


def sparse(table):
    rows, columns = np.nonzero(table)
    offsets = np.searchsorted(rows, np.arange(len(table) + 1))
    return SparseRows(offsets, columns + 1, table[rows, columns])


@pytest.mark.parametrize("cap", [None, 1, 7, 49, 50])
@pytest.mark.parametrize("threshold", [None, 0.25])
@pytest.mark.parametrize("relu", [True, False])
def test_sparse_rows_are_the_dense_table_cut_above_zero(table, relu, threshold, cap):
    pruning = Pruning(relu, threshold, cap)
    index = index_of_rows(KEYS, sparse(table), 50, pruning)
    cut = pruning if relu else Pruning(relu, threshold or 0.0, cap)
    assert_same(index, built(np.maximum(table, 0) if relu else table, cut))


@pytest.mark.parametrize("relu", [True, False])
def test_dense_rows_are_cut_as_in_a_build(table, relu):
    pruning = Pruning(relu, max_postings=9)
    expected = built(np.maximum(table, 0) if relu else table, pruning)
    assert_same(index_of_rows(KEYS, table, 50, pruning), expected)
    assert_same(index_of_rows(KEYS, (table[at : at + 4] for at in (0, 4)), 50, pruning), expected)


def test_what_is_not_listed_counts_as_the_mean_of_what_is_left_out():
    rows = SparseRows([0, 4], [2, 3, 5, 9], [0.5, -2.0, 1.0, 0.25])
    index = index_of_rows([7], rows, 10, Pruning(relu=False, max_postings=1))
    assert index.items.tolist() == [5]
    np.testing.assert_allclose(index.explain([[7]], [[5, 3, 1]])[0, :, 0], [1, -1.25 / 9, -1.25 / 9], rtol=1e-6)


def test_rows_of_items_join_an_index_of_codes_and_grow(rng, table):
    codes = built(table, Pruning(relu=False, max_postings=30))
    items = index_of_rows(KEYS + 1000, sparse(table), 50, Pruning(relu=False, max_postings=4))
    joined = codes.extend(items)
    query, weights = [[103, 1103, 1200]], [[1, 0.5, 0.25]]
    ids, scores = joined.recommend(query, 5, weights=weights)
    np.testing.assert_allclose(joined.explain(query, ids, weights).sum(2), scores, rtol=1e-6)
    more = np.concatenate([table, table], axis=0)[:, :3]
    every = np.concatenate([KEYS, KEYS + 1000])
    grown = joined.add_items(SimpleNamespace(scores=lambda codes: more[np.searchsorted(every, codes)]), 3)
    assert grown.n_items == 53


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": [3, 1]}, "must ascend"),
        ({"keys": [1, 1]}, "must ascend"),
        ({"keys": [1]}, "are not 1 rows"),
        ({"offsets": [0, 2, 4]}, "must rise from 0"),
        ({"offsets": [0, 4, 3]}, "must rise from 0"),
        ({"items": [1, 9, 2]}, "ids in 1..5"),
        ({"items": [0, 1, 2]}, "ids in 1..5"),
        ({"items": [2, 1, 2]}, "must ascend, each only once"),
        ({"items": [2, 2, 2]}, "must ascend, each only once"),
        ({"scores": [1, np.nan, 1]}, "must be finite"),
        ({"scores": [1, 1]}, "are not 2 rows"),
        ({"scores": [-1, -1, 0]}, "No score is above the threshold 0, so the index would be empty"),
    ],
)
def test_bad_sparse_rows_are_refused(change, message):
    good = {"keys": [1, 3], "offsets": [0, 2, 3], "items": [1, 4, 2], "scores": [1, 2, 3]}

    def build(keys, **rows):
        return index_of_rows(keys, SparseRows(**rows), 5, Pruning(relu=False))

    assert len(build(**good).items) == 3
    with pytest.raises(ValueError, match=message):
        build(**{**good, **change})


def test_bad_dense_rows_are_refused(table):
    with pytest.raises(ValueError, match="There are 5 rows for 6 keys"):
        index_of_rows(KEYS, table[:5], 50, Pruning())
    with pytest.raises(ValueError, match="expected float32"):
        index_of_rows(KEYS, table[:, :49], 50, Pruning())
    with pytest.raises(ValueError, match="expected float32"):
        index_of_rows(KEYS[:5], table, 50, Pruning())
    table[4, 3] = np.nan
    with pytest.raises(ValueError, match="score of code 205 and item 4 is nan"):
        index_of_rows(KEYS, table, 50, Pruning(relu=False))
