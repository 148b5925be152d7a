"""Similarities of items from the users they share: rows of a sparse matrix, each cut to its best."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from scipy import sparse

from data.ragged import Ragged
from retrieval.search import LAST_ID, _keep_best, _key, _score, available_cores

BLOCK_BYTES = 128 << 20  # of the rows that one thread works on


def incidence(sequences: Ragged, n_items: int) -> sparse.csr_matrix:
    """Who took what: float32 (users, n_items) of ones; column j is item j + 1, ascending within a row."""
    ones = np.ones(len(sequences.values), np.float32)
    taken = sparse.csr_matrix((ones, sequences.values - 1, sequences.offsets), (len(sequences), n_items))
    taken.sum_duplicates()
    taken.data[:] = 1
    return taken


def cosine(sequences: Ragged, n_items: int, user_weights: np.ndarray, neighbours: int | None) -> sparse.csr_matrix:
    """Cosines of the columns of the incidence matrix whose rows are weighted.

    Args:
        sequences: the items of each user.
        n_items: size of the catalogue.
        user_weights: float (users,), what a user's ones count.
        neighbours: the most items a row keeps; None for all it shares a user with.

    Returns:
        float32 (n_items, n_items) without the diagonal; row and column j are item j + 1.
    """
    taken = incidence(sequences, n_items)
    by_item = taken.T.tocsr()
    weights = np.asarray(user_weights, np.float64) ** 2
    norms = np.sqrt(by_item @ weights)
    arguments = (by_item.indptr, by_item.indices, taken.indptr, taken.indices, weights, norms)
    width = _width(n_items, neighbours)
    block = max(1, BLOCK_BYTES // (8 * width))

    def rows(first: int, last: int) -> sparse.csr_matrix:
        found = _room(last - first, width)
        _cosine_rows(first, last, *arguments, *found)
        return _as_csr(*found, n_items)

    return stacked(rows, even_cuts(by_item @ taken.getnnz(1).astype(float), block, 8))


def best_of_rows(scores: np.ndarray, neighbours: int | None) -> sparse.csr_matrix:
    """Rows of scores as lists of their `neighbours` best items (all if None); zeros are no items.

    Args:
        scores: float (R, n_items).
        neighbours: the most items a row keeps; equal scores go to the lower id.

    Returns:
        float32 (R, n_items), columns ascending.
    """
    n_items = scores.shape[1]
    width = _width(n_items, neighbours)
    block = max(1, BLOCK_BYTES // (8 * width))
    parts = []
    for first in range(0, len(scores), block):
        part = np.ascontiguousarray(scores[first : first + block], np.float32)
        found = _room(len(part), width)
        _cut_rows(part, *found)
        parts.append(_as_csr(*found, n_items))
    return sparse.vstack(parts, "csr")


def stacked(rows: Callable, cuts: np.ndarray) -> sparse.csr_matrix:
    """rows(first, last) of all blocks, worked on by all cores."""
    with ThreadPoolExecutor(available_cores()) as pool:
        return sparse.vstack(list(pool.map(rows, cuts[:-1], cuts[1:])), "csr")


def even_cuts(work: np.ndarray, most_rows: int, per_core: int) -> np.ndarray:
    """Where blocks of rows begin and end: about equal work, `per_core` blocks for each core, none over most_rows."""
    shares = np.cumsum(work + 1)
    tasks = per_core * available_cores()
    even = np.searchsorted(shares, np.arange(1, tasks) * shares[-1] / tasks)
    return np.unique(np.concatenate([even, np.arange(0, len(work), most_rows), [len(work)]]))


def _width(n_items: int, neighbours: int | None) -> int:
    if neighbours is not None and neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}; keep at least 1 item per list, or None for all.")
    return n_items if neighbours is None else min(neighbours, n_items)


def _room(n_rows: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where a kernel writes its lists: lengths (R,), columns (R, width), scores (R, width)."""
    return np.zeros(n_rows, np.int64), np.empty((n_rows, width), np.int32), np.empty((n_rows, width), np.float32)


def _as_csr(lengths: np.ndarray, columns: np.ndarray, scores: np.ndarray, n_items: int) -> sparse.csr_matrix:
    filled = np.arange(columns.shape[1]) < lengths[:, None]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    lists = sparse.csr_matrix((scores[filled], columns[filled], offsets), (len(lengths), n_items))
    lists.sort_indices()
    return lists


@numba.njit(nogil=True, cache=True)
def _cosine_rows(first, last, user_offsets, users, item_offsets, items, weights, norms, lengths, out_items, out_scores):
    """The lists of items first..last-1: walk to the users of the item and on to all that they took."""
    n_items = norms.size
    shared = np.zeros(n_items)
    touched = np.empty(n_items, np.int32)
    keys = np.empty(n_items, np.int64)
    for item in range(first, last):
        size = 0
        for p in range(user_offsets[item], user_offsets[item + 1]):
            user = users[p]
            weight = weights[user]
            for q in range(item_offsets[user], item_offsets[user + 1]):
                other = items[q]
                if shared[other] == 0.0:
                    touched[size] = other
                    size += 1
                shared[other] += weight
        found = 0
        for at in range(size):
            other = touched[at]
            if other != item:
                keys[found] = _key(shared[other] / (norms[item] * norms[other]), np.int64(other))
                found += 1
            shared[other] = 0.0
        lengths[item - first] = _write_best(keys, found, out_items[item - first], out_scores[item - first])


@numba.njit(nogil=True, cache=True)
def _cut_rows(scores, lengths, out_items, out_scores):
    keys = np.empty(scores.shape[1], np.int64)
    for row in range(len(scores)):
        found = 0
        for item in range(scores.shape[1]):
            if scores[row, item] != 0:
                keys[found] = _key(scores[row, item], np.int64(item))
                found += 1
        lengths[row] = _write_best(keys, found, out_items[row], out_scores[row])


@numba.njit(nogil=True, cache=True)
def _write_best(keys, size, out_items, out_scores):
    """Write the best of the first `size` keys as a list, in no order; returns its length."""
    if size > out_items.size:
        _keep_best(keys, size, out_items.size)
        size = out_items.size
    for at in range(size):
        out_items[at] = LAST_ID - (keys[at] & 0xFFFFFFFF)
        out_scores[at] = _score(keys[at])
    return size
