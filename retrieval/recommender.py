"""Queries to recommendations through an index: encode, score missing codes, search."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from retrieval.blocks import Scorer
from retrieval.build import build_pruned
from retrieval.index import SparseInvertedIndex
from retrieval.pruning import Pruning
from retrieval.queries import query_keys
from retrieval.search import EMPTY_SLOT


class IndexRecommender:
    """recommend() over an index of any format.

    Codes that the index lacks are scored once and kept in `extra`, an index of their own. Queries of a call with such
    codes are answered from a copy of the lists that they need together, and not of the whole index.

    Args:
        index: a SparseInvertedIndex or CompactIndex, or what recommends alike if it never lacks a code.
        encode: queries -> codes (U, K), or (codes, weights (U, K)), as of index.recommend.
        scorer: scores the codes that the index lacks; without one, such a code is a ValueError.
        pruning: how their lists are cut; as the index was cut, unless told.
        threads: of a search; all cores unless told.

    Attributes:
        scored_codes: the different codes that were scored on demand.
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
        self.encode = encode
        self._scorer = scorer
        self._pruning = pruning or (index.pruning if scorer is not None else None)
        self._threads = threads

    @property
    def most(self) -> int:
        """The most items that can be asked for."""
        return self.index.n_items

    @property
    def scored_codes(self) -> int:
        return 0 if self.extra is None else len(self.extra)

    def recommend(self, queries: object, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The best k items of each query.

        Args:
            queries: what encode takes.
            k: how many items, 1..n_items.
            exclude_seen: leave out the items in queries.histories (rows with offsets (U + 1,) and values).

        Returns:
            Item ids int32 (U, k) and scores float32 (U, k), as of index.recommend.

        Raises:
            ValueError: as index.recommend.
        """
        return self.search(self.encode(queries), k, queries.histories if exclude_seen else None)

    def search(self, encoded, k: int, seen=None) -> tuple[np.ndarray, np.ndarray]:
        """`recommend` of queries that are encoded already; seen: histories to leave out."""
        index, codes, weights = self._look_up(encoded)
        return index.recommend(codes, k, seen, weights, self._threads)

    def explain(self, queries: object, items: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Why these items: the keys of each query, and how much each of them gave.

        Args:
            queries: what encode takes.
            items: ids (U, n), such as recommend returns.

        Returns:
            Codes int64 (U, K), -1 in empty slots, and shares float64 (U, n, K) whose sum over K is the score.

        Raises:
            ValueError: as index.explain.
        """
        index, codes, weights = self._look_up(self.encode(queries))
        return codes, index.explain(codes, items, weights)

    def _look_up(self, encoded):
        """The keys of queries, and an index that holds them."""
        codes, weights = query_keys(*encoded) if isinstance(encoded, tuple) else query_keys(encoded)
        codes, index = np.where(weights > 0, codes, EMPTY_SLOT), self.index
        if self._scorer is not None and len(missing := index.missing(codes)):
            extra = self.extra  # another thread may put others there meanwhile
            new = missing if extra is None else extra.missing(missing)
            if len(new):
                scored = build_pruned(self._scorer, new, index.n_items, self._pruning)
                self.extra = extra = scored if extra is None else extra.extend(scored)
            index = index.only(codes).extend(extra.only(missing))
        return index, codes, weights
