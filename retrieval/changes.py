"""Changes to posting lists that need no model, or only the scores of new items; arrays in and out.

The methods of SparseInvertedIndex say what each change means. "Gap": by how much a score must exceed the floor of its
code to enter the list (the index array `cuts`). Comparing stored scores with gaps, not sums with thresholds, lets equal
scores stay equal.
"""

from __future__ import annotations

import numba
import numpy as np

from retrieval import blocks
from retrieval.pruning import Pruning
from retrieval.sizes import offsets_of, postings_within


def add_items(index, scorer, n_new: int, block: int | None, progress: bool) -> dict:
    """The arrays of SparseInvertedIndex.add_items."""
    n_codes, cap = len(index), index.pruning.max_postings
    block = block or blocks.codes_per_block(n_new)
    starts = range(0, n_codes, block)
    if progress:
        starts = blocks.with_progress(starts, n_codes, block)
    first = index.n_items + 1
    grown = [(np.zeros(0, np.int64), *np.zeros((2, 0), np.float32), np.zeros(0, np.uint32), np.zeros(0, np.float32))]
    for start in starts:
        rows = slice(start, start + block)
        # Plain scores will do: a list of ReLU scores takes only what is above 0, and others may be of another kind.
        codes = index.codes[rows]
        new = blocks.checked_scores(scorer.scores(codes), codes, n_new, False, first)
        floors, gaps = index.floors[rows].copy(), index.cuts[rows].copy()
        whole = {row: _grow_whole(index, start + row, new[row]) for row in np.flatnonzero(gaps < 0)}
        offsets = index.offsets[start : start + len(new) + 1]
        lengths = np.zeros(len(new), np.int64)
        _measure_growth(offsets, index.scores, new, floors, gaps, cap or 0, lengths)
        for row, (floor, gap, items, _) in whole.items():
            lengths[row], floors[row], gaps[row] = len(items), floor, gap
        ends = offsets_of(lengths)
        items, scores = np.empty(ends[-1], np.uint32), np.empty(ends[-1], np.float32)
        old_gaps = index.cuts[rows]
        _grow(offsets, index.items, index.scores, new, first, floors, old_gaps, gaps, ends, items, scores)
        for row, (_, _, list_items, list_scores) in whole.items():
            items[ends[row] : ends[row + 1]] = list_items
            scores[ends[row] : ends[row + 1]] = list_scores
        grown.append((lengths, floors, gaps, items, scores))
    lengths, floors, gaps, items, scores = map(np.concatenate, zip(*grown, strict=True))
    return {"offsets": offsets_of(lengths), "items": items, "scores": scores, "floors": floors, "cuts": gaps}


def _grow_whole(index, row: int, new: np.ndarray):
    """A list that left nothing out, cut as in a build: floor, gap, items, scores.

    All in stored scores, for these are what is known of the old items: equal scores of old and new stay equal.
    """
    part = slice(index.offsets[row], index.offsets[row + 1])
    ids = np.concatenate(
        [index.items[part], np.arange(index.n_items + 1, index.n_items + 1 + len(new), dtype=np.uint32)]
    )
    stored = np.concatenate([index.scores[part], new - index.floors[row]])
    gap, cap = index.cuts[row], index.pruning.max_postings
    threshold = None if np.isneginf(gap) else float(gap)
    cap = None if cap is None else max(cap, part.stop - part.start)
    _, shifts, cuts, kept, stored = Pruning(False, threshold, cap).compact(stored[None])
    return index.floors[row] + shifts[0], cuts[0], ids[kept - 1], stored


