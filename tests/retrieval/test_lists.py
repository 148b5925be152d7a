"""Lists of a product are the best of what NumPy multiplies, however many threads work on them."""

import time

import numpy as np
import pytest
from scipy import sparse

from retrieval import lists
from retrieval.lists import best_of_product, best_of_rows, even_cuts, in_blocks, product


@pytest.fixture
def factors():
    """(40, 30) and (30, 50), whole numbers so that sums are exact, whose rows meet few items, many and none."""
    rng = np.random.default_rng(0)
    left, right = (rng.integers(-4, 5, shape) * (rng.random(shape) < 0.3) for shape in ((40, 30), (30, 50)))
    left[3], left[4, 1:], left[5] = 0, 0, 1
    return sparse.csr_matrix(left, dtype=np.float32), sparse.csr_matrix(right, dtype=np.float32)


@pytest.mark.parametrize("most", [1, 7, 50, None])
def test_of_a_product_the_best_positive_ones_stay(factors, most):
    left, right = factors
    columns = np.arange(50, dtype=np.float32) % 3
    whole = (left @ right).toarray() * columns
    found = best_of_product(left, right, columns, most)
    met = np.diff(right.indptr)
    reached = [met[left[row].indices].sum() for row in range(40)]
    assert min(reached) < 50 < max(reached)  # both ways to collect what a row has met
    for row, scores in enumerate(whole):
        best = np.lexsort((np.arange(50), -scores))[: most or 50]  # the lower id of equals
        best = np.sort(best[scores[best] > 0])
        assert found[row].indices.tolist() == best.tolist()
        assert found[row].data.tolist() == scores[best].tolist()
    assert (best_of_rows(whole.astype(np.float32), most) != found).nnz == 0


@pytest.mark.parametrize("cores", [1, 3])
def test_a_product_is_the_product(factors, monkeypatch, cores):
    monkeypatch.setattr(lists, "available_cores", lambda: cores)
    left, right = factors
    np.testing.assert_array_equal(product(left, right), (left @ right).toarray())
    assert product(left[:0], right).shape == (0, 50)


def test_blocks_stand_in_their_order_and_tell_how_far_they_are(factors):
    left, _ = factors
    told = []
    whole = in_blocks(lambda first, last: left[first:last], np.array([0, 1, 17, 40]), told.append)
    assert (whole != left).nnz == 0 and told == [1, 17, 40]


def test_after_a_failure_no_further_block_begins(monkeypatch):
    monkeypatch.setattr(lists, "available_cores", lambda: 2)
    begun = []

    def rows(first, last):
        begun.append(first)
        time.sleep(0.01)
        raise ValueError("of this block")

    with pytest.raises(ValueError, match="of this block"):
        in_blocks(rows, np.arange(101))
    assert len(begun) < 20


def test_cuts_are_even_and_within_memory(monkeypatch):
    monkeypatch.setattr(lists, "available_cores", lambda: 2)
    assert even_cuts(np.array([99.0] * 4 + [999.0] * 4), 1).tolist() == [0, 5, 8]
    monkeypatch.setattr(lists, "BLOCK_BYTES", 8 * 8 * 3)  # three rows
    assert np.diff(even_cuts(np.ones(8), 1)).max() == 3
