"""Queries to recommendations through an index: encode, score missing codes, look up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retrieval.blocks import Scorer
from retrieval.build import build_pruned
from retrieval.index import SparseInvertedIndex
from retrieval.pruning import Pruning


class IndexRecommender:
    """recommend() over an index of any format.

    encode(queries) -> integer codes [U, K_u]. scorer scores codes that the index does not hold, cut
    as `pruning` says (as the index was cut, unless told); without one, such a code is a ValueError.
    Scored codes are kept in `extra`, an index of their own, so each is scored once. Queries with
    such codes are answered from a copy of the lists that they need, and not of the whole index.

    Counts since the start: query_codes, the codes that were looked up; missing_codes, those among
    them that the index did not hold; scored_codes, the different codes that were scored on demand.
    """

    def __init__(
        self,
        index: SparseInvertedIndex,
        encode: Callable,
        scorer: Scorer | None = None,
        pruning: Pruning | None = None,
        threads: int | None = None,
    ):
        self.index = index
        self.extra: SparseInvertedIndex | None = None
        self.query_codes = self.missing_codes = 0
        self.encode = encode
        self._scorer = scorer
        self._pruning = pruning or index.pruning
        self._threads = threads

    @property
    def scored_codes(self) -> int:
        return 0 if self.extra is None else len(self.extra)

    def recommend(self, queries, k: int, exclude_seen: bool = True):
        """Best k items of each query: ids int32 [U, k], scores float32 [U, k], as of the index.

        exclude_seen leaves out the items in queries.histories (rows with .offsets [U+1] and
        .values).
        """
        codes, index = np.asarray(self.encode(queries)), self.index
        if self._scorer is not None and len(missing := index.missing(codes)):
            self._score(missing)
            index = index.only(codes).extend(self.extra.only(missing))
        seen = queries.histories if exclude_seen else None
        found = index.recommend(codes, k, seen=seen, threads=self._threads)
        self.query_codes += codes.size
        self.missing_codes += int(codes.size - self.index.contains(codes).sum())
        return found

    def _score(self, codes: np.ndarray) -> None:
        """Bring codes to `extra` that are not there yet."""
        new = codes if self.extra is None else self.extra.missing(codes)
        if len(new):
            scored = build_pruned(self._scorer, new, self.index.n_items, self._pruning)
            self.extra = scored if self.extra is None else self.extra.extend(scored)
