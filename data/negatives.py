"""Negatives for sampled softmax."""

from __future__ import annotations

import numpy as np


class NegativeSampler:
    """Draws items in proportion to popularity ** power, spread evenly: one from each of `count` equal shares.

    Uniform negatives (power 0) teach popularity first and everything else later; drawing popular
    items more often and correcting for it in the loss learns both at once. The softmax stays that
    of the whole catalogue. An item that is expected 3.2 times is drawn three or four times, where free
    draws would give it any number: the sum that they estimate is steadier (stratified sampling).

    Args:
        popularity: (n_items,) how often each item 1 .. n_items occurs in training.
        power: 0 or more.
    """

    def __init__(self, popularity: np.ndarray, power: float):
        weights = (np.asarray(popularity, np.float64) + 1) ** power  # + 1: every item can be drawn
        self._log_probability = np.log(weights / weights.sum())
        self._upper = np.cumsum(weights) / weights.sum()

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """ids (count,) int32, and the log of how often each is expected in count draws, (count,) float32."""
        spread = (np.arange(count) + rng.random(count)) / count
        place = np.searchsorted(self._upper, spread, side="right")
        place = np.minimum(place, len(self._upper) - 1)  # rounding may leave the last bound below 1
        log_expected = self._log_probability[place] + np.log(count)
        return (place + 1).astype(np.int32), log_expected.astype(np.float32)
