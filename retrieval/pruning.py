"""What an index leaves out, and what stands in for it: one rule for every way to shorten lists."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numba
import numpy as np


@dataclass(frozen=True)
class Pruning:
    """How scores become posting lists; an index carries it, so codes scored later are cut alike.

    The scores that a list keeps are kept as they are. Every item that a list leaves out counts as the mean of what was
    left out: the list's floor, 0 where only zeros were. That is the constant nearest to the scores it replaces; the
    highest one left out in its place would reward an item for being absent, and a plain sum has no zero point to fall
    back to.

    Attributes:
        relu: the scorer gives ReLU(score + bias) >= 0, so a score of 0 needs no posting.
        threshold: scores up to this one are left out (like a raised bias); None: no threshold.
        max_postings: at most so many postings per code, the best; None: no cap. Scores equal to the first one that is
            cut are cut with it.

    Raises:
        ValueError: the threshold is not finite, or max_postings is not a whole number from 1 on.
    """

    relu: bool = True
    threshold: float | None = None
    max_postings: int | None = None

    def __post_init__(self):
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise ValueError(f"The pruning threshold must be a finite number, not {self.threshold}.")
        whole = isinstance(self.max_postings, (int, np.integer)) and not isinstance(self.max_postings, bool)
        if self.max_postings is not None and not (whole and self.max_postings >= 1):
            raise ValueError(f"max_postings must be at least 1 (or None for no cap), not {self.max_postings}.")

    def as_dict(self) -> dict:
        """The arguments, as json takes them: it knows no numbers of NumPy's."""
        kinds = {"relu": bool, "threshold": float, "max_postings": int}
        return {name: None if value is None else kinds[name](value) for name, value in asdict(self).items()}

    def cuts(self, scores: np.ndarray) -> np.ndarray:
        """The score above which each row is kept: float32 (c, n_items) -> float32 (c,)."""
        n_codes, n_items = scores.shape
        cuts = np.full(n_codes, 0.0 if self.relu else -np.inf, np.float32)
        if self.threshold is not None:
            cuts = np.maximum(cuts, np.float32(self.threshold))
        if self.max_postings is not None and self.max_postings < n_items:
            at = n_items - 1 - self.max_postings  # position of the (max_postings + 1)-th best
            cuts = np.maximum(cuts, np.partition(scores, at, axis=1)[:, at])
        return cuts

    def compact(self, scores: np.ndarray) -> tuple[np.ndarray, ...]:
        """The posting lists of some codes.

        Args:
            scores: float32 (c, n_items), column j being item j + 1.

        Returns:
            Lengths int64 (c,), floors float32 (c,), cuts float32 (c,), items uint32 (kept,), stored scores float32
            (kept,); a cut is what a score must exceed the floor by to be kept.
        """
        cuts = self.cuts(scores)
        lengths = np.zeros(len(scores), np.int64)
        floors = np.zeros(len(scores), np.float32)
        _measure(scores, cuts, self.relu, lengths, floors)
        items = np.empty(lengths.sum(), np.uint32)
        stored = np.empty(lengths.sum(), np.float32)
        _keep(scores, cuts, floors, items, stored)
        return lengths, floors, cuts - floors, items, stored

    def compact_sparse(
        self, offsets: np.ndarray, items: np.ndarray, scores: np.ndarray, n_items: int
    ) -> tuple[np.ndarray, ...]:
        """As compact, of sparse rows: what it returns for the same table with 0 for every pair that they lack.

        Args:
            offsets: int64 (c + 1,) where the rows start and end.
            items: uint32 (nnz,), ids ascending within a row.
            scores: float32 (nnz,).
            n_items: columns of the table.
        """
        base = max(0.0, self.threshold or 0.0)
        lengths = np.zeros(len(offsets) - 1, np.int64)
        floors, cuts = np.zeros((2, len(lengths)), np.float32)
        cap = min(self.max_postings or n_items, n_items)
        _measure_sparse(offsets, scores, n_items, np.float32(base), cap, self.relu, lengths, floors, cuts)
        kept = scores > np.repeat(cuts, np.diff(offsets))
        stored = scores[kept] - np.repeat(floors, lengths)
        return lengths, floors, cuts - floors, items[kept], stored

    def default_cuts(self, floors: np.ndarray) -> np.ndarray:
        """For each floor, what a score must exceed it by, as far as this rule alone can tell."""
        base = 0.0 if self.relu else -np.inf
        if self.threshold is not None:
            base = max(base, self.threshold)
        cuts = np.float32(base) - floors
        return np.maximum(cuts, 0) if self.relu or self.max_postings is not None else cuts

    def tightened(self, threshold: float | None, max_postings: int | None) -> Pruning:
        """This rule with further limits; whichever is tighter holds."""
        thresholds = [t for t in (self.threshold, threshold) if t is not None]
        caps = [c for c in (self.max_postings, max_postings) if c is not None]
        return replace(self, threshold=max(thresholds, default=None), max_postings=min(caps, default=None))


@numba.njit(nogil=True, cache=True)
def _floor(n_left_out, left_out, cut, relu, lowest, highest):
    """What an item without a posting counts as: the mean of the scores left out, which sum up to left_out."""
    if n_left_out > 0:
        return min(np.float32(left_out / n_left_out), cut)
    if relu:
        return np.float32(0)
    # Under every score, by a gap that survives rounding and flush-to-zero modes: a plain sum that leaves nothing out
    # has a posting for every item, the worst one too.
    return np.float32(lowest - 1e-6 * max(abs(lowest), highest - lowest, 1e-6))


@numba.njit(nogil=True, cache=True)
def _measure(scores, cuts, relu, lengths, floors):
    n_items = scores.shape[1]
    for row in range(scores.shape[0]):
        kept = 0
        left_out = 0.0
        lowest = highest = scores[row, 0]
        for j in range(n_items):
            score = scores[row, j]
            if score > cuts[row]:
                kept += 1
            else:
                left_out += score
            lowest = min(lowest, score)
            highest = max(highest, score)
        lengths[row] = kept
        floors[row] = _floor(n_items - kept, left_out, cuts[row], relu, lowest, highest)


@numba.njit(nogil=True, cache=True)
def _measure_sparse(offsets, scores, n_items, base, cap, relu, lengths, floors, cuts):
    for row in range(lengths.size):
        part = scores[offsets[row] : offsets[row + 1]]
        above = part[part > base]
        cut = base
        if above.size > cap:
            cut = np.partition(above, above.size - 1 - cap)[above.size - 1 - cap]
        kept = 0
        left_out = 0.0
        lowest = highest = np.float32(0)
        for score in part:
            if score > cut:
                kept += 1
            elif score > 0 or not relu:
                left_out += score
        if kept == n_items:
            lowest, highest = part.min(), part.max()
        lengths[row], cuts[row] = kept, cut
        floors[row] = _floor(n_items - kept, left_out, cut, relu, lowest, highest)


@numba.njit(nogil=True, cache=True)
def _keep(scores, cuts, floors, items, stored):
    at = 0
    for row in range(scores.shape[0]):
        for j in range(scores.shape[1]):
            if scores[row, j] > cuts[row]:
                items[at] = j + 1
                stored[at] = scores[row, j] - floors[row]
                at += 1