@numba.njit(nogil=True, cache=True)
def _measure_growth(offsets, scores, new, floors, gaps, cap, lengths):
    """Lengths of the grown lists; gaps rise where the cap cuts. Rows of a gap below 0 are passed over."""
    for row in range(new.shape[0]):
        if gaps[row] < 0:
            continue
        first, last = offsets[row], offsets[row + 1]
        size = last - first
        for j in range(new.shape[1]):
            if new[row, j] - floors[row] > gaps[row]:
                size += 1
        limit = max(cap, last - first)  # a list that is longer already is of another kind
        if cap > 0 and size > limit:
            pool = np.empty(size, np.float32)
            at = last - first
            pool[:at] = scores[first:last]
            for j in range(new.shape[1]):
                if new[row, j] - floors[row] > gaps[row]:
                    pool[at] = new[row, j] - floors[row]
                    at += 1
            gaps[row] = np.partition(pool, size - 1 - limit)[size - 1 - limit]
            size = 0
            for j in range(pool.size):
                if pool[j] > gaps[row]:
                    size += 1
        lengths[row] = size


@numba.njit(nogil=True, cache=True)
def _grow(offsets, items, scores, new, first_new, floors, old_gaps, gaps, ends, to_items, to_scores):
    for row in range(new.shape[0]):
        if old_gaps[row] < 0:
            continue
        at = ends[row]
        uncut = gaps[row] == old_gaps[row]
        for p in range(offsets[row], offsets[row + 1]):
            if uncut or scores[p] > gaps[row]:
                to_items[at] = items[p]
                to_scores[at] = scores[p]
                at += 1
        for j in range(new.shape[1]):
            stored = new[row, j] - floors[row]
            if stored > gaps[row]:
                to_items[at] = first_new + j
                to_scores[at] = stored
                at += 1


def drop_items(index, gone: np.ndarray) -> dict:
    """The lists without the items `gone`."""
    keep = np.ones(index.n_items + 1, bool)
    keep[gone] = False
    lengths = np.zeros(len(index), np.int64)
    _count_kept(index.offsets, index.items, keep, lengths)
    offsets = offsets_of(lengths)
    items, scores = np.empty(offsets[-1], np.uint32), np.empty(offsets[-1], np.float32)
    _copy_kept(index.offsets, index.items, index.scores, keep, items, scores)
    return {"offsets": offsets, "items": items, "scores": scores}


@numba.njit(nogil=True, cache=True)
def _count_kept(offsets, items, keep, lengths):
    for row in range(lengths.size):
        for p in range(offsets[row], offsets[row + 1]):
            if keep[items[p]]:
                lengths[row] += 1


@numba.njit(nogil=True, cache=True)
def _copy_kept(offsets, items, scores, keep, to_items, to_scores):
    at = 0
    for p in range(items.size):
        if keep[items[p]]:
            to_items[at] = items[p]
            to_scores[at] = scores[p]
            at += 1


def even_bounds(items: np.ndarray, n_items: int, n_parts: int) -> list[int]:
    """First items of n_parts ranges that share the postings about evenly, and n_items + 1."""
    counts = np.zeros(n_items, np.int64)
    _count_items(items, counts)
    until = np.cumsum(counts * n_items + 1)  # items count where there are no postings
    ends = np.searchsorted(until, until[-1] * np.arange(1, n_parts) / n_parts) + 2
    bounds = [1]
    for part, end in enumerate(ends, start=1):  # every part gets an item
        bounds.append(int(min(max(end, bounds[-1] + 1), n_items + 1 - (n_parts - part))))
    return [*bounds, n_items + 1]


@numba.njit(nogil=True, cache=True)
def _count_items(items, counts):
    for p in range(items.size):
        counts[items[p] - 1] += 1


def merge_lists(parts) -> dict:
    """The lists of all parts: same codes, no item in two."""
    offsets, items, scores = parts[0].offsets, parts[0].items, parts[0].scores
    for part in parts[1:]:
        both = offsets + part.offsets
        to_items, to_scores = np.empty(both[-1], np.uint32), np.empty(both[-1], np.float32)
        _merge(offsets, items, scores, part.offsets, part.items, part.scores, both, to_items, to_scores)
        offsets, items, scores = both, to_items, to_scores
    return {"offsets": offsets, "items": items, "scores": scores}


