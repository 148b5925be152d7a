"""Exact top-k over the posting lists of a sparse inverted index, on the CPU.

Per query: add the stored scores of its codes into a dense accumulator, zero the history, then walk
the same posting lists again, emptying the accumulator and collecting what is good enough; when the
collection is full it is cut back to its best k, and the worst of them is what is good enough from
then on. Walking twice is about three times as fast as keeping a list of touched items, and the
accumulator is clean again afterwards, so nothing of catalogue length is ever cleared or scanned per
query. Stored scores are positive, so zero means "no posting, masked, or already taken".
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

QUERIES_PER_TASK = 64  # a pool task must be long against its hand-over, and short against the batch

BLOCK_BITS = np.uint64(16)  # blocked ids count within 65,536 items

LAST_ID = 2**31 - 1  # ids count downwards from here in a key

OK, CODE_MISSING, ITEM_OUT_OF_RANGE = 0, 1, 2


def turned(bits):
    """Bits of float32 as int32 that ascend with the number; its own inverse."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


_turned = numba.njit(nogil=True, cache=True)(turned)


@numba.njit(nogil=True, cache=True)
def _key(score, item):
    """Score and item in one int64, in the one order of the project: the higher key is the higher
    score or, of equal scores, the lower id."""
    return (np.int64(_turned(np.float32(score).view(np.int32))) << 32) + (LAST_ID - item)


@numba.njit(nogil=True, cache=True)
def _score(key):
    return np.int32(_turned(np.int32(key >> 32))).view(np.float32)


@numba.njit(nogil=True, cache=True)
def _keep_best(keys, size, k):
    """Move the best k of the first `size` > k keys to the front, the worst of them last (Hoare's
    quickselect)."""
    low, high = 0, size - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
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
def _search(
    first,
    last,
    query_codes,
    seen_offsets,
    seen_values,
    codes,
    offsets,
    items,
    scores,
    floors,
    lows,
    steps,
    n_blocks,
    n_items,
    accumulator,
    out_ids,
    out_scores,
):
    """Answer queries first..last-1: (status, query, bad value). Leaves the accumulator all zero.

    Where lows is None, scores are floats and taken as they are (numba drops the other branch).
    """
    n_tokens = query_codes.shape[1]
    k = out_ids.shape[1]
    rows = np.empty(n_tokens, np.int64)
    keys = np.empty(max(2 * k, 256), np.int64)
    for query in range(first, last):
        # Rows in ascending order: the order of the tokens then changes no bit of the sums, and
        # repeats are neighbours.
        for j in range(n_tokens):
            row = _find(codes, query_codes[query, j])
            if row < 0:
                return CODE_MISSING, query, query_codes[query, j]
            at = j
            while at > 0 and rows[at - 1] > row:
                rows[at] = rows[at - 1]
                at -= 1
            rows[at] = row
        for p in range(seen_offsets[query], seen_offsets[query + 1]):
            if seen_values[p] < 0 or seen_values[p] > n_items:
                return ITEM_OUT_OF_RANGE, query, np.int64(seen_values[p])

        base = 0.0
        j = 0
        while j < n_tokens:
            row = rows[j]
            times = 1
            while j + times < n_tokens and rows[j + times] == row:
                times += 1
            weight = np.float32(times)
            base += times * np.float64(floors[row])
            for block in range(n_blocks):
                start = np.uint64(block) << BLOCK_BITS  # unsigned: no check for negative indices
                list_at = row * n_blocks + block
                for p in range(offsets[list_at], offsets[list_at + 1]):
                    if lows is None:  # noqa: SIM108 (numba drops dead branches of statements only)
                        score = scores[p]
                    else:
                        score = lows[row] + steps[row] * np.float32(scores[p])
                    accumulator[start + np.uint64(items[p])] += weight * score
            j += times
        base32 = np.float32(base)

        for p in range(seen_offsets[query], seen_offsets[query + 1]):
            accumulator[seen_values[p]] = np.float32(0.0)

        size = 0
        cut = np.float32(-np.inf)
        for j in range(n_tokens):
            for block in range(n_blocks):
                start = np.uint64(block) << BLOCK_BITS
                list_at = rows[j] * n_blocks + block
                for p in range(offsets[list_at], offsets[list_at + 1]):
                    item = start + np.uint64(items[p])
                    gathered = accumulator[item]
                    accumulator[item] = np.float32(0.0)
                    total = gathered + base32
                    # The only branch is one that a processor foretells well. Whether an item was
                    # met before is a coin toss, so it is no branch: its key is written over.
                    if total < cut:
                        continue
                    keys[size] = _key(total, np.int64(item))
                    size += gathered > np.float32(0.0)
                    if size == keys.size:
                        _keep_best(keys, size, k)
                        size = k
                        cut = _score(keys[k - 1])

        if size > k:
            _keep_best(keys, size, k)
            size = k
        keys[:size].sort()
        for at in range(size):
            key = keys[size - 1 - at]
            out_scores[query, at] = _score(key)
            out_ids[query, at] = LAST_ID - (key & 0xFFFFFFFF)
        for empty in range(size, k):
            out_scores[query, empty] = -np.inf
            out_ids[query, empty] = 0
    return OK, 0, np.int64(0)


class Searcher:
    """Answers queries from the arrays of one index; safe to call from several threads at once.

    Arrays as in `SparseInvertedIndex` or, with lows and steps, as in `CompactIndex`, which have
    checked them: the kernel trusts codes, offsets and items blindly. n_blocks: lists per code; list
    b holds ids less b * 2^16.
    """

    def __init__(self, codes, offsets, items, scores, floors, n_items: int, lows=None, steps=None, n_blocks=1):
        self._arrays = (codes, offsets, items, scores, floors, lows, steps, n_blocks)
        self._n_items = n_items
        self._accumulators: list[np.ndarray] = []  # spare ones, all zero; list.pop and append are atomic

    def top_k(self, query_codes, k: int, seen_offsets, seen_values, threads: int | None = None):
        """Best k items of every query.

        query_codes int64 [U, K_u]; seen_offsets int64 [U+1], seen_values int32: items to leave out
        (0 is skipped). Returns ids int32 [U, k], scores float32 [U, k]; empty slots hold 0 and
        -inf. Threads: all cores unless told. Raises ValueError for a code that is not in the index
        and for an item outside 0..n_items in the history.
        """
        n_queries = len(query_codes)
        ids = np.empty((n_queries, k), np.int32)
        scores = np.empty((n_queries, k), np.float32)
        arguments = (query_codes, seen_offsets, seen_values, ids, scores)
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

    def _run(self, first, last, query_codes, seen_offsets, seen_values, ids, scores):
        try:
            accumulator = self._accumulators.pop()
        except IndexError:
            accumulator = np.zeros(self._n_items + 1, np.float32)
        status, query, value = _search(
            first,
            last,
            query_codes,
            seen_offsets,
            seen_values,
            *self._arrays,
            self._n_items,
            accumulator,
            ids,
            scores,
        )
        self._accumulators.append(accumulator)
        if status == CODE_MISSING:
            raise ValueError(
                f"Query {query} holds code {value}, which is not in the index; score it first (missing, extend)."
            )
        if status == ITEM_OUT_OF_RANGE:
            raise ValueError(
                f"The history of query {query} holds item {value}; this index knows the items 1..{self._n_items}."
            )


def available_cores() -> int:
    """Cores this process may use (a container or taskset may grant fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
