"""Exact top-k of score rows, in the one order of the project: falling score, then rising id."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from retrieval.queries import histories
from retrieval.search import LAST_ID, _keep_best, _rank, _score, available_cores

QUERIES_PER_TASK = 16  # a query walks the whole catalogue: a few are long against their hand-over

OK, NOT_A_NUMBER, ITEM_OUT_OF_RANGE = 0, 1, 2


def top_k(
    scores: np.ndarray, k: int, seen=None, *, rows: np.ndarray | None = None, above: float = -np.inf, threads=None
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of every query.

    Args:
        scores: float32 (R, n_items), left as it is; column j is item j + 1.
        k: 1 .. n_items.
        seen: items to leave out, U rows with .offsets and .values (0 is skipped); None for none.
        rows: int64 (U, K), the rows of `scores` whose sum, taken from left to right, is the score of a query; None:
            row u is query u.
        above: only items that score more than this are taken.
        threads: all cores unless told.

    Returns:
        ids int32 (U, k) and scores float32 (U, k), by falling score and of equal scores by rising id; where fewer items
        score, id 0 and -inf.

    Raises:
        ValueError: shapes that do not fit, a score that is not a number, a seen item outside the catalogue.
    """
    scores = np.ascontiguousarray(scores, np.float32)
    if scores.ndim != 2 or not 1 <= k <= scores.shape[1]:
        raise ValueError(f"A ranking needs scores (rows, items) and k from 1 to the items, not {scores.shape} and {k}.")
    rows = np.arange(len(scores))[:, None] if rows is None else np.ascontiguousarray(rows, np.int64)  # (U, K)
    if rows.ndim != 2 or rows.shape[1] < 1 or (rows.size and not 0 <= rows.min() <= rows.max() < len(scores)):
        raise ValueError(f"Rows of a ranking must be (queries, terms) within the {len(scores)} rows of scores.")
    n_queries = len(rows)
    offsets, values = histories(seen, n_queries)
    ids = np.empty((n_queries, k), np.int32)
    best = np.empty((n_queries, k), np.float32)

    def rank(first: int, last: int) -> None:
        status, query, value = _top_k(first, last, scores, rows, offsets, values, np.float32(above), ids, best)
        if status == NOT_A_NUMBER:
            raise ValueError(f"Query {query} scores item {value} with NaN, which has no place in a ranking.")
        if status == ITEM_OUT_OF_RANGE:
            raise ValueError(f"Query {query} has seen item {value}, but the items are 1..{scores.shape[1]}.")

    n_tasks = -(-n_queries // QUERIES_PER_TASK)
    threads = min(threads or available_cores(), n_tasks)
    if threads <= 1:
        rank(0, n_queries)
        return ids, best
    cuts = np.linspace(0, n_queries, min(n_tasks, 8 * threads) + 1).astype(np.int64)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(rank, cuts[:-1], cuts[1:]))
    return ids, best


@numba.njit(nogil=True, cache=True)
def _top_k(first, last, scores, rows, seen_offsets, seen_values, above, out_ids, out_scores):
    """Answer queries first..last-1: (status, query, bad value)."""
    n_items, k = scores.shape[1], out_ids.shape[1]
    summed = np.empty(n_items, np.float32)
    left_out = np.zeros(n_items + 1, np.bool_)
    keys = np.empty(max(2 * k, 256), np.int64)
    for query in range(first, last):
        total = scores[rows[query, 0]]
        if rows.shape[1] > 1:
            summed[:] = total
            for term in range(1, rows.shape[1]):
                row = scores[rows[query, term]]
                for item in range(n_items):
                    summed[item] += row[item]
            total = summed
        seen = seen_values[seen_offsets[query] : seen_offsets[query + 1]]
        for item in seen:
            if item < 0 or item > n_items:
                return ITEM_OUT_OF_RANGE, query, np.int64(item)
            left_out[item] = True

        size, cut = 0, above
        for item in range(1, n_items + 1):
            score = total[item - 1] + np.float32(0)  # -0 and 0 are a tie
            # Ids rise, so an equal score comes too late. A processor foretells this branch well; NaN takes the other.
            if score <= cut or left_out[item]:
                continue
            if np.isnan(score):
                return NOT_A_NUMBER, query, np.int64(item)
            keys[size] = _rank(score, np.int64(item))
            size += 1
            if size == keys.size:
                _keep_best(keys, size, k)
                size, cut = k, _score(keys[k - 1])
        for item in seen:
            left_out[item] = False
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
