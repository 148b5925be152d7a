"""Two-tower search by faiss, exact (Flat) or by a graph (HNSW), with or without seen items.

faiss takes one k per call and no mask per query (a selector per call serves single queries only,
and was slower). What leaves seen items out is to fetch as many more as the history is long and to
drop what was seen; a batch is searched in groups of similar k, so that one long history does not
make all queries dear.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import numba
import numpy as np

from benchmarks.measuring import Asked, Engine
from retrieval.search import available_cores

M = 32
RECALLS = (0.95, 0.99)
LARGEST_EF = 16384


def import_faiss():
    """The module, or an exit that says how to get it."""
    try:
        import faiss
    except ImportError:
        sys.exit("This benchmark compares with faiss, which is missing: pip install faiss-cpu")
    return faiss


class FaissSearch:
    """Flat and HNSW over the same item vectors, float32 [n_items, D], by inner product.

    flat_seconds, hnsw_seconds: what the builds took, with all cores. Items are 1..n_items, in the
    order of the vectors.
    """

    def __init__(self, items: np.ndarray, ef_construction: int):
        self._faiss = faiss = import_faiss()
        self.n_items, width = items.shape
        faiss.omp_set_num_threads(available_cores())
        began = time.perf_counter()
        self.flat = faiss.IndexFlatIP(width)
        self.flat.add(items)
        self.flat_seconds = time.perf_counter() - began
        began = time.perf_counter()
        self.hnsw = faiss.IndexHNSWFlat(width, M, faiss.METRIC_INNER_PRODUCT)
        self.hnsw.hnsw.efConstruction = ef_construction
        self.hnsw.add(items)
        self.hnsw_seconds = time.perf_counter() - began

    def searcher(self, k: int, ef: int | None = None) -> Callable:
        """answer(asked, threads) of an `Engine`: by HNSW with efSearch ef, by Flat without one."""
        faiss = self._faiss
        index = self.flat if ef is None else self.hnsw
        parameters = None if ef is None else faiss.SearchParametersHNSW(efSearch=ef)

        def answer(asked: Asked, threads: int):
            faiss.omp_set_num_threads(threads)  # holds for the calling thread alone
            if asked.seen is None:
                scores, rows = index.search(asked.points, k, params=parameters)
                return (rows + 1).astype(np.int32), scores
            ids = np.zeros((len(asked), k), np.int32)
            best = np.full((len(asked), k), -np.inf, np.float32)
            for queries, fetch in _groups(np.diff(asked.seen.offsets) + k):
                fetched = min(fetch, self.n_items)
                scores, rows = index.search(asked.points[queries], fetched, params=parameters)
                _drop_seen(
                    queries,
                    rows,
                    scores,
                    asked.seen.offsets,
                    asked.seen.values,
                    np.zeros(self.n_items + 1, np.bool_),
                    ids,
                    best,
                )
            return ids, best

        return answer

    def bytes(self, ef: int | None = None) -> int:
        """Of the index that `searcher` would ask."""
        return int(self._faiss.serialize_index(self.flat if ef is None else self.hnsw).nbytes)

    def engines(self, asked: Asked, tuning: Asked, k: int) -> list[Engine]:
        """Flat, and HNSW at the smallest efSearch that finds `RECALLS` of Flat's best k on `tuning`.

        One engine stands for both recalls where the same efSearch reaches them.
        """
        cores = available_cores()
        print(f"HNSW built in {self.hnsw_seconds:.1f} s by {cores} threads", flush=True)
        exact = self.searcher(k)
        wanted, tuned_for = exact(asked, cores)[0], exact(tuning, cores)[0]

        def reached(ef: int) -> float:
            return recall(self.searcher(k, ef)(tuning, cores)[0], tuned_for)

        engines = [Engine("faiss Flat", exact, asked, 1.0, self.bytes(), self.flat_seconds)]
        chosen: dict[int, list[float]] = {}
        for target in RECALLS:
            ef, found = smallest_ef(reached, k, target)
            if ef is None:
                print(f"HNSW does not reach recall {target}: {found:.3f} at efSearch {LARGEST_EF}")
            else:
                chosen.setdefault(ef, []).append(target)
        for ef, targets in chosen.items():
            answer = self.searcher(k, ef)
            name = f"HNSW {', '.join(map(str, targets))} (ef {ef})"
            found = recall(answer(asked, cores)[0], wanted)
            engines.append(Engine(name, answer, asked, found, self.bytes(ef), self.hnsw_seconds))
        return engines


def smallest_ef(reached: Callable[[int], float], k: int, target: float):
    """The smallest efSearch that reaches the recall, to an eighth, or None; and what it reaches."""
    high = k
    while (found := reached(high)) < target:
        if high >= LARGEST_EF:
            return None, found
        high = min(2 * high, LARGEST_EF)
    low = high // 2 if high > k else high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        if (there := reached(middle)) >= target:
            high, found = middle, there
        else:
            low = middle
    return high, found


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """The mean share of the wanted ids of each query that were found; both [U, k]."""
    return float(np.mean([np.isin(w, f).mean() for f, w in zip(found, wanted, strict=True)]))


def _groups(needed: np.ndarray):
    """(queries, results to fetch) of queries whose needs are within a factor of two."""
    if len(needed) == 1:
        yield np.zeros(1, np.int64), int(needed[0])
        return
    magnitude = np.ceil(np.log2(needed)).astype(np.int64)
    for one in np.unique(magnitude):
        queries = np.flatnonzero(magnitude == one)
        yield queries, int(needed[queries].max())


@numba.njit(nogil=True, cache=True)
def _drop_seen(queries, rows, scores, seen_offsets, seen_values, marked, ids, best):
    """The first unseen results of each of the queries, to its row of ids and best."""
    for at in range(queries.size):
        query = queries[at]
        for p in range(seen_offsets[query], seen_offsets[query + 1]):
            marked[seen_values[p]] = True
        kept = 0
        for place in range(rows.shape[1]):
            if kept == ids.shape[1] or rows[at, place] < 0:  # faiss ends short results with -1
                break
            if not marked[rows[at, place] + 1]:
                ids[query, kept] = rows[at, place] + 1
                best[query, kept] = scores[at, place]
                kept += 1
        for p in range(seen_offsets[query], seen_offsets[query + 1]):
            marked[seen_values[p]] = False
