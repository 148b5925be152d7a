"""Sums over all pairs of items in the same sequence: what the regression of the wide table is made of."""

from __future__ import annotations

from functools import cached_property

import numba
import numpy as np
from scipy import sparse

from data.ragged import Ragged
from retrieval.lists import in_blocks

SMALLEST_WEIGHT = 0.1  # a window ends where the next weight would be smaller
LATEST = 1000  # of a user's items that pairs without order are made of: their number grows with the square
PAIRS = 2**26  # most item pairs held of a matrix, in 0.5 GB; beyond, the lightest are dropped
ROWS = 256  # of a matrix that are worked on at once


class Pairs:
    """X'X and X'Y, whose rows are never held.

    Both weigh a pair of items by how far they stand apart and by how many positions see them both, so that they are
    counted pair by pair. See wide/table.py for X and Y.
    """

    def __init__(self, sequences: Ragged, n_items: int):
        self.n_items, self._steps = n_items, _Steps(sequences, n_items)

    def gram(self, decay: float) -> sparse.csr_matrix:
        """X'X, float32 (n_items, n_items), its rows sorted."""
        if decay == 1:
            return self._together
        width = _window(decay)
        seen = np.concatenate([[0], np.cumsum(decay ** (2.0 * np.arange(width)))])  # by the first n positions after
        lag = np.arange(width)[:, None]
        return self._steps.sums(decay**lag * seen[np.minimum(np.arange(width + 1), width - lag)], both_ways=True)

    def cross(self, history_decay: float, target_decay: float) -> sparse.csr_matrix:
        """X'Y, float32 (n_items, n_items)."""
        if history_decay == target_decay == 1:
            return self._together - sparse.diags(self._together.diagonal()).tocsr()
        history = history_decay ** np.arange(_window(history_decay))
        target = target_decay ** np.arange(_window(target_decay))
        weights = np.convolve(history, target)  # a position between the two splits their lag
        return self._steps.sums(np.append(0, weights)[:, None], both_ways=False)

    @cached_property
    def _together(self) -> sparse.csr_matrix:
        """How many users took both items, in any order; on the diagonal one."""
        sequences, n_items = self._steps.sequences, self.n_items
        latest = self._steps.after < LATEST
        users = sequences.row_of_value()[latest]
        taken = np.unique(users * n_items + sequences.values[latest] - 1)  # an item that a user took twice is one
        once = Ragged.from_lengths(np.bincount(taken // n_items, minlength=len(sequences)), taken % n_items + 1)
        return _Steps(once, n_items).sums(np.ones((LATEST, 1)), both_ways=True)


class _Steps:
    """Sequences by item: where each item stands, and how many stand before and after it there."""

    def __init__(self, sequences: Ragged, n_items: int):
        lengths = sequences.lengths()
        self.sequences, self.n_items = sequences, n_items
        self.items = sequences.values - 1
        self.before = (np.arange(len(self.items)) - np.repeat(sequences.offsets[:-1], lengths)).astype(np.int32)
        self.after = (np.repeat(lengths, lengths) - self.before - 1).astype(np.int32)
        self.places = np.argsort(self.items, kind="stable")  # where item 0 stands, then item 1 ...
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(self.items, minlength=n_items))])

    def sums(self, weights: np.ndarray, both_ways: bool) -> sparse.csr_matrix:
        """By (item, other item) the sum of weights over all places of both in one sequence.

        Args:
            weights: float64 (lags, n), [lag, a] is that of a pair so far apart, the later of which has a items after
                it, or n - 1 or more. Pairs further apart count 0.
            both_ways: pairs count at both of their items, and an item with itself (lag 0); else at the earlier one.
        """
        n_items, n_blocks = self.n_items, len(block_cuts(self.n_items)) - 1
        arrays = self.places, self.starts, self.items, self.before, self.after
        met = np.minimum(self.after, len(weights) - 1).astype(np.int64)
        if both_ways:
            met += np.minimum(self.before, len(weights) - 1) + 1
        most_of = np.bincount(self.items, met, n_items)  # pairs of an item, each counted as often as it occurs

        def rows(block: int, _) -> sparse.csr_matrix:
            own = np.arange(block, n_items, n_blocks)
            size = int(np.minimum(most_of[own], n_items).sum())
            others, values = np.empty(size, np.int32), np.empty(size, np.float32)
            offsets = _sum_rows(own, *arrays, weights, both_ways, others, values)
            parts = values[: offsets[-1]], others[: offsets[-1]], offsets
            part = sparse.csr_matrix(parts, shape=(len(own), n_items))
            part.eliminate_zeros()  # of pairs that no position has before it
            part = _lightest_dropped(part, max(PAIRS * len(own) // n_items, 1))
            part.sort_indices()
            return part.copy()  # the room of its arrays is free again

        # A block has items at even distances, its share of the popular ones: as many pairs are dropped of each.
        found = in_blocks(rows, np.arange(n_blocks + 1))
        return found[np.argsort(np.arange(n_items) % n_blocks, kind="stable").argsort()]


@numba.njit(nogil=True, cache=True)
def _sum_rows(own, places, starts, items, before, after, weights, both_ways, others, values):
    """Write the rows of the items `own`, in no order within a row; returns where they begin and end."""
    sums = np.zeros(starts.size - 1)
    row = np.full(sums.size, -1, np.int32)  # that an item was last met in
    offsets = np.zeros(own.size + 1, np.int64)
    reach, most = weights.shape[0] - 1, weights.shape[1] - 1
    end = 0
    for number in range(own.size):
        for p in range(starts[own[number]], starts[own[number] + 1]):
            at = places[p]
            for lag in range(-min(before[at], reach) if both_ways else 1, min(after[at], reach) + 1):
                other = items[at + lag]
                if row[other] != number:
                    row[other], sums[other], others[end] = number, 0, other
                    end += 1
                sums[other] += weights[abs(lag), min(after[at] - max(lag, 0), most)]
        for q in range(offsets[number], end):
            values[q] = sums[others[q]]
        offsets[number + 1] = end
    return offsets


def block_cuts(n_items: int) -> np.ndarray:
    """Cuts of items into blocks of ROWS, however many items: each block takes arrays of n_items."""
    return np.append(np.arange(0, n_items, ROWS), n_items)


def _lightest_dropped(matrix: sparse.csr_matrix, most: int) -> sparse.csr_matrix:
    """Half of `most` cells where there are more: what is dropped counts as 0."""
    if matrix.nnz > most:
        dropped = matrix.nnz - max(most // 2, 1)
        matrix.data[np.argpartition(matrix.data, dropped)[:dropped]] = 0
        matrix.eliminate_zeros()
    return matrix


def _window(decay: float) -> int:
    """How many weights decay^0, decay^1 .. reach SMALLEST_WEIGHT."""
    return 1 + int(np.log(SMALLEST_WEIGHT) / np.log(decay)) if decay else 1
