"""Sparse rows of items, computed in blocks by all cores and cut to their best."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from scipy import sparse

from retrieval.search import available_cores

BLOCK_BYTES = 128 << 20  # of the rows that one thread works on, 8 bytes per item


def best_of_rows(scores: np.ndarray, most: int | None) -> sparse.csr_matrix:
    """Rows of scores, float32 (R, n_items), as lists of their best positive items, the lower id of equals.

    Args:
        most: items that a list holds; None: all that are positive.
    """
    lists = Lists(*scores.shape, most)
    _cut_rows(scores, *lists.arrays)
    return lists.as_csr()


def best_of_product(
    left: sparse.csr_matrix, right: sparse.csr_matrix, factors: np.ndarray, most: int | None
) -> sparse.csr_matrix:
    """`best_of_rows` of (left @ right) * factors, which is never held: float32 (R, n_items).

    Args:
        left, right: (R, I) and (I, n_items).
        factors: float32 (n_items,), of the columns.
    """
    lists = Lists(left.shape[0], right.shape[1], most)
    _multiply_rows(
        left.indptr, left.indices, left.data, right.indptr, right.indices, right.data, factors, *lists.arrays
    )
    return lists.as_csr()


def product(left: sparse.csr_matrix, right: sparse.csr_matrix) -> np.ndarray:
    """left (R, I) @ right (I, n_items) where that is hardly sparse, by all cores: float32 (R, n_items)."""
    out = np.zeros((left.shape[0], right.shape[1]), np.float32)
    arrays = left.indptr, left.indices, left.data, right.indptr, right.indices, right.data, out
    cuts = np.linspace(0, len(out), 8 * available_cores() + 1).astype(np.int64)
    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(lambda first, last: _add_products(first, last, *arrays), cuts[:-1], cuts[1:]))
    return out


def in_blocks(
    rows: Callable[[int, int], sparse.csr_matrix], cuts: np.ndarray, reached: Callable[[int], None] = lambda rows: None
) -> sparse.csr_matrix:
    """All rows of a sparse matrix, computed in blocks by all cores.

    Args:
        rows: (first, last) -> the rows first .. last - 1.
        cuts: where blocks begin, rising from 0, and at the end the number of rows.
        reached: called with the number of rows that are done.
    """
    parts = []
    with ThreadPoolExecutor(available_cores()) as pool:
        for part, last in zip(pool.map(rows, cuts[:-1], cuts[1:]), cuts[1:], strict=True):
            parts.append(part)
            reached(int(last))
    return sparse.vstack(parts, "csr")


def even_cuts(work: np.ndarray, blocks_per_core: int) -> np.ndarray:
    """Cuts for `in_blocks` of items with items, between which the work is the same.

    Args:
        work: (n_items,), what a row costs.
        blocks_per_core: at least so many blocks, and more where one would pass BLOCK_BYTES.
    """
    shares = np.cumsum(work + 1.0)
    n_blocks = blocks_per_core * available_cores()
    even = np.searchsorted(shares, np.arange(1, n_blocks) * shares[-1] / n_blocks)
    within_memory = np.arange(0, len(work), max(1, BLOCK_BYTES // (8 * len(work))))
    return np.unique(np.concatenate([even, within_memory, [len(work)]]))


class Lists:
    """Room for the lists of n_rows rows: arrays are lengths (R,), items int32 and scores float32 (R, width)."""

    def __init__(self, n_rows: int, n_items: int, most: int | None):
        width = min(most or n_items, n_items)
        self.n_items = n_items
        self.arrays = np.zeros(n_rows, np.int64), np.empty((n_rows, width), np.int32), np.empty((n_rows, width), "f4")

    def as_csr(self) -> sparse.csr_matrix:
        """The lists as a matrix (n_rows, n_items), items rising within a row."""
        lengths, items, scores = self.arrays
        filled = np.arange(items.shape[1]) < lengths[:, None]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        lists = sparse.csr_matrix((scores[filled], items[filled], offsets), (len(lengths), self.n_items))
        lists.sort_indices()
        return lists


@numba.njit(nogil=True, cache=True)
def write_best(items, scores, size, out_items, out_scores):
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


@numba.njit(nogil=True, cache=True)
def _cut_rows(rows, lengths, out_items, out_scores):
    items = np.empty(rows.shape[1], np.int32)
    scores = np.empty(rows.shape[1], np.float32)
    for row in range(rows.shape[0]):
        size = 0
        for item in range(rows.shape[1]):
            items[size], scores[size] = item, rows[row, item]
            size += rows[row, item] > 0
        lengths[row] = write_best(items, scores, size, out_items[row], out_scores[row])


@numba.njit(nogil=True, cache=True)
def _multiply_rows(
    left_offsets, left_items, left_values, offsets, items, values, factors, lengths, out_items, out_scores
):
    sums = np.zeros(factors.size, np.float32)
    met = np.zeros(factors.size, np.bool_)
    touched = np.empty(factors.size, np.int32)
    scores = np.empty(factors.size, np.float32)
    for row in range(lengths.size):
        size = found = 0
        for p in range(left_offsets[row], left_offsets[row + 1]):
            size += offsets[left_items[p] + 1] - offsets[left_items[p]]
        few = size < factors.size  # else to look at every item costs less than to remember those that were met
        size = 0 if few else factors.size
        for p in range(left_offsets[row], left_offsets[row + 1]):
            weight = left_values[p]
            for q in range(offsets[left_items[p]], offsets[left_items[p] + 1]):
                item = items[q]
                if few and not met[item]:
                    met[item] = True
                    touched[size] = item
                    size += 1
                sums[item] += weight * values[q]
        for at in range(size):
            item = touched[at] if few else np.int32(at)
            score = sums[item] * factors[item]
            if score > 0:
                touched[found], scores[found] = item, score
                found += 1
            sums[item], met[item] = 0, False
        lengths[row] = write_best(touched, scores, found, out_items[row], out_scores[row])


@numba.njit(nogil=True, cache=True)
def _add_products(first, last, left_offsets, left_items, left_values, offsets, items, values, out):
    for row in range(first, last):
        sums = out[row]
        for p in range(left_offsets[row], left_offsets[row + 1]):
            weight = left_values[p]
            for q in range(offsets[left_items[p]], offsets[left_items[p] + 1]):
                sums[items[q]] += weight * values[q]
