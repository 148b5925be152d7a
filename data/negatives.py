"""Negatives: the items that a target is told from, most kinds shared by the rows of a batch.

A kind is a class: made once per epoch, it draws for every batch, and says how often each item it drew was to be
expected, which sampled softmax corrects for.
"""

from __future__ import annotations

import numpy as np


class Negatives:
    """What all kinds share.

    Args:
        popularity: (n_items,) how often each item 1 .. n_items occurs in training.
        count: how many to draw, the flag neg_num.
        power: the flag neg_power, 0 or more.
        targets: (n_items,) how often each item is expected to be a target of an epoch; None: as it occurs.
    """

    def __init__(self, popularity: np.ndarray, count: int, power: float, targets: np.ndarray | None = None):
        self.popularity, self.count = np.asarray(popularity, np.float64), count
        self.targets = self.popularity if targets is None else targets
        weights = (self.popularity + 1) ** power  # + 1: every item can be drawn
        self._log_probability = np.log(weights / weights.sum())
        self._upper = np.cumsum(weights) / weights.sum()

    def draw(self, rng: np.random.Generator, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Negatives of a batch.

        Args:
            rng: gives every random number.
            positive: the targets of the batch, (B,), or (R, 1) of places, 0 where there is none.

        Returns:
            ids (N,) int32, or (R, N) of each target its own, and the log of how often each is expected among N, float32
            of the same shape.
        """
        raise NotImplementedError


class Popular(Negatives):
    """Items in proportion to popularity ** power, spread evenly: one from each of `count` equal shares.

    Uniform negatives (power 0) teach popularity first and everything else later; drawing popular items more often and
    correcting for it in the loss learns both at once. The softmax stays that of the whole catalogue. An item that is
    expected 3.2 times is drawn three or four times, where free draws would give it any number: the sum that they
    estimate is steadier (stratified sampling).
    """

    def draw(self, rng, positive):
        spread = (np.arange(self.count) + rng.random(self.count)) / self.count
        place = np.searchsorted(self._upper, spread, side="right")
        place = np.minimum(place, len(self._upper) - 1)  # rounding may leave the last bound below 1
        return (place + 1).astype(np.int32), self.log_expected(place + 1).astype(np.float32)

    def log_expected(self, items: np.ndarray) -> np.ndarray:
        """How often items are expected in a draw, as its log, float64."""
        return self._log_probability[items - 1] + np.log(self.count)


class Own(Popular):
    """Every target its own, by popularity ** power: for losses that sum over few negatives, as BCE over 10.

    Shared by a batch, ten items would be told from all of its targets at once and the others from none.
    """

    def draw(self, rng, positive):
        place = np.searchsorted(self._upper, rng.random((positive.size, self.count)), side="right")
        place = np.minimum(place, len(self._upper) - 1)
        return (place + 1).astype(np.int32), self.log_expected(place + 1).astype(np.float32)


class InBatch(Negatives):
    """The targets of the batch, for each row those of the others; of rows with several targets `count` at random.

    They come as often as items are targets, hence the correction (logQ: Yi et al., "Sampling-Bias-Corrected Neural
    Modeling for Large Corpus Item Recommendations", 2019). neg_power changes nothing.
    """

    def draw(self, rng, positive):
        drawn = positive
        if positive.ndim == 2:
            known = positive[positive > 0]
            drawn = rng.choice(known, self.count, replace=len(known) < self.count)
        return drawn.astype(np.int32), self.log_expected(drawn, len(drawn)).astype(np.float32)

    def log_expected(self, items: np.ndarray, count: int) -> np.ndarray:
        """How often items are expected among `count` targets, as a log, float64."""
        with np.errstate(divide="ignore"):  # an item that is never a target: the log of 0
            return np.log(self.targets[items - 1] * (count / self.targets.sum()))


class Mixed(Negatives):
    """`InBatch` and `Popular` together (Yang et al., "Mixed Negative Sampling for Learning Two-tower Neural Networks in
    Recommendations", 2020); an item may come from either, so what is expected of both adds up."""

    def __init__(self, popularity, count, power, targets=None):
        super().__init__(popularity, count, power, targets)
        self.kinds = InBatch(popularity, count, power, targets), Popular(popularity, count, power)

    def draw(self, rng, positive):
        in_batch, popular = self.kinds
        others = in_batch.draw(rng, positive)[0]
        items = np.concatenate([others, popular.draw(rng, positive)[0]])
        both = np.logaddexp(in_batch.log_expected(items, len(others)), popular.log_expected(items))
        return items, both.astype(np.float32)


class All(Negatives):
    """Every item once: the full softmax; neg_num and neg_power change nothing."""

    def draw(self, rng, positive):
        return np.arange(1, len(self.popularity) + 1, dtype=np.int32), np.zeros(len(self.popularity), np.float32)


NEGATIVES = {"popular": Popular, "own": Own, "in-batch": InBatch, "mixed": Mixed, "all": All}
