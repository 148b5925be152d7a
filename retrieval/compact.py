"""The index in half the memory or less, and what the rounding costs."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import ArrayLike

from retrieval.index import SparseInvertedIndex
from retrieval.postings import FORMATS, LARGEST_SCORE, Postings
from retrieval.pruning import Pruning
from retrieval.queries import Histories
from retrieval.sizes import blocks_of, offsets_of

SCORES = {"uint16": np.uint16, "uint8": np.uint8}  # by format


class CompactIndex(Postings):
    """A SparseInvertedIndex with rounded scores and 16-bit item ids; immutable.

    A code has one list per block of 65,536 items, in which ids lose the block's number times 65,536. No score is off by
    more than half a step. All else is as in SparseInvertedIndex, whose `compact` makes it; add and remove items there
    and compact again.

    Args:
        codes, floors, cuts, removed, n_items, pruning: as in SparseInvertedIndex.
        offsets: int64 (C * blocks + 1,), where the lists start and end, code by code and block by block.
        items: uint16 (nnz,).
        scores: uint16 or uint8 (nnz,), which is the format; q stands for low + q * step.
        lows, steps: float32 (C,); low and low + 65535 step (or 255 step) are the lowest and the highest score of the
            code's lists.

    Raises:
        ValueError: the arrays are not such an index.
    """

    def __init__(
        self,
        codes: np.ndarray,
        offsets: np.ndarray,
        items: np.ndarray,
        scores: np.ndarray,
        lows: np.ndarray,
        steps: np.ndarray,
        floors: np.ndarray,
        cuts: np.ndarray,
        removed: np.ndarray,
        n_items: int,
        pruning: Pruning | None = None,
    ):
        self.format = str(np.asarray(scores).dtype)
        if self.format not in SCORES:
            raise ValueError(f"Scores of a compact index are uint16 or uint8, not {self.format}.")
        self.dtypes = self.dtypes_of(self.format)
        values = (codes, offsets, items, scores, lows, steps, floors, cuts, removed)
        self._adopt(dict(zip(self.dtypes, values, strict=True)), n_items, pruning)
        used = np.diff(self.offsets[:: self.n_blocks]) > 0
        highest = self.lows + self.steps.astype(np.float64) * np.iinfo(self.format).max
        if not np.all(self.lows[used] > 0) or not np.all((self.steps >= 0) & (highest <= 2 * LARGEST_SCORE)):
            raise ValueError("A score is not a positive number (its low or step is wrong).")

    @classmethod
    def of(cls, index: SparseInvertedIndex, format: str) -> CompactIndex:
        """The lists of an exact index in "uint16" or "uint8"."""
        lows, steps = np.zeros((2, len(index)), np.float32)
        lengths = np.zeros((len(index), blocks_of(format, index.n_items)), np.int64)
        items = np.empty(len(index.items), np.uint16)
        scores = np.empty(len(index.items), format)
        _pack(index.offsets, index.items, index.scores, np.iinfo(format).max, lows, steps, lengths, items, scores)
        per_code = (lows, steps, index.floors, index.cuts)
        offsets = offsets_of(lengths.ravel())
        return cls(index.codes, offsets, items, scores, *per_code, index.removed, index.n_items, index.pruning)

    def decode(self) -> SparseInvertedIndex:
        """The exact index of the rounded scores: the same answers as this one, bit by bit."""
        items = np.empty(len(self.items), np.uint32)
        scores = np.empty(len(self.items), np.float32)
        _unpack(self.offsets, self.items, self.scores, self.lows, self.steps, self.n_blocks, items, scores)
        offsets = np.ascontiguousarray(self.offsets[:: self.n_blocks])
        lists = (self.codes, offsets, items, scores, self.floors)
        return SparseInvertedIndex(*lists, self.n_items, self.pruning, self.cuts, self.removed)

    def _list(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        ends = self.offsets[row * self.n_blocks : (row + 1) * self.n_blocks + 1]
        part = slice(ends[0], ends[-1])
        items, scores = np.empty(ends[-1] - ends[0], np.uint32), np.empty(ends[-1] - ends[0], np.float32)
        lows, steps = self.lows[row : row + 1], self.steps[row : row + 1]
        _unpack(ends - ends[0], self.items[part], self.scores[part], lows, steps, self.n_blocks, items, scores)
        return items, scores

    def extend(self, other: SparseInvertedIndex | CompactIndex) -> CompactIndex:
        """As SparseInvertedIndex.extend.

        Args:
            other: an exact index, or a compact one of the same format and removed items.

        Returns:
            The joined index, in this format.

        Raises:
            ValueError: a code is in both, or the items or the formats differ.
        """
        if isinstance(other, SparseInvertedIndex):
            other = CompactIndex.of(self._match_items(other), self.format)
        if other.format != self.format:
            raise ValueError(f"A {self.format} index can't be extended by a {other.format} one.")
        if other.n_items != self.n_items or not np.array_equal(other.removed, self.removed):
            raise ValueError("Only an index of the same items can extend a compact one.")
        return self._with(**self._joined(other))

    def statistics(self) -> dict:
        """As of the exact index; score_error: the most that any stored score is off by."""
        half_steps = self.steps / 2
        return {**super().statistics(), "score_error": float(half_steps.max(initial=0))}

    @classmethod
    def dtypes_of(cls, format: str) -> dict[str, type]:
        """The types of the arrays in "uint16" or "uint8"."""
        return {
            "codes": np.int64,
            "offsets": np.int64,
            "items": np.uint16,
            "scores": SCORES[format],
            "lows": np.float32,
            "steps": np.float32,
            "floors": np.float32,
            "cuts": np.float32,
            "removed": np.uint32,
        }


FORMATS.update(uint16=CompactIndex, uint8=CompactIndex)


def overlap(
    exact: Postings,
    other: Postings,
    codes: ArrayLike,
    k: int,
    seen: Histories | None = None,
    weights: ArrayLike | None = None,
    threads: int | None = None,
) -> dict[str, float]:
    """What one index loses against another on some queries, by their best k items.

    Args:
        exact: recommends what is right.
        other: recommends what is compared with it.
        codes: integers (U, K).
        k: how many items count.
        seen: items to leave out and
        weights: (U, K), as of recommend.
        threads: as of recommend.

    Returns:
        queries and k; overlap, the mean share of a query's exact items that are still there, and overlap_min, that of
        the worst query; same_items and same_order, the shares of queries that lose nothing and where nothing moves;
        score_error, the largest difference of the scores at the same position.

    Raises:
        ValueError: there are no queries, or as recommend.
    """
    ids, scores = exact.recommend(codes, k, seen, weights, threads)
    other_ids, other_scores = other.recommend(codes, k, seen, weights, threads)
    if not len(ids):
        raise ValueError("There is no overlap without queries.")
    shares = np.ones(len(ids))
    for query, row in enumerate(ids):
        wanted = row[row > 0]
        if len(wanted):
            shares[query] = np.isin(wanted, other_ids[query]).mean()
    filled = (ids > 0) & (other_ids > 0)
    return {
        "queries": len(ids),
        "k": k,
        "overlap": float(shares.mean()),
        "overlap_min": float(shares.min()),
        "same_items": float((shares == 1).mean()),
        "same_order": float((ids == other_ids).all(axis=1).mean()),
        "score_error": float(np.abs(scores[filled] - other_scores[filled]).max(initial=0)),
    }


@numba.njit(nogil=True, cache=True)
def _pack(offsets, items, scores, levels, lows, steps, lengths, to_items, to_scores):
    for row in range(lows.size):
        first, last = offsets[row], offsets[row + 1]
        if first == last:
            continue
        low = high = scores[first]
        for p in range(first, last):
            low, high = min(low, scores[p]), max(high, scores[p])
        step = np.float32((np.float64(high) - np.float64(low)) / levels)
        lows[row], steps[row] = low, step
        for p in range(first, last):
            lengths[row, items[p] >> 16] += 1
            to_items[p] = items[p] & 0xFFFF
            level = 0.0
            if step > 0:
                level = min(np.rint((np.float64(scores[p]) - low) / step), levels)
            to_scores[p] = np.int64(level)


@numba.njit(nogil=True, cache=True)
def _unpack(offsets, items, scores, lows, steps, n_blocks, to_items, to_scores):
    for at in range(offsets.size - 1):
        row, start = at // n_blocks, (at % n_blocks) << 16
        for p in range(offsets[at], offsets[at + 1]):
            to_items[p] = start + items[p]
            to_scores[p] = lows[row] + steps[row] * np.float32(scores[p])
