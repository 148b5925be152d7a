"""Item CF: items are close when the same users took them, and busy users say less."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from baselines.item_to_item import ItemToItem
from baselines.similarity import cosine, incidence
from data.ragged import Ragged


class ItemCF(ItemToItem):
    """sim(i, j) = sum over the users of both of w_u^2 / (|i| |j|), w_u = 1 / sqrt(|I_u|).

    |i|^2 is the sum of w_u^2 over the users of i. The `Item CF I2I` of MetaSpore
    (python/metaspore/algos/item_cf_retrieval.py), which serves the 20 neighbours of the last item. After Sarwar et
    al., Item-based collaborative filtering recommendation algorithms, WWW 2001.
    """

    def __init__(self, neighbours: int | None = 20, last_items: int | None = 1):
        super().__init__(neighbours, last_items)

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """Cosines of the columns of the users' weighted incidence matrix."""
        taken = incidence(sequences, n_items)
        return cosine(taken, 1 / np.sqrt(np.maximum(taken.getnnz(1), 1)), self.neighbours)
