"""Swing: two items are close when pairs of users took both, the more so the less else the two users share."""

from __future__ import annotations

import numba
import numpy as np
from scipy import sparse

from baselines.item_to_item import ItemToItem
from baselines.similarity import incidence
from data.ragged import Ragged
from retrieval.lists import best_of_rows, even_cuts, in_blocks


class Swing(ItemToItem):
    """s(i, j) = sum over pairs u, v of users who took both of w_u w_v / (smoothing + |I_u n I_v|).

    w_u = 1 / sqrt(|I_u|). Yang et al., Large scale product graph construction for recommendation in e-commerce, 2020
    (arXiv:2010.05525); the user weights and the defaults are those of MetaSpore's `Swing I2I`, whose core is not
    published. Every pair counts once. The work grows with the pairs of users of the popular items.

    Args:
        smoothing: alpha; the larger, the less the other items of a pair of users matter.
        neighbours, last_items: as in `ItemToItem`.
    """

    def __init__(self, smoothing: float = 1.0, neighbours: int | None = 20, last_items: int | None = 1):
        super().__init__(neighbours, last_items)
        if smoothing <= -2:
            raise ValueError(f"smoothing is {smoothing}; pairs share two items or more, so it must exceed -2.")
        self.smoothing = smoothing

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """The scores above; few large blocks, for each meets its pairs of users anew."""
        taken = incidence(sequences, n_items)
        by_item = taken.T.tocsr()
        weights = 1 / np.sqrt(np.maximum(taken.getnnz(1), 1))
        arguments = (by_item.indptr, by_item.indices, taken.indptr, taken.indices, weights, float(self.smoothing))

        def rows(first: int, last: int) -> sparse.csr_matrix:
            scores = np.zeros((last - first, n_items))  # float64: so that equal sums are equal, in whatever order
            _add_pairs(first, *arguments, scores)
            return best_of_rows(scores.astype(np.float32), self.neighbours)

        return in_blocks(rows, even_cuts(np.square(by_item.getnnz(1), dtype=np.float64), blocks_per_core=1))


@numba.njit(nogil=True, cache=True)
def _add_pairs(first, user_offsets, users, item_offsets, items, weights, smoothing, scores):
    """Add to scores (rows, n_items) the pairs of the items first, first + 1 ...

    For one user u after the other: what u shares with every earlier user v is gathered in a table of u's own items,
    small enough for the cache, and then added to the scores.
    """
    last = first + scores.shape[0]
    n_items = scores.shape[1]
    n_users = item_offsets.size - 1
    longest = 0
    for user in range(n_users):
        longest = max(longest, item_offsets[user + 1] - item_offsets[user])
    place = np.full(n_items, -1, np.int32)  # of an item among those of u
    met = np.full(n_users, -1, np.int32)  # the last u that a v was paired with
    shared = np.empty(longest + 1, np.int32)  # places of the items of both
    for u in range(n_users):
        start, stop = item_offsets[u], item_offsets[u + 1]
        low = start + np.searchsorted(items[start:stop], first)  # u's items of this block are low .. high - 1
        high = start + np.searchsorted(items[start:stop], last)
        if low == high:
            continue
        for p in range(start, stop):
            place[items[p]] = p - start
        table = np.zeros((high - low, stop - start))
        for p in range(low, high):
            for q in range(user_offsets[items[p]], user_offsets[items[p] + 1]):
                v = users[q]
                if v >= u:  # ascending
                    break
                if met[v] == u:
                    continue
                met[v] = u
                size = 0
                for r in range(item_offsets[v], item_offsets[v + 1]):
                    at = place[items[r]]
                    shared[size] = at
                    size += at >= 0
                if size < 2:
                    continue
                weight = weights[u] * weights[v] / (smoothing + size)
                for a in range(size):
                    row = shared[a] - (low - start)
                    if row < 0 or row >= high - low:
                        continue
                    for b in range(size):
                        table[row, shared[b]] += weight
        for p in range(low, high):
            for q in range(start, stop):
                if p != q:
                    scores[items[p] - first, items[q]] += table[p - low, q - start]
        for p in range(start, stop):
            place[items[p]] = -1
