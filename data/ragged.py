"""Rows of different lengths in two flat arrays, the form of every history and target list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """Row i is values[offsets[i]:offsets[i + 1]].

    Attributes:
        offsets: (n + 1,) int64, starts at 0, never falls, ends at len(values).
        values: (nnz,) int32, item ids 1..n_items; a history stands oldest first.

    Raises:
        ValueError: the offsets do not describe the values.
    """

    offsets: np.ndarray
    values: np.ndarray

    def __post_init__(self):
        offsets = np.asarray(self.offsets, dtype=np.int64)
        values = np.asarray(self.values, dtype=np.int32)
        if offsets.ndim != 1 or values.ndim != 1 or len(offsets) == 0:
            raise ValueError("a Ragged needs one-dimensional values and at least one offset")
        if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
            raise ValueError(f"offsets must rise from 0 to the number of values, {len(values)}")
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "values", values)

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[int]]) -> Ragged:
        """Copy an iterable of integer sequences (lists, tuples or arrays; empty rows are kept)."""
        rows = [np.asarray(row, dtype=np.int32).reshape(-1) for row in rows]
        values = np.concatenate(rows) if rows else np.empty(0, np.int32)
        return cls.from_lengths([len(row) for row in rows], values)

    @classmethod
    def from_lengths(cls, lengths: Sequence[int] | np.ndarray, values: np.ndarray) -> Ragged:
        """Rows of the given lengths, standing one after the other in values."""
        offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(offsets, values)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        """Row i as a view, (length,) int32; a negative i counts from the end."""
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"row {i} of {n} rows")
        i %= n
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def lengths(self) -> np.ndarray:
        """Number of values of each row, (n,) int64."""
        return np.diff(self.offsets)

    def row_of_value(self) -> np.ndarray:
        """The row in which each value stands, (nnz,) int64."""
        return np.repeat(np.arange(len(self)), self.lengths())

    def take(self, rows: Sequence[int] | np.ndarray) -> Ragged:
        """The given rows (indices or a boolean mask), in the given order."""
        rows = np.arange(len(self))[rows]
        return self.slices(rows, self.offsets[rows], self.offsets[rows + 1])

    def slices(self, rows: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Ragged:
        """For each of the rows the values at start..stop.

        Args:
            rows: (m,) which rows.
            start, stop: (m,) absolute places in `values`.

        Raises:
            ValueError: a place lies outside its row.
        """
        if (start < self.offsets[rows]).any() or (stop > self.offsets[rows + 1]).any():
            raise ValueError("a slice reaches outside its row")
        lengths = stop - start
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        # place of every output value = start of its slice + its rank inside the slice
        places = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], lengths)
        return Ragged(offsets, self.values[places])

    def tail(self, width: int) -> np.ndarray:
        """The last `width` values of each row, left-padded with 0: (n, width) int32.

        The newest item stands in the last column.
        """
        return self.windows(self.offsets[:-1], self.offsets[1:], width)

    def windows(self, start: np.ndarray, stop: np.ndarray, width: int) -> np.ndarray:
        """The last `width` values of each span start..stop, left-padded with 0: (spans, width) int32.

        Args:
            start, stop: (spans,) int64, absolute places in `values`; not checked: this is the inner step of training.
            width: of the result.
        """
        if not len(self.values):
            return np.zeros((len(start), width), dtype=np.int32)
        places = stop[:, None] + np.arange(-width, 0)  # (spans, width)
        values = self.values.take(places, mode="clip")
        values[places < start[:, None]] = 0
        return values
