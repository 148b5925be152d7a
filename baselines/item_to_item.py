"""What the item-to-item baselines share: a list of scored items per item, summed over the history."""

from __future__ import annotations

import numbers

import numba
import numpy as np
from scipy import sparse

from data.queries import Queries
from data.ragged import Ragged
from recommender import largest, recommend_by_scores
from retrieval import IndexRecommender, Pruning, SparseInvertedIndex, SparseRows, index_of_rows
from retrieval.queries import item_ids


class ItemToItem:
    """score(item | history) = sum over the history's last items h of lists[h, item].

    A subclass gives the lists by `similarity`. An item that stands in none of the lists asked for has no score and is
    not recommended. The sum is also a search in an inverted index whose keys are items, see `index` and `served`.

    Args:
        neighbours: items that a list keeps, its best; None for all.
        last_items: how many of the latest items of a history count; None for all.

    Attributes:
        lists: float32 CSR (n_items, n_items), columns ascending, set by fit; row and column j are item j + 1. It holds
            every pair, or positive scores only.
    """

    def __init__(self, neighbours: int | None = None, last_items: int | None = None):
        for name, value in (("neighbours", neighbours), ("last_items", last_items)):
            if value is not None and not (isinstance(value, numbers.Integral) and value >= 1):
                raise ValueError(f"{name} is {value}; give a whole number of 1 or more, or None for all.")
        self.neighbours, self.last_items = neighbours, last_items

    def fit(self, sequences: Ragged, n_items: int) -> ItemToItem:
        """Learn the lists from what each user took, oldest first; returns itself."""
        self.lists = self.similarity(sequences, n_items)
        return self

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """The lists."""
        raise NotImplementedError(f"{type(self).__name__} gives no similarity of items.")

    def recommend(self, queries: Queries, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query, as every `Recommender`: ids int32 (U, k), scores float32 (U, k)."""
        return recommend_by_scores(self._scores, queries, k, exclude_seen, self.lists.shape[1])

    def reasons(self, queries: Queries, items: np.ndarray) -> list:
        """What gave each recommended item (U, k) its score: its largest parts, as of `recommender.largest`."""
        if not len(queries):
            return []
        keys, weights = self.query_keys(queries.histories)  # (U, K)
        asked = (
            self.lists[np.maximum(key, 0)][:, np.maximum(row - 1, 0)] for key, row in zip(keys, items, strict=True)
        )
        shares = np.stack([lists.toarray().T for lists in asked]) * weights[:, None]  # (U, k, K)
        return largest(shares, lambda user, slot: int(keys[user, slot]) + 1)

    def index(self) -> SparseInvertedIndex:
        """The lists as an exact inverted index; key j is item j + 1."""
        n_items = self.lists.shape[0]
        if self.lists.nnz == n_items**2:
            rows = self.lists.data.reshape(n_items, n_items)
        else:
            rows = SparseRows(self.lists.indptr, self.lists.indices + 1, self.lists.data)
        return index_of_rows(np.arange(n_items), rows, n_items, Pruning(relu=False))

    def served(self, threads: int | None = None) -> IndexRecommender:
        """The same recommendations out of `index`, as they would be served; threads: all cores unless told."""
        return IndexRecommender(self.index(), lambda queries: self.query_keys(queries.histories), threads=threads)

    def query_keys(self, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `lists` that each history asks for, and what each counts.

        Args:
            histories: U rows of item ids, oldest first.

        Returns:
            int64 (U, K) rows, -1 an empty slot, and float32 (U, K) weights, 0 there. K is last_items, or the length of
            the longest history.

        Raises:
            ValueError: an item is outside the catalogue.
        """
        known_items(histories, self.lists.shape[0])
        width = self.last_items or max(int(histories.lengths().max(initial=0)), 1)
        keys = histories.tail(width).astype(np.int64) - 1  # (U, K)
        return keys, (keys >= 0).astype(np.float32)

    def _scores(self, queries: Queries) -> np.ndarray:
        """float32 (U, n_items), -inf where no list holds the item."""
        scores = np.full((len(queries), self.lists.shape[1]), -np.inf, np.float32)
        _add_lists(*self.query_keys(queries.histories), self.lists.indptr, self.lists.indices, self.lists.data, scores)
        return scores


def known_items(histories: Ragged, n_items: int) -> None:
    """Refuses item ids outside 0..n_items, at which lists would be read and written out of bounds; 0 is an empty slot.

    Raises:
        ValueError: with the id.
    """
    item_ids(histories.values[histories.values != 0], n_items)


@numba.njit(nogil=True, cache=True)
def _add_lists(keys, weights, offsets, items, values, scores):
    for query in range(keys.shape[0]):
        for slot in range(keys.shape[1]):
            key = keys[query, slot]
            if key < 0:
                continue
            for p in range(offsets[key], offsets[key + 1]):
                value = weights[query, slot] * values[p]
                before = scores[query, items[p]]
                scores[query, items[p]] = value if before == -np.inf else before + value
