"""Exact top-k over the posting lists of a sparse inverted index, on the CPU.

A query is a set of weighted keys. Per query: add weight times stored score of each of its lists into a dense
accumulator, zero the history, see in the sums of some items what is good enough to begin with, then walk the same lists
again, emptying the accumulator and collecting what is good enough; when the collection is full it is cut back to its
best k, and the worst of them is what is good enough from then on. Walking twice is about three times as fast as keeping
a list of touched items, and the accumulator is clean again afterwards, so nothing of catalogue length is ever cleared
or scanned per query. Stored scores are positive, so zero means "no posting, masked, or already taken".

Lists that hold much of the catalogue may be dense rows, a score per item: those are added as fast as memory is read,
and a query with one of them collects from the whole accumulator, once.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

EMPTY_SLOT = -1  # the code of a query's slot that holds no key
QUERIES_PER_TASK = 64  # a pool task must be long against its hand-over, and short against the batch
BLOCK_BITS = np.uint64(16)  # blocked ids count within 65,536 items
LAST_ID = 2**31 - 1  # ids count downwards from here in a rank
CHUNK = 16  # sums that are looked at together
GROUP = 128  # sums at most of which only the highest is looked at to begin with
OK, CODE_MISSING, ITEM_OUT_OF_RANGE = 0, 1, 2


def sortable(bits):
    """Bits of a float32 as an int32 that ascends with the number.

    Args:
        bits: int32, of any shape, of NumPy or another array library.

    Returns:
        int32; this function takes it back to the bits.
    """
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


_sortable = numba.njit(nogil=True, cache=True)(sortable)


@numba.njit(nogil=True, cache=True)
def _rank(score, item):
    """Score and item in one int64: the higher rank is the higher score or, of equal scores, the lower id."""
    return (np.int64(_sortable(np.float32(score).view(np.int32))) << 32) + (LAST_ID - item)


@numba.njit(nogil=True, cache=True)
def _score(rank):
    return np.int32(_sortable(np.int32(rank >> 32))).view(np.float32)


@numba.njit(nogil=True, cache=True)
def _keep_best(ranks, size, k):
    """Move the best k of the first `size` > k ranks to the front, the worst of them last (Hoare's quickselect)."""
    low, high = 0, size - 1
    while low < high:
        pivot = ranks[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while ranks[i] > pivot:
                i += 1
            while ranks[j] < pivot:
                j -= 1
            if i <= j:
                ranks[i], ranks[j] = ranks[j], ranks[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@numba.njit(nogil=True, cache=True)
def _find(codes, code):
    """Row of `code` in the sorted `codes`, or -1."""
    low, high = 0, codes.size
    while low < high:
        middle = (low + high) >> 1
        if codes[middle] < code:
            low = middle + 1
        else:
            high = middle
    return low if low < codes.size and codes[low] == code else -1


@numba.njit(nogil=True, cache=True)
def look_up(codes, query_codes, query_weights, rows, weights):
    """The keys of one query as rows of the index, ascending and each once, with the sum of their weights.

    The order of a query's keys changes no bit: rows ascend, and the weights of one row are added from the smallest up.

    Args:
        codes: int64 (C,), those of the index, ascending.
        query_codes: int64 (K,); EMPTY_SLOT is passed over.
        query_weights: float32 (K,); a code of weight 0 is passed over.
        rows: int64 (K,), written.
        weights: float64 (K,), written.

    Returns:
        How many rows were written; -1 - j where code j of the query is not in the index.
    """
    size = 0
    for j in range(query_codes.size):
        weight = np.float64(query_weights[j])
        if query_codes[j] == EMPTY_SLOT or weight == 0:
            continue
        row = _find(codes, query_codes[j])
        if row < 0:
            return -1 - j
        at = size
        while at > 0 and (rows[at - 1] > row or (rows[at - 1] == row and weights[at - 1] > weight)):
            rows[at], weights[at] = rows[at - 1], weights[at - 1]
            at -= 1
        rows[at], weights[at] = row, weight
        size += 1
    distinct = 0
    for j in range(size):
        if distinct > 0 and rows[distinct - 1] == rows[j]:
            weights[distinct - 1] += weights[j]
        else:
            rows[distinct], weights[distinct] = rows[j], weights[j]
            distinct += 1
    return distinct


@numba.njit(nogil=True, cache=True)
def look_up_all(codes, query_codes, query_weights):
    """`look_up` of every query.

    Returns:
        Rows int64 and weights float32 (U, K), both 0 in slots that are not used, and the first query with a code that
        is not in the index and the place of that code, or (-1, 0).
    """
    n_queries, n_slots = query_codes.shape
    rows = np.zeros((n_queries, n_slots), np.int64)
    weights = np.zeros((n_queries, n_slots), np.float64)
    for query in range(n_queries):
        n_rows = look_up(codes, query_codes[query], query_weights[query], rows[query], weights[query])
        if n_rows < 0:
            return rows, weights.astype(np.float32), (query, -1 - n_rows)
        rows[query, n_rows:] = 0
        weights[query, n_rows:] = 0
    return rows, weights.astype(np.float32), (-1, 0)


@numba.njit(nogil=True, cache=True)
def _add_row(row, weight, low, step, accumulator):
    """Add weight times the scores of a dense row (n_items,) to the accumulator (n_items + 1,).

    A product of the level and not a branch on it: the loop runs on vectors.
    """
    sums = accumulator[1:]
    for at in range(row.size):
        level = np.float32(row[at])
        held = np.float32(row[at] > 0)
        sums[at] += held * (weight * (low + step * (level - np.float32(1))))


@numba.njit(nogil=True, cache=True)
def _reached(sums, base, k, highest):
    """A score that k items reach at least, or `base`, which all do.

    In a pass that runs on vectors: of the first items, GROUP for each of G groups, the highest sum of each group and
    the kth largest of these. G is the length of `highest`, which is written over.
    """
    n_groups = highest.size
    if n_groups <= k:
        return base  # no sum is below 0
    highest[:] = np.float32(0.0)
    for first in range(0, min(sums.size // n_groups, GROUP) * n_groups, n_groups):
        for at in range(n_groups):
            found = sums[np.uint64(first + at)]  # unsigned: no check for negative indices
            highest[np.uint64(at)] = found if found > highest[np.uint64(at)] else highest[np.uint64(at)]
    return base + np.partition(highest, n_groups - k)[n_groups - k]


@numba.njit(nogil=True, cache=True)
def _collect_all(sums, base, cut, k, ranks):
    """Take the best k of all items out of their sums (n_items,), which are zeros then; how many ranks were written.

    A pass that runs on vectors finds the few chunks where a sum reaches `cut`.
    """
    size = 0
    for first in range(0, sums.size, CHUNK):
        part = sums[first : first + CHUNK]
        reached = 0
        for at in range(part.size):
            reached += part[at] + base >= cut
        if reached == 0:
            continue
        for at in range(part.size):
            total = part[at] + base
            if total >= cut and part[at] > np.float32(0.0):
                ranks[size] = _rank(total, first + at + 1)
                size += 1
                if size == ranks.size:  # equal scores, or nothing but zeros to go by
                    _keep_best(ranks, size, k)
                    size = k
                    cut = _score(ranks[k - 1])
    sums[:] = np.float32(0.0)
    return size


@numba.njit(nogil=True, cache=True)
def _search(
    first,
    last,
    query_codes,
    query_weights,
    seen_offsets,
    seen_values,
    codes,
    offsets,
    items,
    scores,
    floors,
    lows,
    steps,
    rows_at,
    table,
    n_blocks,
    n_items,
    accumulator,
    out_ids,
    out_scores,
):
    """Answer queries first..last-1: (status, query, bad value). Leaves the accumulator all zero.

    Where lows is None, scores are floats and taken as they are, and no list is a dense row (numba drops the other
    branches).
    """
    k = out_ids.shape[1]
    rows = np.empty(query_codes.shape[1], np.int64)
    weights = np.empty(query_codes.shape[1], np.float64)
    ranks = np.empty(max(2 * k, 256), np.int64)
    highest = np.empty(min(max(256, 4 * k), n_items), np.float32)
    for query in range(first, last):
        n_rows = look_up(codes, query_codes[query], query_weights[query], rows, weights)
        if n_rows < 0:
            return CODE_MISSING, query, query_codes[query, -1 - n_rows]
        for p in range(seen_offsets[query], seen_offsets[query + 1]):
            if seen_values[p] < 0 or seen_values[p] > n_items:
                return ITEM_OUT_OF_RANGE, query, np.int64(seen_values[p])

        base = 0.0
        any_row = False
        for j in range(n_rows):
            row = rows[j]
            weight = np.float32(weights[j])
            base += np.float64(weight) * np.float64(floors[row])
            low = step = np.float32(0.0)
            if lows is not None:
                low, step = lows[row], steps[row]
                if rows_at[row] >= 0:
                    any_row = True
                    start = rows_at[row] * n_items
                    _add_row(table[start : start + n_items], weight, low, step, accumulator)
                    continue
            for block in range(n_blocks):
                start = np.uint64(block) << BLOCK_BITS  # unsigned: no check for negative indices
                list_at = row * n_blocks + block
                for p in range(np.uint64(offsets[list_at]), np.uint64(offsets[list_at + 1])):
                    if lows is None:  # noqa: SIM108 (numba drops dead branches of statements only)
                        score = scores[p]
                    else:
                        score = low + step * np.float32(scores[p])
                    accumulator[start + np.uint64(items[p])] += weight * score
        base32 = np.float32(base)

        for p in range(seen_offsets[query], seen_offsets[query + 1]):
            accumulator[seen_values[p]] = np.float32(0.0)

        size = 0
        cut = _reached(accumulator[1:], base32, k, highest)
        if any_row:
            size = _collect_all(accumulator[1:], base32, cut, k, ranks)
            n_rows = 0  # whose lists are walked below
        for j in range(n_rows):
            for block in range(n_blocks):
                start = np.uint64(block) << BLOCK_BITS
                list_at = rows[j] * n_blocks + block
                for p in range(np.uint64(offsets[list_at]), np.uint64(offsets[list_at + 1])):
                    item = start + np.uint64(items[p])
                    gathered = accumulator[item]
                    accumulator[item] = np.float32(0.0)
                    total = gathered + base32
                    # The only branch is one that a processor foretells well. Whether an item was met before is a coin
                    # toss, so it is no branch: its rank is written over.
                    if total < cut:
                        continue
                    ranks[size] = _rank(total, np.int64(item))
                    size += gathered > np.float32(0.0)
                    if size == ranks.size:
                        _keep_best(ranks, size, k)
                        size = k
                        cut = _score(ranks[k - 1])

        if size > k:
            _keep_best(ranks, size, k)
            size = k
        ranks[:size].sort()
        for at in range(size):
            rank = ranks[size - 1 - at]
            out_scores[query, at] = _score(rank)
            out_ids[query, at] = LAST_ID - (rank & 0xFFFFFFFF)
        for empty in range(size, k):
            out_scores[query, empty] = -np.inf
            out_ids[query, empty] = 0
    return OK, 0, np.int64(0)


@numba.njit(nogil=True, cache=True)
def _shares(
    query_codes,
    query_weights,
    query_items,
    codes,
    offsets,
    items,
    scores,
    floors,
    lows,
    steps,
    rows_at,
    table,
    n_blocks,
    n_items,
    shares,
):
    """Write what each key gave each item, shares (U, n, K) of zeros; the first code that is missing, or EMPTY_SLOT."""
    for query in range(query_codes.shape[0]):
        for slot in range(query_codes.shape[1]):
            weight = np.float64(query_weights[query, slot])
            if query_codes[query, slot] == EMPTY_SLOT or weight == 0.0:
                continue
            row = _find(codes, query_codes[query, slot])
            if row < 0:
                return query_codes[query, slot]
            for at in range(query_items.shape[1]):
                item = query_items[query, at]
                if item == 0:
                    continue
                stored = np.float32(0.0)
                if lows is not None and rows_at[row] >= 0:
                    level = table[rows_at[row] * n_items + item - 1]
                    if level > 0:
                        stored = lows[row] + steps[row] * (np.float32(level) - np.float32(1.0))
                else:
                    block = item >> np.int64(BLOCK_BITS) if n_blocks > 1 else np.int64(0)
                    first, last = offsets[row * n_blocks + block], offsets[row * n_blocks + block + 1]
                    within = item - (block << np.int64(BLOCK_BITS))
                    p = first + np.searchsorted(items[first:last], within)
                    if p < last and np.int64(items[p]) == within:
                        if lows is None:  # noqa: SIM108 (numba drops dead branches of statements only)
                            stored = scores[p]
                        else:
                            stored = lows[row] + steps[row] * np.float32(scores[p])
                shares[query, at, slot] = weight * (np.float64(floors[row]) + np.float64(stored))
    return EMPTY_SLOT


class Searcher:
    """Answers queries from the arrays of one index; safe to call from several threads at once.

    Args:
        codes, offsets, items, scores, floors: as in `SparseInvertedIndex`, which has checked them: the kernel trusts
            codes, offsets and items blindly.
        n_items: ids are 1..n_items.
        lows, steps, dense, table: as in `CompactIndex`; None for scores that are floats.
        n_blocks: lists per code; list b holds ids less b * 2^16.
    """

    def __init__(
        self,
        codes: np.ndarray,
        offsets: np.ndarray,
        items: np.ndarray,
        scores: np.ndarray,
        floors: np.ndarray,
        n_items: int,
        lows: np.ndarray | None = None,
        steps: np.ndarray | None = None,
        dense: np.ndarray | None = None,
        table: np.ndarray | None = None,
        n_blocks: int = 1,
    ):
        rows_at = None if dense is None else rows_of(dense)
        self._arrays = (codes, offsets, items, scores, floors, lows, steps, rows_at, table, n_blocks)
        self._n_items = n_items
        self._accumulators: list[np.ndarray] = []  # spare ones, all zero; list.pop and append are atomic

    def top_k(
        self,
        codes: np.ndarray,
        weights: np.ndarray,
        k: int,
        seen_offsets: np.ndarray,
        seen_values: np.ndarray,
        threads: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k items of every query.

        Args:
            codes: int64 (U, K); -1 is an empty slot.
            weights: float32 (U, K) >= 0; 0 is an empty slot.
            k: how many items.
            seen_offsets: int64 (U + 1,).
            seen_values: int32, items to leave out; 0 is passed over.
            threads: all cores unless told.

        Returns:
            Item ids int32 (U, k) and scores float32 (U, k), best first; empty slots hold 0 and -inf.

        Raises:
            ValueError: a code is not in the index, or a history holds an item outside 0..n_items.
        """
        n_queries = len(codes)
        ids = np.empty((n_queries, k), np.int32)
        scores = np.empty((n_queries, k), np.float32)
        arguments = (codes, weights, seen_offsets, seen_values, ids, scores)
        n_tasks = -(-n_queries // QUERIES_PER_TASK)
        threads = min(threads or available_cores(), n_tasks)
        if threads <= 1:
            self._run(0, n_queries, *arguments)
            return ids, scores
        cuts = np.linspace(0, n_queries, min(n_tasks, 8 * threads) + 1).astype(np.int64)
        with ThreadPoolExecutor(threads) as pool:
            tasks = [pool.submit(self._run, a, b, *arguments) for a, b in zip(cuts, cuts[1:], strict=False)]
            for task in tasks:
                task.result()
        return ids, scores

    def shares(self, codes: np.ndarray, weights: np.ndarray, items: np.ndarray) -> np.ndarray:
        """How much each key of a query gave each item, as `Postings.explain`.

        Args:
            codes, weights: as of `top_k`.
            items: int64 (U, n), 0 or within the catalogue.

        Returns:
            float64 (U, n, K).

        Raises:
            ValueError: a code is not in the index.
        """
        shares = np.zeros((*items.shape, codes.shape[1]))
        missing = _shares(codes, weights, np.ascontiguousarray(items), *self._arrays, self._n_items, shares)
        if missing != EMPTY_SLOT:
            raise ValueError(f"Code {missing} is not in the index.")
        return shares

    def _run(self, first, last, codes, weights, seen_offsets, seen_values, ids, scores) -> None:
        try:
            accumulator = self._accumulators.pop()
        except IndexError:
            accumulator = np.zeros(self._n_items + 1, np.float32)
        queries = (first, last, codes, weights, seen_offsets, seen_values)
        status, query, value = _search(*queries, *self._arrays, self._n_items, accumulator, ids, scores)
        self._accumulators.append(accumulator)
        if status == CODE_MISSING:
            raise ValueError(
                f"Query {query} holds code {value}, which is not in the index; score it first (missing, extend)."
            )
        if status == ITEM_OUT_OF_RANGE:
            raise ValueError(
                f"The history of query {query} holds item {value}; this index knows the items 1..{self._n_items}."
            )


def rows_of(dense: np.ndarray) -> np.ndarray:
    """Which row of the table is that of a code, -1 where its list is none: dense uint8 (C,) -> int64 (C,)."""
    return np.where(dense > 0, np.cumsum(dense, dtype=np.int64) - 1, -1)


def available_cores() -> int:
    """Cores this process may use (a container or taskset may grant fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
