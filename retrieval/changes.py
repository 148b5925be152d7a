"""Changes to posting lists that need no model, or only the scores of new items; arrays in and out.

The methods of SparseInvertedIndex say what each change means. "Gap": by how much a score must exceed the floor of its
code to enter the list (the index array `cuts`). Comparing stored scores with gaps, not sums with thresholds, lets equal
scores stay equal.
"""

from __future__ import annotations

from bisect import bisect_right

import numba
import numpy as np

from retrieval import blocks
from retrieval.postings import Postings
from retrieval.pruning import Pruning
from retrieval.sizes import bytes_of, offsets_of


def add_items(index: Postings, scorer: blocks.Scorer, n_new: int, block: int | None, progress: bool) -> dict:
    """The arrays of SparseInvertedIndex.add_items."""
    block = block or blocks.codes_per_block(n_new)
    starts = range(0, len(index), block)
    if progress:
        starts = blocks.with_progress(starts, len(index), block)
    grown = []
    for start in starts:
        codes = index.codes[start : start + block]
        # Plain scores will do: a list of ReLU scores takes only what is above 0, and others may be of another kind.
        new = blocks.checked_scores(scorer.scores(codes), codes, n_new, False, index.n_items + 1)
        grown += [_grown_list(index, row, scores) for row, scores in enumerate(new, start)]
    nothing = (0, 0, np.zeros(0, np.uint32), np.zeros(0, np.float32))
    floors, cuts, items, scores = zip(nothing, *grown, strict=True)
    return {
        "offsets": offsets_of([len(one) for one in items[1:]]),
        "items": np.concatenate(items),
        "scores": np.concatenate(scores),
        "floors": np.array(floors[1:], np.float32),
        "cuts": np.array(cuts[1:], np.float32),
    }


def _grown_list(index: Postings, row: int, new: np.ndarray) -> tuple:
    """One list and the new items that join it: floor, gap, items, stored scores.

    All in stored scores, for these are what is known of the old items: equal scores of old and new stay equal.
    """
    part = slice(index.offsets[row], index.offsets[row + 1])
    floor, gap, cap = index.floors[row], index.cuts[row], index.pruning.max_postings
    stored = np.concatenate([index.scores[part], new - floor])
    ids = np.arange(index.n_items + 1, index.n_items + 1 + len(new), dtype=np.uint32)
    items = np.concatenate([index.items[part], ids])
    n_old = len(stored) - len(new)
    if cap is not None:
        cap = max(cap, n_old)  # a list that is longer already is of another kind
    # It left nothing out until now: cut as in a build. One of ReLU scores then has every item, and the floor 0.
    whole = index.pruning.relu and floor == 0 and n_old == index.n_items - len(index.removed)
    if gap < 0 or whole:
        threshold = None if np.isneginf(gap) else float(gap)
        _, shift, gap, kept, stored = Pruning(whole, threshold, cap).compact(stored[None])
        return floor + shift[0], gap[0], items[kept - 1], stored
    kept = stored > gap
    kept[:n_old] = True  # rounding may have brought one down to the gap
    if cap is not None and (size := np.count_nonzero(kept)) > cap:
        gap = np.partition(stored[kept], size - 1 - cap)[size - 1 - cap]
        kept = stored > gap
    return floor, gap, items[kept], stored[kept]


def drop_items(index: Postings, gone: np.ndarray) -> dict:
    """The lists without the items `gone`."""
    keep = np.ones(index.n_items + 1, bool)
    keep[gone] = False
    lengths = np.zeros(len(index), np.int64)
    _count_kept(index.offsets, index.items, keep, lengths)
    offsets = offsets_of(lengths)
    items, scores = np.empty(offsets[-1], np.uint32), np.empty(offsets[-1], np.float32)
    _copy_kept(index.items, index.scores, keep, items, scores)
    return {"offsets": offsets, "items": items, "scores": scores}


@numba.njit(nogil=True, cache=True)
def _count_kept(offsets, items, keep, lengths):
    for row in range(lengths.size):
        for p in range(offsets[row], offsets[row + 1]):
            if keep[items[p]]:
                lengths[row] += 1


@numba.njit(nogil=True, cache=True)
def _copy_kept(items, scores, keep, to_items, to_scores):
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


def merge_lists(parts: tuple[Postings, ...]) -> dict:
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
    index: Postings, threshold: float | None, keep_share: float | None, max_bytes: int | None, format: str
) -> float | None:
    """The one threshold for all codes that these arguments of SparseInvertedIndex.prune come to."""
    most = len(index.items)
    if keep_share is not None:
        if not 0 < keep_share <= 1:
            raise ValueError(f"keep_share is a share of all pairs, above 0 and at most 1, not {keep_share}.")
        most = min(most, round(keep_share * len(index) * index.n_items))
    scores = np.repeat(index.floors, index.lengths())
    scores += index.scores
    if max_bytes is not None:
        most = min(most, _postings_within(max_bytes, index, scores, format))
    if most == len(index.items):
        return threshold
    at = len(scores) - 1 - most
    cut = float(np.partition(scores, at)[at])
    return cut if threshold is None else max(cut, threshold)


def _postings_within(max_bytes: int, index: Postings, scores: np.ndarray, format: str) -> int:
    """The most postings, the best of all lists by `scores`, that fit into so many bytes."""
    n_codes, sizes = len(index), (index.n_items, format, len(index.removed))
    if max_bytes < (least := bytes_of(np.ones(n_codes), *sizes)):
        raise ValueError(
            f"{max_bytes} bytes are too few for {n_codes} codes in format {format}: one posting each takes {least}."
        )
    rows = np.repeat(np.arange(n_codes, dtype=np.int32), index.lengths())
    ascending = np.sort(scores)

    def needed(most: int) -> int:
        kept = rows if most == len(rows) else rows[scores > ascending[len(rows) - 1 - most]]
        return bytes_of(np.bincount(kept, minlength=n_codes), *sizes)

    return bisect_right(range(len(rows) + 1), max_bytes, key=needed) - 1


def prune(index: Postings, threshold: float | None, max_postings: int | None) -> dict:
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
    _cut(index.offsets, index.items, index.scores, gaps, shifts, offsets, items, scores)
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
def _cut(offsets, items, scores, gaps, shifts, to, to_items, to_scores):
    for row in range(gaps.size):
        at = to[row]
        untouched = to[row + 1] - at == offsets[row + 1] - offsets[row]
        for p in range(offsets[row], offsets[row + 1]):
            if untouched or scores[p] > gaps[row]:
                to_items[at] = items[p]
                to_scores[at] = scores[p] - shifts[row]
                at += 1
