"""What the item-to-item baselines share: a list of scored items per item, summed over the history."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from baselines.ranking import best_items
from data.queries import Queries
from data.ragged import Ragged


class ItemToItem:
    """score(item | history) = sum over the history's last items h of lists[h, item].

    A subclass gives the lists; `similarity(sequences, n_items)` -> (n_items, n_items), any sparse matrix. An item
    that stands in none of the lists has no score and is not recommended. The same sum is a look-up in an inverted
    index whose keys are items: see `item_lists` and `query_keys`.

    Args:
        neighbours: items that a list keeps, its best; None for all.
        last_items: how many of the latest items of a history count; None for all.

    Attributes:
        lists: float32 CSR (n_items, n_items), set by fit; row and column j are item j + 1.
    """

    def __init__(self, neighbours: int | None = None, last_items: int | None = None):
        if last_items is not None and last_items < 1:
            raise ValueError(f"last_items is {last_items}; look at 1 item or more, or None for the whole history.")
        self.neighbours, self.last_items = neighbours, last_items

    def fit(self, sequences: Ragged, n_items: int) -> ItemToItem:
        """Learn the lists from the users' items, oldest first; returns itself."""
        self.lists = self.similarity(sequences, n_items)
        return self

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """The lists, float32 (n_items, n_items), each cut to the `neighbours` best."""
        raise NotImplementedError(f"{type(self).__name__} gives no similarity of items.")

    def recommend(self, queries: Queries, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query: ids int32 (U, k), scores float32 (U, k), as every recommender."""
        return best_items(self._scores, queries, k, exclude_seen, self.lists.shape[1])

    def item_lists(self) -> sparse.csr_matrix:
        """The posting lists: float32 CSR (n_items, n_items); row j is the key of item j + 1, column j is item j + 1."""
        return self.lists

    def query_keys(self, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `item_lists` that each history asks for, and what each counts.

        Args:
            histories: U rows of item ids, oldest first.

        Returns:
            int64 (U, K) rows, -1 an empty slot, and float32 (U, K) weights, 0 there. K is last_items, or the length
            of the longest history.
        """
        width = self.last_items or max(int(histories.lengths().max(initial=0)), 1)
        keys = histories.tail(width).astype(np.int64) - 1  # (U, K)
        return keys, (keys >= 0).astype(np.float32)

    def _scores(self, histories: Ragged) -> np.ndarray:
        """float32 (U, n_items), -inf where no list holds the item."""
        keys, weights = self.query_keys(histories)
        query, slot = np.nonzero(keys >= 0)
        asked = sparse.csr_matrix(
            (weights[query, slot], (query, keys[query, slot])), (len(keys), self.lists.shape[0]), np.float32
        )
        found = (asked @ self.lists).tocoo()
        scores = np.full(found.shape, -np.inf, np.float32)
        scores[found.row, found.col] = found.data
        return scores
