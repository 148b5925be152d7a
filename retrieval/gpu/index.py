"""The index searched on an array library: the two walks of search.py, many queries at a time.

A query has a row of the accumulator, and its keys are added one after the other, in ascending order. One posting list
holds an item once, so no addition meets another: no atomics, and the sums are those of the CPU to the last bit. Then
the same cells are read again, key by key, each emptied once read, so an item comes out once and the accumulator is
clean for the next queries. The best k are picked among these postings and not among all items, which at a million items
would read a hundred times as much.
"""

from __future__ import annotations

import numpy as np

from retrieval.gpu.library import ArrayLibrary
from retrieval.index import SparseInvertedIndex
from retrieval.search import LAST_ID, Searcher, look_up_all, sortable

EMPTY = -(2**63)  # rank of no item
BYTES_PER_POSTING = 64  # of the intermediate arrays of a search


class ArrayIndex(SparseInvertedIndex):
    """A SparseInvertedIndex that an array library searches: the same answers, bit for bit.

    Everything else is inherited, and what makes a new index of it (extend, prune, remove_items ...) makes one on the
    same device.

    Args:
        library: where it is searched.
        arrays: as of SparseInvertedIndex.

    Raises:
        ValueError: the arrays are not such an index.
    """

    def __init__(self, *, library: ArrayLibrary, **arrays):
        super().__init__(**arrays)
        self.library = library
        self._searcher = ArraySearcher(
            library, self.codes, self.offsets, self.items, self.scores, self.floors, self.n_items
        )

    @classmethod
    def of(cls, index: SparseInvertedIndex, library: ArrayLibrary) -> ArrayIndex:
        """The same index, on the device of `library`.

        Raises:
            ValueError: `index` is compact.
        """
        if index.format != cls.format:
            raise ValueError(
                f"An array library searches float32 postings, and this index is {index.format}; "
                "take the index that it was compacted from."
            )
        kept = {name: getattr(index, name) for name in (*index.dtypes, "n_items", "pruning")}
        return cls(library=library, **kept)

    def _with(self, **changed) -> ArrayIndex:
        return super()._with(library=self.library, **changed)


class ArraySearcher(Searcher):
    """As Searcher, by an array library.

    Queries are answered in batches whose intermediate arrays fit into library.work_bytes (one query at least); rows of
    codes and weights are found on the host. Safe to call from several threads.

    Args:
        library: where the arrays are put.
        codes, offsets, items, scores, floors, n_items: as of Searcher.
    """

    def __init__(
        self,
        library: ArrayLibrary,
        codes: np.ndarray,
        offsets: np.ndarray,
        items: np.ndarray,
        scores: np.ndarray,
        floors: np.ndarray,
        n_items: int,
    ):
        super().__init__(codes, offsets, items, scores, floors, n_items)
        self._library = library
        # After the last posting comes one of item 0 with score 0: it fills up the shorter lists.
        self._items = library.put(np.append(items, np.uint32(0)).view(np.int32))
        self._scores = library.put(np.append(scores, np.float32(0)))

    def top_k(
        self,
        codes: np.ndarray,
        weights: np.ndarray,
        k: int,
        seen_offsets: np.ndarray,
        seen_values: np.ndarray,
        threads: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As Searcher.top_k; `threads` is for the CPU and has no meaning here."""
        index_codes, offsets, _, _, floors = self._arrays[:5]
        rows, row_weights, (unknown, _) = look_up_all(index_codes, codes, weights)  # (U, K)
        masked = seen_values[seen_offsets[0] : seen_offsets[-1]]
        if unknown >= 0 or np.any((masked < 0) | (masked > self._n_items)):
            return super().top_k(codes, weights, k, seen_offsets, seen_values, 1)  # raises the error
        if len(index_codes) == 0:  # every slot is empty
            return np.zeros((len(codes), k), np.int32), np.full((len(codes), k), -np.inf, np.float32)
        weights = row_weights
        starts = offsets[rows]
        lengths = np.where(weights > 0, offsets[rows + 1] - starts, 0)
        base = np.zeros(len(rows))
        for slot in range(rows.shape[1]):  # summed in the order of the CPU
            base += weights[:, slot].astype(np.float64) * floors[rows[:, slot]]

        n_queries, n_slots = rows.shape
        ids = np.zeros((n_queries, k), np.int32)
        scores = np.full((n_queries, k), -np.inf, np.float32)
        per_query = 4 * (self._n_items + 1) + BYTES_PER_POSTING * n_slots * int(lengths.max(initial=0))
        batch = min(max(1, self._library.work_bytes // per_query), n_queries)
        accumulator = self._library.zeros(batch * (self._n_items + 1))
        for first in range(0, n_queries, batch or 1):
            part = slice(first, first + batch)
            bounds = seen_offsets[first : first + batch + 1]
            starts_of_rows = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)) * (self._n_items + 1)
            seen = starts_of_rows + seen_values[bounds[0] : bounds[-1]]
            lists = (starts[part], lengths[part], weights[part], base[part].astype(np.float32))
            _decode(self._ranks(accumulator, *lists, seen, k), ids[part], scores[part])
        return ids, scores

    def _ranks(self, accumulator, starts, lengths, weights, base, seen, k: int) -> np.ndarray:
        """Ranks of the best items of some queries, descending: int64 (Q, at most k); see _decode.

        Args:
            accumulator: float32 (Q * (n_items + 1),), all zero before and after.
            starts, lengths: int64 (Q, K), where the posting lists are.
            weights: float32 (Q, K).
            base: float32 (Q,), the weighted floors.
            seen: cells of the accumulator to leave out.
            k: how many items.
        """
        library, xp = self._library, self._library.xp
        put = library.put
        steps = library.range(max(1, int(lengths.max())))  # (W,)
        lists = put(starts)[..., None] + steps  # (Q, K, W)
        lists = xp.where(steps < put(lengths)[..., None], lists, len(self._items) - 1)
        items = self._items[lists]
        cells = items + (library.range(len(starts)) * (self._n_items + 1))[:, None, None]
        found = self._scores[lists] * put(weights)[..., None]
        for slot in range(starts.shape[1]):
            accumulator[cells[:, slot]] += found[:, slot]
        accumulator[put(seen)] = 0
        for slot in range(starts.shape[1]):
            found[:, slot] = accumulator[cells[:, slot]]
            accumulator[cells[:, slot]] = 0

        # Score and id in one integer, as on the CPU; no two ranks of a query are equal, so any top-k gives the same.
        bits = sortable((found + put(base)[:, None, None]).view(xp.int32))
        ranks = xp.asarray(bits, dtype=xp.int64) * 2**32 + (LAST_ID - items)
        ranks = xp.where(found > 0, ranks, EMPTY).reshape(len(starts), -1)
        return library.get(library.best(ranks, min(k, ranks.shape[1])))


def _decode(ranks: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> None:
    """Ranks int64 (Q, <= k) to the first columns of ids int32 and scores float32 (Q, k)."""
    held = ranks > EMPTY
    bits = sortable((ranks >> 32).astype(np.int32))
    some = np.s_[:, : ranks.shape[1]]
    ids[some] = np.where(held, LAST_ID - (ranks & 0xFFFFFFFF), 0)
    scores[some] = np.where(held, bits.view(np.float32), np.float32(-np.inf))
