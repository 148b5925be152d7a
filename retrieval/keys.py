"""The last items of a history as keys of an index, beside the codes of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.search import EMPTY_SLOT


@dataclass(frozen=True)
class ItemKeys:
    """How histories become item keys: item i is the key `first` + i, weighted by its age.

    Attributes:
        first: behind the keys of other kinds; code tuples end at N^M - 1, so N^M will do.
        weights: of the last items looked up, oldest first; the last one is that of the newest item.
    """

    first: int
    weights: tuple[float, ...]

    def of(self, histories) -> tuple[np.ndarray, np.ndarray]:
        """Keys of histories.

        Args:
            histories: U rows of item ids, oldest first, as an object with offsets (U + 1,) and values.

        Returns:
            Keys int64 (U, H), -1 where a history is shorter, and their weights float32 (U, H).
        """
        offsets, values = np.asarray(histories.offsets, np.int64), np.asarray(histories.values, np.int64)
        place = offsets[1:, None] - np.arange(len(self.weights), 0, -1)  # (U, H), the newest item last
        filled = place >= offsets[:-1, None]
        items = values[np.maximum(place, 0)] if len(values) else np.zeros(place.shape, np.int64)
        keys = np.where(filled, self.first + items, EMPTY_SLOT)
        return keys, np.where(filled, np.asarray(self.weights, np.float32), np.float32(0))

    def beside(self, codes: np.ndarray, weights: np.ndarray, histories) -> tuple[np.ndarray, np.ndarray]:
        """Codes of tokens and their weights (U, C), and the item keys behind them: keys and weights (U, C + H)."""
        keys, ages = self.of(histories)
        return np.concatenate([codes, keys], 1), np.concatenate([weights, ages], 1)
