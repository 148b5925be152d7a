"""Similarities of items from the users they share, as sparse rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from scipy import sparse

from data.ragged import Ragged
from retrieval.ranking import top_k
from retrieval.search import available_cores

BLOCK_BYTES = 128 << 20  # of the dense rows that one thread works on


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
    weights = np.square(user_weights, dtype=np.float32)
    norms = np.sqrt(np.maximum(by_item @ weights, np.finfo(np.float32).tiny))
    arguments = (by_item.indptr, by_item.indices, taken.indptr, taken.indices, weights)

    def score(first: int, scores: np.ndarray) -> None:
        _add_shared_users(first, *arguments, scores)
        scores /= norms[first : first + len(scores), None]
        scores /= norms

    return similar_items(score, by_item @ taken.getnnz(1).astype(np.float32), neighbours, blocks_per_core=8)


def similar_items(
    score: Callable[[int, np.ndarray], None], work: np.ndarray, neighbours: int | None, blocks_per_core: int
) -> sparse.csr_matrix:
    """All rows of a similarity of items, computed in dense blocks by all cores.

    Args:
        score: (first, scores) fills the rows of items first, first + 1 ... into scores, float32 (R, n_items) of zeros;
            what stays 0 is not similar.
        work: (n_items,), what a row costs: blocks are cut so that they cost the same.
        neighbours: items that a row keeps, its best; None for all.
        blocks_per_core: at least so many, and more where a block would pass BLOCK_BYTES.

    Returns:
        float32 (n_items, n_items) with an empty diagonal; row and column j are item j + 1.
    """
    n_items = len(work)
    shares = np.cumsum(work + 1.0)
    n_blocks = blocks_per_core * available_cores()
    even = np.searchsorted(shares, np.arange(1, n_blocks) * shares[-1] / n_blocks)
    within_memory = np.arange(0, n_items, max(1, BLOCK_BYTES // (4 * n_items)))
    cuts = np.unique(np.concatenate([even, within_memory, [n_items]]))

    def rows(first: int, last: int) -> sparse.csr_matrix:
        scores = np.zeros((last - first, n_items), np.float32)
        score(first, scores)
        scores[np.arange(last - first), np.arange(first, last)] = 0
        return best_of_rows(scores, neighbours)

    with ThreadPoolExecutor(available_cores()) as pool:
        return sparse.vstack(list(pool.map(rows, cuts[:-1], cuts[1:])), "csr")


def best_of_rows(scores: np.ndarray, neighbours: int | None) -> sparse.csr_matrix:
    """Rows of scores, float (R, n_items), as sparse lists of their best items, the lower id of equals; 0 is no item."""
    n_items = scores.shape[1]
    if neighbours is None or neighbours >= n_items:
        return sparse.csr_matrix(scores, dtype=np.float32)
    items, best = top_k(np.where(scores == 0, -np.inf, scores), neighbours, threads=1)  # (R, neighbours)
    kept = items > 0
    offsets = np.concatenate([[0], np.cumsum(kept.sum(1))])
    lists = sparse.csr_matrix((best[kept], items[kept] - 1, offsets), scores.shape)
    lists.sort_indices()
    return lists


@numba.njit(nogil=True, cache=True)
def _add_shared_users(first, user_offsets, users, item_offsets, items, weights, scores):
    """Row by row walk to the users of the item, and add the weight of each to all that the user took."""
    for row in range(len(scores)):
        for p in range(user_offsets[first + row], user_offsets[first + row + 1]):
            user = users[p]
            for q in range(item_offsets[user], item_offsets[user + 1]):
                scores[row, items[q]] += weights[user]
