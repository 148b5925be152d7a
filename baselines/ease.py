"""EASE: the linear model that predicts every item of a user from the user's other items, in closed form."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy import sparse

from baselines.item_to_item import ItemToItem
from baselines.similarity import incidence
from data.ragged import Ragged
from errors import UserError
from retrieval.lists import best_of_rows

BYTES = 3 * 8  # of a pair of items while it is fitted


class EASE(ItemToItem):
    """B = argmin |X - X B|^2 + regularisation |B|^2 with a zero diagonal.

    That is -P / diag(P) off the diagonal, P = (X'X + regularisation I)^-1, X being the users' incidence matrix.
    Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019. Needs n_items^2 numbers of memory, 8 bytes
    each, three times over while it is fitted. Cut to `neighbours`, lists keep positive weights only.

    Args:
        regularisation: ridge penalty; larger for fewer users.
        neighbours, last_items: as in `ItemToItem`. The whole history is Steck's; a window of the latest items follows
            a user who moves on.
    """

    def __init__(self, regularisation: float = 300.0, neighbours: int | None = None, last_items: int | None = 20):
        super().__init__(neighbours, last_items)
        if regularisation <= 0:
            raise ValueError(f"regularisation is {regularisation}; EASE needs a positive one to be defined.")
        self.regularisation = regularisation

    @classmethod
    def too_large(cls, n_items: int) -> str:
        """Why so many items are too many for this machine, as a sentence; "" where they are not."""
        needed, there = BYTES * n_items**2, _free_memory()
        if needed <= there:
            return ""
        sizes = f"{needed / 2**30:.0f} GiB, and {there / 2**30:.0f} are free"
        return f"{cls.__name__} of {n_items:,} items takes {sizes}; Linear and ItemKNN take less."

    def similarity(self, sequences: Ragged, n_items: int) -> sparse.csr_matrix:
        """B; its rows are the items of the history, its columns the items predicted.

        Raises:
            UserError: the machine has not the memory.
        """
        if why := self.too_large(n_items):
            raise UserError(why)
        taken = incidence(sequences, n_items)
        gram = (taken.T @ taken).toarray().astype(np.float64)
        gram[np.diag_indices(n_items)] += self.regularisation
        inverse = np.linalg.inv(gram)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0)
        if self.neighbours is not None:
            return best_of_rows(weights.astype(np.float32), self.neighbours)
        every = np.tile(np.arange(n_items, dtype=np.int32), n_items)
        offsets = np.arange(n_items + 1) * n_items
        return sparse.csr_matrix((weights.ravel().astype(np.float32), every, offsets), weights.shape)


class WholeEASE(EASE):
    """EASE as it was published: every item of the history votes, however old. For data whose order says little."""

    def __init__(self, regularisation: float = 300.0, neighbours: int | None = None):
        super().__init__(regularisation, neighbours, last_items=None)


def _free_memory() -> float:
    """Bytes that may be taken without the machine running out, as Linux tells; infinity elsewhere."""
    try:
        told = Path("/proc/meminfo").read_text()
    except OSError:
        return float("inf")
    return 1024 * int(re.search(r"MemAvailable:\s+(\d+) kB", told)[1])
