"""The best items of an index in the order of scores without codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from retrieval.recommender import IndexRecommender
from retrieval.scorer import CodeScorer

SHARES = 2**22  # of keys in items, held at once


class Reranked:
    """recommend() over an index whose best items are put in the order of scores without codes.

    Codes blur what an interaction says of the best items, and of few items it is soon asked itself: retrieval by
    approximate scores and exact ones for the best (Ding and Zhai, "Efficient Retrieval with Learned Similarities",
    2024, do so with a mixture of logits).

    Args:
        index: what finds the items.
        encode: queries -> tokens float32 (U, K, D), and their keys in `index`: codes and weights (U, C + H).
        scorer: scores tokens that have no codes.
        n_codes: C, keys that stand for the tokens; what the others add, which are items, is what the index holds.
        n_best: items of the index that are put in order; no more can be asked for.
        times: how often the index adds up a token, see `models.vq.Quantiser`; its other keys are weighed for that.
    """

    def __init__(
        self,
        index: IndexRecommender,
        encode: Callable,
        scorer: CodeScorer,
        n_codes: int,
        n_best: int,
        times: int = 1,
    ):
        self.index, self.encode, self.scorer, self.n_codes, self.n_best = index, encode, scorer, n_codes, n_best
        self.times = np.float32(times)

    @property
    def most(self) -> int:
        """The most items that can be asked for."""
        return min(self.n_best, self.index.most)

    def recommend(self, queries: object, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The best k items of each query, as `IndexRecommender.recommend`.

        Raises:
            ValueError: as there, and where k is above n_best: more of them would change the order of the first.
        """
        if k > self.n_best:
            raise ValueError(f"{k} items are asked for, and the best {self.n_best} are put in order; raise rerank.")
        (tokens, keys), seen = self.encode(queries), queries.histories if exclude_seen else None
        most = max(k, self.most) if k >= 1 else k  # the index refuses a wrong k
        items, _ = self.index.search(keys, most, seen)
        scores = self._scores(tokens, items)  # (U, most)
        codes, weights = (each[:, self.n_codes :] for each in keys)  # (U, H)
        size = max(1, SHARES // max(most * codes.shape[1], 1))  # of a block of queries
        for first in range(0, len(items) if codes.shape[1] else 0, size):
            block = slice(first, first + size)
            scores[block] += self.index.index.explain(codes[block], items[block], weights[block]).sum(2)
        scores = np.where(items > 0, scores, np.float32(-np.inf))
        best = np.lexsort((items, -scores))[:, :k]
        return np.take_along_axis(items, best, 1), np.take_along_axis(scores, best, 1)

    def explain(self, queries: object, items: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """What makes up these scores, as `IndexRecommender.explain`: a token's part stands with a code of its own."""
        tokens, _ = self.encode(queries)  # (U, K, D)
        codes, shares = self.index.explain(queries, items)  # (U, C + H), (U, k, C + H)
        shares[..., : self.n_codes] = 0
        for number in range(tokens.shape[1]):
            place = number * self.n_codes // tokens.shape[1]
            shares[..., place] += np.where(np.asarray(items) > 0, self._scores(tokens[:, [number]], items), 0)
        return codes, shares

    def _scores(self, tokens: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Of tokens without codes and items, or 0, which has any: (U, K, D) and (U, most) -> float32 (U, most)."""
        return self.times * self.scorer.pair_scores(tokens, np.maximum(items, 1))
