"""First-order Markov chain: what followed the last item in the training sequences."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from baselines.item_to_item import ItemToItem
from data.ragged import Ragged


class Markov(ItemToItem):
    """P(j | i) = how often j came right after i / how often anything did; the query is the last item.

    The maximum-likelihood transition matrix that FPMC factorises (Rendle et al., WWW 2010).
    """

    def __init__(self):
        super().__init__(last_items=1)

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """Rows of transition probabilities, all of them kept."""
        row = sequences.row_of_value()
        follows = np.flatnonzero(row[1:] == row[:-1])  # places whose next value is of the same user
        last, following = sequences.values[follows] - 1, sequences.values[follows + 1] - 1
        counts = sparse.csr_matrix((np.ones(len(last), np.float32), (last, following)), (n_items, n_items))
        left = np.maximum(counts.sum(1), 1)  # (n_items, 1)
        return sparse.csr_matrix(counts.multiply(1 / left), dtype=np.float32)
