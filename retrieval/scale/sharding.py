"""One index in parts that each hold some of the items, searched as one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from retrieval.postings import Postings
from retrieval.queries import Histories


class ShardedIndex:
    """Shards that answer together exactly what the whole would answer (see SparseInvertedIndex.shard).

    They are searched one after the other, each with all threads.

    Args:
        shards: exact or compact indexes, or anything else that recommends by the same ids: a call to another machine,
            say.

    Raises:
        ValueError: there are none, or they count their items differently.
    """

    def __init__(self, shards: Iterable[Postings]):
        self.shards = list(shards)
        if not self.shards:
            raise ValueError("There must be at least one shard.")
        self.n_items = self.shards[0].n_items
        if any(shard.n_items != self.n_items for shard in self.shards):
            raise ValueError("The shards count their items differently; they are not of one index.")

    def recommend(
        self,
        codes: ArrayLike,
        k: int,
        seen: Histories | None = None,
        weights: ArrayLike | None = None,
        threads: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As SparseInvertedIndex.recommend."""
        found = [shard.recommend(codes, k, seen, weights, threads) for shard in self.shards]
        return merge_results(found, k)

    def explain(self, codes: ArrayLike, items: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
        """As SparseInvertedIndex.explain: every shard knows the floors, and one of them the item."""
        return np.max([shard.explain(codes, items, weights) for shard in self.shards], axis=0)


def merge_results(found: Sequence[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of several results of the same queries.

    Args:
        found: pairs of ids (U, n) and scores (U, n).
        k: how many items of each query.

    Returns:
        Ids and scores (U, k), best first and ties by ascending id.

    Raises:
        ValueError: they hold fewer than k columns in all.
    """
    ids = np.concatenate([ids for ids, _ in found], axis=1)
    scores = np.concatenate([scores for _, scores in found], axis=1)
    if ids.shape[1] < k:
        raise ValueError(f"The results hold {ids.shape[1]} slots in all, which is fewer than {k}.")
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
