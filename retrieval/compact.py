"""The index in half the memory or less, and what the rounding costs."""

from __future__ import annotations

import numba
import numpy as np

from retrieval.index import SparseInvertedIndex
from retrieval.postings import LARGEST_SCORE, Postings, blocks_of, offsets_of
from retrieval.pruning import Pruning

FORMATS = ("uint16", "uint8")


class CompactIndex(Postings):
    """A SparseInvertedIndex with rounded scores and 16-bit item ids; immutable.

    A code has one list per block of 65,536 items: ids lose the block's number times 65,536, and
    offsets int64 [C * blocks + 1] part the lists, code by code and block by block. scores q
    (uint16 or uint8, which is the format) stand for low + q * step, both float32 and per code; low
    and low + 65535 step (or 255 step) are the lowest and the highest score of the code's lists, so
    no score is off by more than half a step. All else is as in SparseInvertedIndex. Made by `of`
    (or SparseInvertedIndex.compact); add and remove items on the exact index and compact again.
    """

    def __init__(
        self,
        codes,
        offsets,
        items,
        scores,
        lows,
        steps,
        floors,
        cuts,
        removed,
        n_items: int,
        pruning: Pruning | None = None,
    ):
        self.format = str(np.asarray(scores).dtype)
        if self.format not in FORMATS:
            raise ValueError(f"Scores of a compact index are uint16 or uint8, not {self.format}.")
        self.dtypes = self.dtypes_of(self.format)
        arrays = {
            "codes": codes,
            "offsets": offsets,
            "items": items,
            "scores": scores,
            "lows": lows,
            "steps": steps,
            "floors": floors,
            "cuts": cuts,
            "removed": removed,
        }
        self._adopt(arrays, n_items, pruning)
        used = np.diff(self.offsets[:: self.n_blocks]) > 0
        highest = self.lows + self.steps.astype(np.float64) * np.iinfo(self.format).max
        if not np.all(self.lows[used] > 0) or not np.all((self.steps >= 0) & (highest <= 2 * LARGEST_SCORE)):
            raise ValueError("A score is not a positive number (its low or step is wrong).")

    @classmethod
    def of(cls, index: SparseInvertedIndex, format: str) -> CompactIndex:
        if format not in FORMATS:
            raise ValueError(f"Unknown compact format {format!r}; there are {' and '.join(FORMATS)}.")
        n_blocks = blocks_of(format, index.n_items)
        lows, steps = np.zeros((2, len(index)), np.float32)
        lengths = np.zeros((len(index), n_blocks), np.int64)
        items = np.empty(len(index.items), np.uint16)
        scores = np.empty(len(index.items), format)
        _pack(index.offsets, index.items, index.scores, np.iinfo(format).max, lows, steps, lengths, items, scores)
        return cls(
            index.codes,
            offsets_of(lengths.ravel()),
            items,
            scores,
            lows,
            steps,
            index.floors,
            index.cuts,
            index.removed,
            index.n_items,
            index.pruning,
        )

    def decode(self) -> SparseInvertedIndex:
        """The exact index of the rounded scores: the same answers as this one, bit by bit."""
        items = np.empty(len(self.items), np.uint32)
        scores = np.empty(len(self.items), np.float32)
        _unpack(self.offsets, self.items, self.scores, self.lows, self.steps, self.n_blocks, items, scores)
        offsets = np.ascontiguousarray(self.offsets[:: self.n_blocks])
        return SparseInvertedIndex(
            self.codes,
            offsets,
            items,
            scores,
            self.floors,
            self.n_items,
            self.pruning,
            self.cuts,
            self.removed,
        )

    def _list(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        ends = self.offsets[row * self.n_blocks : (row + 1) * self.n_blocks + 1]
        part = slice(ends[0], ends[-1])
        items, scores = np.empty(ends[-1] - ends[0], np.uint32), np.empty(ends[-1] - ends[0], np.float32)
        lows, steps = self.lows[row : row + 1], self.steps[row : row + 1]
        _unpack(ends - ends[0], self.items[part], self.scores[part], lows, steps, self.n_blocks, items, scores)
        return items, scores

    def extend(self, other: SparseInvertedIndex | CompactIndex) -> CompactIndex:
        """A new index with the posting lists of both: the same items, no code in common."""
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
    def dtypes_of(cls, format: str) -> dict:
        scores = {"uint16": np.uint16, "uint8": np.uint8}[format]
        return {
            "codes": np.int64,
            "offsets": np.int64,
            "items": np.uint16,
            "scores": scores,
            "lows": np.float32,
            "steps": np.float32,
            "floors": np.float32,
            "cuts": np.float32,
            "removed": np.uint32,
        }


def overlap(exact, other, codes, k: int, seen=None, threads: int | None = None) -> dict:
    """What `other` loses against `exact` on queries of `codes` [U, K_u], by their best k items.

    overlap: the mean share of a query's exact items that are still there, and overlap_min of the
    worst query; same_items, same_order: shares of queries that lose nothing, and nothing moves.
    score_error: the largest difference of the scores at the same position.
    """
    ids, scores = exact.recommend(codes, k, seen=seen, threads=threads)
    other_ids, other_scores = other.recommend(codes, k, seen=seen, threads=threads)
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
