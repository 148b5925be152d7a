"""Similarities of items from the users they share, as sparse rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from scipy import sparse

from data.ragged import Ragged
from retrieval.search import available_cores

BLOCK_BYTES = 128 << 20  # of the rows that one thread works on, 8 bytes per item


def incidence(sequences: Ragged, n_items: int) -> sparse.csr_matrix:
    """Who took what: float32 (users, n_items) of ones; column j is item j + 1, ascending within a row."""
    ones = np.ones(len(sequences.values), np.float32)
    taken = sparse.csr_matrix((ones, sequences.values - 1, sequences.offsets), (len(sequences), n_items))
    taken.sum_duplicates()
    taken.data[:] = 1
    return taken


def cosine(taken: sparse.csr_matrix, user_weights: np.ndarray, neighbours: int | None) -> sparse.csr_matrix:
    """Cosines of the columns of an incidence matrix whose rows are weighted.

    Args:
        taken: (users, n_items), see `incidence`.
        user_weights: float (users,), what the ones of a user count.
        neighbours: items that a row keeps, its best; None for all it shares a user with.

    Returns:
        float32 (n_items, n_items) with an empty diagonal; row and column j are item j + 1.
    """
    by_item = taken.T.tocsr()
    weights = np.square(user_weights, dtype=np.float64)
    arguments = (by_item.indptr, by_item.indices, taken.indptr, taken.indices, weights, np.sqrt(by_item @ weights))

    def rows(first: int, last: int) -> sparse.csr_matrix:
        lists = _Lists(last - first, taken.shape[1], neighbours)
        _cosine_rows(first, last, *arguments, *lists.arrays)
        return lists.as_csr()

    return in_blocks(rows, by_item @ taken.getnnz(1).astype(np.float64), blocks_per_core=8)


def best_of_rows(scores: np.ndarray, neighbours: int | None) -> sparse.csr_matrix:
    """Rows of scores, float32 (R, n_items), as lists of their best positive items, the lower id of equals."""
    lists = _Lists(*scores.shape, neighbours)
    _cut_rows(scores, *lists.arrays)
    return lists.as_csr()


def in_blocks(
    rows: Callable[[int, int], sparse.csr_matrix], work: np.ndarray, blocks_per_core: int
) -> sparse.csr_matrix:
    """All rows of a similarity of items, computed in blocks by all cores.

    Args:
        rows: (first, last) -> the rows first .. last - 1; holds 8 bytes per row and item at most.
        work: (n_items,), what a row costs: blocks are cut so that they cost the same.
        blocks_per_core: at least so many, and more where a block would pass BLOCK_BYTES.
    """
    n_items = len(work)
    shares = np.cumsum(work + 1.0)
    n_blocks = blocks_per_core * available_cores()
    even = np.searchsorted(shares, np.arange(1, n_blocks) * shares[-1] / n_blocks)
    within_memory = np.arange(0, n_items, max(1, BLOCK_BYTES // (8 * n_items)))
    cuts = np.unique(np.concatenate([even, within_memory, [n_items]]))
    with ThreadPoolExecutor(available_cores()) as pool:
        return sparse.vstack(list(pool.map(rows, cuts[:-1], cuts[1:])), "csr")


class _Lists:
    """Room for the lists of n_rows items: arrays are lengths (R,), items and scores (R, width)."""

    def __init__(self, n_rows: int, n_items: int, neighbours: int | None):
        width = min(neighbours or n_items, n_items)
        self.n_items = n_items
        self.arrays = np.zeros(n_rows, np.int64), np.empty((n_rows, width), np.int32), np.empty((n_rows, width), "f4")

    def as_csr(self) -> sparse.csr_matrix:
        lengths, items, scores = self.arrays
        filled = np.arange(items.shape[1]) < lengths[:, None]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        lists = sparse.csr_matrix((scores[filled], items[filled], offsets), (len(lengths), self.n_items))
        lists.sort_indices()
        return lists


@numba.njit(nogil=True, cache=True)
def _cosine_rows(first, last, user_offsets, users, item_offsets, items, weights, norms, lengths, out_items, out_scores):
    """The lists of items first..last-1: walk to the users of an item, and on to all that they took."""
    shared = np.zeros(norms.size)
    touched = np.empty(norms.size, np.int32)
    scores = np.empty(norms.size, np.float32)
    for item in range(first, last):
        size = 0
        for p in range(user_offsets[item], user_offsets[item + 1]):
            user = users[p]
            for q in range(item_offsets[user], item_offsets[user + 1]):
                other = items[q]
                if shared[other] == 0.0:
                    touched[size] = other
                    size += 1
                shared[other] += weights[user]
        found = 0
        for at in range(size):
            other = touched[at]
            if other != item:
                touched[found], scores[found] = other, shared[other] / (norms[item] * norms[other])
                found += 1
            shared[other] = 0.0
        row = item - first
        lengths[row] = _write_best(touched, scores, found, out_items[row], out_scores[row])


@numba.njit(nogil=True, cache=True)
def _cut_rows(rows, lengths, out_items, out_scores):
    items = np.empty(rows.shape[1], np.int32)
    scores = np.empty(rows.shape[1], np.float32)
    for row in range(rows.shape[0]):
        size = 0
        for item in range(rows.shape[1]):
            items[size], scores[size] = item, rows[row, item]
            size += rows[row, item] > 0
        lengths[row] = _write_best(items, scores, size, out_items[row], out_scores[row])


@numba.njit(nogil=True, cache=True)
def _write_best(items, scores, size, out_items, out_scores):
    """Write the best of the first `size` items, in no order; returns how many there are."""
    room = out_items.size
    least = np.float32(-np.inf)
    if size > room:
        least = np.partition(scores[:size], size - room)[size - room]
    found = 0
    for at in range(size):
        if scores[at] > least:
            out_items[found], out_scores[found] = items[at], scores[at]
            found += 1
    if size > room:  # the rest of the room is for those that score just enough, the lower ids first
        equals = np.sort(items[:size][scores[:size] == least])
        out_items[found:] = equals[: room - found]
        out_scores[found:] = least
        found = room
    return found
