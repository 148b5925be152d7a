"""Item-kNN: the cosine of two items over the users who took them, summed over the history."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from baselines.item_to_item import ItemToItem
from baselines.similarity import cosine, incidence
from data.ragged import Ragged


class ItemKNN(ItemToItem):
    """sim(i, j) = |U_i n U_j| / sqrt(|U_i| |U_j|).

    Deshpande and Karypis, Item-based top-N recommendation algorithms, TOIS 2004.
    """

    def __init__(self, neighbours: int | None = None, last_items: int | None = None):
        super().__init__(neighbours, last_items)

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """Cosines of the columns of the incidence matrix."""
        return cosine(incidence(sequences, n_items), np.ones(len(sequences)), self.neighbours)
