"""How large an index is: lists, postings and bytes, before there is one and after."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

BYTES_PER_POSTING = {"float32": 8, "uint16": 4, "uint8": 3}  # by posting format
BYTES_PER_ID = {"float32": 4, "uint16": 2, "uint8": 2}
BLOCK_ITEMS = 1 << 16  # ids within a block of so many items fit uint16


def blocks_of(format: str, n_items: int) -> int:
    """Lists per code in a posting format; item ids start at 1."""
    return 1 if format == "float32" else n_items // BLOCK_ITEMS + 1


def dense_lists(lengths: ArrayLike, n_items: int, format: str) -> np.ndarray:
    """Which lists of these lengths (C,) take less room as a row of the whole catalogue: uint8 (C,), 1 where so."""
    lengths = np.asarray(lengths, np.int64)
    if format == "float32":
        return np.zeros(len(lengths), np.uint8)
    per_score = BYTES_PER_POSTING[format] - BYTES_PER_ID[format]
    return (BYTES_PER_POSTING[format] * lengths > per_score * n_items).astype(np.uint8)


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Where lists of these lengths (n,) start and end: int64 (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def bytes_of(lengths: ArrayLike, n_items: int, format: str = "float32", n_removed: int = 0) -> int:
    """Bytes that an index takes, in memory and (headers aside) on disk.

    Args:
        lengths: of its lists (C,).
        n_items, n_removed: items of the catalogue, and those removed from it.
        format: of the postings.

    Raises:
        ValueError: there is no such posting format.
    """
    if format not in BYTES_PER_POSTING:
        raise ValueError(f"Unknown posting format {format!r}; there are {', '.join(BYTES_PER_POSTING)}.")
    lengths = np.asarray(lengths, np.int64)
    dense = dense_lists(lengths, n_items, format)
    per_code = 16 if format == "float32" else 25  # code, floor, cut; low, step, dense
    lists = len(lengths) * blocks_of(format, n_items) + 1
    rows = int(dense.sum(dtype=np.int64)) * n_items * (BYTES_PER_POSTING[format] - BYTES_PER_ID[format])
    postings = BYTES_PER_POSTING[format] * int(lengths[dense == 0].sum())
    return postings + rows + per_code * len(lengths) + 8 * lists + 4 * n_removed


def gini(values: np.ndarray) -> float:
    """Gini coefficient of non-negative values: 0 when all are alike, near 1 when one has it all."""
    ordered = np.sort(np.asarray(values, np.float64))
    total = ordered.sum()
    if total == 0:
        return 0.0
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))
