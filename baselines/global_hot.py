"""The same list for everybody: what most training users took."""

from __future__ import annotations

import numpy as np

from baselines.similarity import incidence
from data.queries import Queries
from data.ragged import Ragged
from recommender import recommend_by_scores


class GlobalHot:
    """score(item) = the number of training users who took it."""

    def fit(self, sequences: Ragged, n_items: int) -> GlobalHot:
        """Count the items of the training sequences; returns itself."""
        self.popularity = np.asarray(incidence(sequences, n_items).sum(0), np.float32).ravel()  # (n_items,)
        return self

    def recommend(self, queries: Queries, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k most popular items, without those of each history: ids int32 (U, k), scores float32 (U, k)."""
        n_items = len(self.popularity)
        return recommend_by_scores(
            lambda block: np.tile(self.popularity, (len(block), 1)), queries, k, exclude_seen, n_items
        )
