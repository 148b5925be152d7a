"""The index in half the memory or less, and what the rounding costs."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import ArrayLike

from retrieval.index import SparseInvertedIndex
from retrieval.postings import FORMATS, LARGEST_SCORE, Postings
from retrieval.pruning import Pruning
from retrieval.queries import Histories
from retrieval.search import rows_of
from retrieval.sizes import BLOCK_ITEMS, blocks_of, dense_lists, offsets_of

SCORES = {"uint16": np.uint16, "uint8": np.uint8}  # by format


class CompactIndex(Postings):
    """A SparseInvertedIndex with rounded scores and 16-bit item ids; immutable.

    A code has one list per block of 65,536 items, in which ids lose the block's number times 65,536. A list that takes
    less room as a row of the whole catalogue is one: a score per item and no ids. In uint8 those are the lists of more
    than a third of the items. No score is off by more than half a step. All else is as in SparseInvertedIndex, whose
    `compact` makes it; add and remove items there and compact again.

    Args:
        codes, floors, cuts, removed, n_items, pruning: as in SparseInvertedIndex.
        offsets: int64 (C * blocks + 1,), where the lists start and end, code by code and block by block.
        items: uint16 (nnz,).
        scores: uint16 or uint8 (nnz,), which is the format; q stands for low + q * step.
        lows, steps: float32 (C,); low and low + 65535 step (or 255 step) are the lowest and the highest score of the
            code's lists; of a dense row low + 65534 step (or 254 step) is the highest.
        dense: uint8 (C,), 1 where the code's list is a dense row, and its lists of ids are empty.
        table: uint16 or uint8 (D * n_items,), the dense rows, in the order of their codes; 0 where an item has no
            posting, and q from 1 on stands for low + (q - 1) * step.

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
        dense: np.ndarray,
        table: np.ndarray,
        n_items: int,
        pruning: Pruning | None = None,
    ):
        self.format = str(np.asarray(scores).dtype)
        if self.format not in SCORES:
            raise ValueError(f"Scores of a compact index are uint16 or uint8, not {self.format}.")
        self.dtypes = self.dtypes_of(self.format)
        values = (codes, offsets, items, scores, lows, steps, floors, cuts, removed, dense, table)
        self._adopt(dict(zip(self.dtypes, values, strict=True)), n_items, pruning)
        listed = np.diff(self.offsets[:: self.n_blocks])
        if np.any(self.dense > 1) or len(self.table) != self.dense.sum(dtype=np.int64) * self.n_items:
            raise ValueError("The dense rows of the index don't fit its codes.")
        if np.any(listed[self.dense > 0]):
            raise ValueError("A list is both a dense row and not.")
        if self._rows()[:, self.removed - 1].any():
            raise ValueError("A dense row is wrong: it holds an item that was removed.")
        self._lengths = listed
        self._lengths[self.dense > 0] = [np.count_nonzero(row) for row in self._rows()]
        used = self._lengths > 0
        highest = self.lows + self.steps.astype(np.float64) * np.iinfo(self.format).max
        if not np.all(self.lows[used] > 0) or not np.all((self.steps >= 0) & (highest <= 2 * LARGEST_SCORE)):
            raise ValueError("A score is not a positive number (its low or step is wrong).")

    @classmethod
    def of(cls, index: SparseInvertedIndex, format: str) -> CompactIndex:
        """The lists of an exact index in "uint16" or "uint8"."""
        lows, steps = np.zeros((2, len(index)), np.float32)
        lengths = index.lengths()
        dense = dense_lists(lengths, index.n_items, format)
        short = lengths[dense == 0].sum()
        parts = np.zeros((len(index), blocks_of(format, index.n_items)), np.int64)
        items, scores = np.empty(short, np.uint16), np.empty(short, format)
        table = np.zeros((dense.sum(dtype=np.int64), index.n_items), format)
        levels = np.iinfo(format).max
        exact = (index.offsets, index.items, index.scores)
        _pack(*exact, levels, rows_of(dense), lows, steps, parts, items, scores, table)
        arrays = (index.codes, offsets_of(parts.ravel()), items, scores, lows, steps, index.floors, index.cuts)
        return cls(*arrays, index.removed, dense, table.ravel(), index.n_items, index.pruning)

    def decode(self) -> SparseInvertedIndex:
        """The exact index of the rounded scores: the same answers as this one, bit by bit."""
        offsets = offsets_of(self._lengths)
        items, scores = np.empty(offsets[-1], np.uint32), np.empty(offsets[-1], np.float32)
        for row in range(len(self)):
            part = slice(offsets[row], offsets[row + 1])
            items[part], scores[part] = self._list(row)
        lists = (self.codes, offsets, items, scores, self.floors)
        return SparseInvertedIndex(*lists, self.n_items, self.pruning, self.cuts, self.removed)

    def lengths(self) -> np.ndarray:
        return self._lengths

    def _rows(self) -> np.ndarray:
        """The dense rows (D, n_items)."""
        return self.table.reshape(-1, self.n_items)

    def _list(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        low, step = self.lows[row], self.steps[row]
        if self.dense[row]:
            levels = self._rows()[self.dense[:row].sum(dtype=np.int64)]
            items = np.flatnonzero(levels)
            return (items + 1).astype(np.uint32), low + step * (levels[items].astype(np.float32) - np.float32(1))
        ends = self.offsets[row * self.n_blocks : (row + 1) * self.n_blocks + 1]
        part = slice(ends[0], ends[-1])
        starts = np.repeat(np.arange(self.n_blocks, dtype=np.uint32) * BLOCK_ITEMS, np.diff(ends))
        return starts + self.items[part], low + step * self.scores[part].astype(np.float32)

    def _taken(self, rows: np.ndarray) -> dict:
        at = rows_of(self.dense)[rows]
        return {**super()._taken(rows), "table": self._rows()[at[at >= 0]].ravel()}

    def _joined(self, other: CompactIndex) -> dict:
        codes = np.concatenate([index.codes[index.dense > 0] for index in (self, other)])
        table = np.concatenate([self._rows(), other._rows()])[np.argsort(codes)]
        return {**super()._joined(other), "table": table.ravel()}

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
            "dense": np.uint8,
            "table": SCORES[format],
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
def _pack(offsets, items, scores, most, rows_at, lows, steps, lengths, to_items, to_scores, table):
    """Round the lists; `most` is the highest level of the format."""
    to = 0
    for row in range(lows.size):
        first, last = offsets[row], offsets[row + 1]
        if first == last:
            continue
        levels = most - (rows_at[row] >= 0)  # level 0 of a dense row is no posting
        low = high = scores[first]
        for p in range(first, last):
            low, high = min(low, scores[p]), max(high, scores[p])
        step = np.float32((np.float64(high) - np.float64(low)) / levels)
        lows[row], steps[row] = low, step
        for p in range(first, last):
            level = 0.0
            if step > 0:
                level = min(np.rint((np.float64(scores[p]) - low) / step), levels)
            if rows_at[row] >= 0:
                table[rows_at[row], items[p] - 1] = np.int64(level) + 1
                continue
            lengths[row, items[p] >> 16] += 1
            to_items[to] = items[p] & 0xFFFF
            to_scores[to] = np.int64(level)
            to += 1
