"""Sequential linear model: ridge regression from the recency-weighted last items to the next ones, in closed form."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from baselines.item_to_item import ItemToItem, known_items
from data.ragged import Ragged
from wide import WideSettings, WideTable


class Linear(ItemToItem):
    """The table of `wide/table.py` alone, after SLIST (Choi et al., Session-aware linear item-item models, WWW 2021).

    Args:
        history_decay, target_decay: as in `WideSettings`.
        regularisation: ridge penalty, its `l2`.
        neighbours, last_items: as in `ItemToItem`, its `max_postings` and `lookups`.
    """

    def __init__(
        self,
        history_decay: float = 0.8,
        target_decay: float = 0.5,
        regularisation: float = 300.0,
        neighbours: int = 400,
        last_items: int = 20,
    ):
        super().__init__(neighbours, last_items)
        self.settings = WideSettings(
            history_decay, target_decay, regularisation, max_postings=neighbours, lookups=last_items
        )

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """The positive part of the table, cut to its best."""
        self._table = WideTable.fit(sequences, n_items, self.settings)
        return self._table.matrix

    def query_keys(self, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """As of `ItemToItem`; the weights decay with the age of an item."""
        known_items(histories, self.lists.shape[0])
        items, weights = self._table.keys(histories)
        return items - 1, weights
