"""How large an index is: lists, postings and bytes, before there is one and after."""

from __future__ import annotations

import numpy as np

BYTES_PER_POSTING = {"float32": 8, "uint16": 4, "uint8": 3}  # by posting format
BLOCK_ITEMS = 1 << 16  # ids within a block of so many items fit uint16


def blocks_of(format: str, n_items: int) -> int:
    """Lists per code in a posting format; item ids start at 1."""
    return 1 if format == "float32" else n_items // BLOCK_ITEMS + 1


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Where lists of these lengths (n,) start and end: int64 (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def bytes_of(n_codes: int, n_postings: int, n_items: int, format: str = "float32", n_removed: int = 0) -> int:
    """Bytes that an index of these sizes takes, in memory and (headers aside) on disk.

    Raises:
        ValueError: there is no such posting format.
    """
    if format not in BYTES_PER_POSTING:
        raise ValueError(f"Unknown posting format {format!r}; there are {', '.join(BYTES_PER_POSTING)}.")
    per_code = 16 if format == "float32" else 24  # code, floor, cut; low and step
    lists = n_codes * blocks_of(format, n_items) + 1
    return BYTES_PER_POSTING[format] * n_postings + per_code * n_codes + 8 * lists + 4 * n_removed


def postings_within(max_bytes: int, n_codes: int, n_items: int, format: str = "float32", n_removed: int = 0) -> int:
    """The postings that fit into so many bytes.

    Raises:
        ValueError: there is no such posting format, or not even one posting per code fits.
    """
    needed = bytes_of(n_codes, 0, n_items, format, n_removed)
    postings = (int(max_bytes) - needed) // BYTES_PER_POSTING[format]
    if postings < n_codes:
        least = needed + BYTES_PER_POSTING[format] * n_codes
        raise ValueError(
            f"{max_bytes} bytes are too few for {n_codes} codes in format {format}: one posting each takes {least}."
        )
    return postings


def gini(values: np.ndarray) -> float:
    """Gini coefficient of non-negative values: 0 when all are alike, near 1 when one has it all."""
    ordered = np.sort(np.asarray(values, np.float64))
    total = ordered.sum()
    if total == 0:
        return 0.0
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total))
