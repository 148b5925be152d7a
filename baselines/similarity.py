"""Similarities of items from the users they share, as sparse rows."""

from __future__ import annotations

import numba
import numpy as np
from scipy import sparse

from data.ragged import Ragged
from retrieval.lists import Lists, even_cuts, in_blocks, write_best


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
        lists = Lists(last - first, taken.shape[1], neighbours)
        _cosine_rows(first, last, *arguments, *lists.arrays)
        return lists.as_csr()

    return in_blocks(rows, even_cuts(by_item @ taken.getnnz(1).astype(np.float64), blocks_per_core=8))


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
        lengths[row] = write_best(touched, scores, found, out_items[row], out_scores[row])