@numba.njit(nogil=True, cache=True)
def _merge(offsets, items, scores, others, other_items, other_scores, both, to_items, to_scores):
    for row in range(offsets.size - 1):
        p, q = offsets[row], others[row]
        for at in range(both[row], both[row + 1]):
            own = p < offsets[row + 1]
            if own and q < others[row + 1]:
                own = items[p] < other_items[q]
            if own:
                to_items[at], to_scores[at] = items[p], scores[p]
                p += 1
            else:
                to_items[at], to_scores[at] = other_items[q], other_scores[q]
                q += 1


def common_threshold(
    index, threshold: float | None, keep_share: float | None, max_bytes: int | None, format: str
) -> float | None:
    """The one threshold for all codes that these arguments of SparseInvertedIndex.prune come to."""
    most = len(index.items)
    if keep_share is not None:
        if not 0 < keep_share <= 1:
            raise ValueError(f"keep_share is a share of all pairs, above 0 and at most 1, not {keep_share}.")
        most = min(most, round(keep_share * len(index) * index.n_items))
    if max_bytes is not None:
        most = min(most, postings_within(max_bytes, len(index), index.n_items, format, len(index.removed)))
    if most == len(index.items):
        return threshold
    scores = np.repeat(index.floors, np.diff(index.offsets))
    scores += index.scores
    at = len(scores) - 1 - most
    cut = float(np.partition(scores, at)[at])
    return cut if threshold is None else max(cut, threshold)


def prune(index, threshold: float | None, max_postings: int | None) -> dict:
    """The lists cut by these limits as well; floors take in what goes."""
    threshold = np.float32(-np.inf if threshold is None else threshold)
    left_out = index.n_items - len(index.removed) - np.diff(index.offsets)
    gaps = index.cuts.copy()
    shifts = np.zeros(len(index), np.float32)
    lengths = np.zeros(len(index), np.int64)
    limits = (threshold, max_postings or 0, np.maximum(left_out, 0))
    _measure_cut(index.offsets, index.scores, index.floors, *limits, gaps, shifts, lengths)
    offsets = offsets_of(lengths)
    items, scores = np.empty(offsets[-1], np.uint32), np.empty(offsets[-1], np.float32)
    _cut(index.offsets, index.items, index.scores, index.floors, threshold, gaps, shifts, offsets, items, scores)
    floors, cuts = index.floors + shifts, gaps - shifts
    return {"offsets": offsets, "items": items, "scores": scores, "floors": floors, "cuts": cuts}


@numba.njit(nogil=True, cache=True)
def _measure_cut(offsets, scores, floors, threshold, cap, left_out, gaps, shifts, lengths):
    """Raise the gaps; how far the floors move: the mean takes in what is left out from now on."""
    for row in range(lengths.size):
        first, last = offsets[row], offsets[row + 1]
        gap = max(gaps[row], threshold - floors[row])
        size = 0
        for p in range(first, last):
            if scores[p] > gap and floors[row] + scores[p] > threshold:
                size += 1
        if cap > 0 and size > cap:
            pool = np.empty(size, np.float32)
            at = 0
            for p in range(first, last):
                if scores[p] > gap and floors[row] + scores[p] > threshold:
                    pool[at] = scores[p]
                    at += 1
            gap = np.partition(pool, size - 1 - cap)[size - 1 - cap]
        size = 0
        total = 0.0
        highest = np.float32(0)
        for p in range(first, last):
            if scores[p] > gap and floors[row] + scores[p] > threshold:
                size += 1
            else:
                total += scores[p]
                highest = max(highest, scores[p])
        dropped = last - first - size
        if dropped > 0:
            gap = max(gap, highest)
            shifts[row] = min(np.float32(total / (left_out[row] + dropped)), gap)
        gaps[row] = gap
        lengths[row] = size


@numba.njit(nogil=True, cache=True)
def _cut(offsets, items, scores, floors, threshold, gaps, shifts, to, to_items, to_scores):
    for row in range(gaps.size):
        at = to[row]
        untouched = to[row + 1] - at == offsets[row + 1] - offsets[row]
        for p in range(offsets[row], offsets[row + 1]):
            if untouched or scores[p] > gaps[row]:
                to_items[at] = items[p]
                to_scores[at] = scores[p] - shifts[row]
                at += 1
