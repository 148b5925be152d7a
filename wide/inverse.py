"""A sparse inverse: each row solved among the items that an item goes with most."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from scipy import sparse
from scipy.linalg.lapack import sposv


def local_inverse(gram: sparse.csr_matrix, l2: float, neighbours: int) -> Callable[[np.ndarray], sparse.csr_matrix]:
    """Rows of (gram + l2 I)^-1, each from the system of an item and those it goes with most.

    Args:
        gram: float32 (n_items, n_items), symmetric, its rows sorted.
        l2: above 0.
        neighbours: items in a system, beside the item itself.

    Returns:
        a function from I items, numbered from 0, to their rows (I, n_items). An item that goes with fewer than
        `neighbours` others, who go with no one else, gets its row of the exact inverse. One whose system is not
        positive definite, as pairs were dropped, stands for itself.
    """
    diagonal = gram.diagonal() + np.float32(l2)

    def row(item: int) -> tuple[np.ndarray, np.ndarray]:
        near = slice(gram.indptr[item], gram.indptr[item + 1])
        others = gram.indices[near]
        strength = np.where(others == item, np.inf, gram.data[near] ** 2 / diagonal[others])
        if len(others) > neighbours + 1:
            others = np.sort(others[np.argpartition(-strength, neighbours)[: neighbours + 1]])
        if item in others:
            system = np.zeros((len(others), len(others)), np.float32)  # its lower half is read
            _fill(gram.indptr, gram.indices, gram.data, others, system)
            system.flat[:: len(others) + 1] += np.float32(l2)
            # Transposed, for LAPACK counts by columns and would copy it: a third of the time of scipy.linalg.solve.
            _, found, failed = sposv(system.T, (others == item).astype(np.float32), overwrite_a=True)
            if not failed:
                return others, found
        # It never stood before anything, or its system lacks pairs that were dropped.
        return np.array([item]), 1 / diagonal[[item]]

    def rows(items: np.ndarray) -> sparse.csr_matrix:
        columns, values = zip(*map(row, items), strict=True)
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in columns])])
        shape = (len(items), gram.shape[0])
        return sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), offsets), shape=shape)

    return rows


@numba.njit(nogil=True, cache=True)
def _fill(offsets, columns, values, items, system):
    """Write the lower half of the rows and columns `items` (I,), rising, of a sparse matrix to system (I, I)."""
    for at in range(items.size):
        p, end = offsets[items[at]], offsets[items[at] + 1]
        for column in range(at + 1):
            # items rise, so what is sought stands after what was found
            step = 1
            while p + step < end and columns[p + step] < items[column]:
                p, step = p + step, 2 * step
            high = min(p + step, end)
            while p < high:
                middle = (p + high) >> 1
                if columns[middle] < items[column]:
                    p = middle + 1
                else:
                    high = middle
            if p < end and columns[p] == items[column]:
                system[at, column] = values[p]
