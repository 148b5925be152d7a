"""Queries to recommendations through an index: encode, score missing codes, look up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retrieval.blocks import Scorer
from retrieval.build import build_pruned
from retrieval.index import SparseInvertedIndex
from retrieval.pruning import Pruning


class IndexRecommender:
    """recommend() over a SparseInvertedIndex.

    encode(queries) -> integer codes [U, K_u]. scorer scores codes that the index does not hold, cut
    as `pruning` says (as the index was cut, unless told); without one, such a code is a ValueError.
    Scored codes join `index`, so each is scored once; every join copies the index, which is meant
    for the few codes that a build did not foresee.

    Counts since the start: query_codes, the codes that were looked up; missing_codes, those among
    them that the index as built did not hold; scored_codes, the different codes that were scored on
    demand.
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
        self.query_codes = self.missing_codes = 0
        self._built = index
        self.encode = encode
        self._scorer = scorer
        self._pruning = pruning or index.pruning
        self._threads = threads

    @property
    def scored_codes(self) -> int:
        return len(self.index) - len(self._built)

    def recommend(self, queries, k: int, exclude_seen: bool = True):
        """Best k items of each query: ids int32 [U, k], scores float32 [U, k], as of the index.

        exclude_seen leaves out the items in queries.histories (rows with .offsets [U+1] and
        .values).
        """
        codes = np.asarray(self.encode(queries))
        if self._scorer is not None:
            missing = self.index.missing(codes)
            if len(missing):
                self.index = self.index.extend(
                    build_pruned(self._scorer, missing, self.index.n_items, self._pruning)
                )
        seen = queries.histories if exclude_seen else None
        found = self.index.recommend(codes, k, seen=seen, threads=self._threads)
        self.query_codes += codes.size
        self.missing_codes += int(codes.size - self._built.contains(codes).sum())
        return found
