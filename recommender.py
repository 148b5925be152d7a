"""The one interface of everything that recommends, and the short way to it for whatever scores every item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from data.queries import Queries
from retrieval.ranking import top_k

SCORES_PER_BLOCK = 2**25  # numbers in a block of scores, 128 MiB in float32: what exhaustive ranking holds at a time


class Recommender(Protocol):
    """A trained model, the inverted index, a served run, a baseline: whatever answers a query with a ranking."""

    def recommend(self, queries: Queries, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query. The answer to a query does not depend on the others in the call.

        Args:
            queries: U users; the targets are not looked at.
            k: 1 .. n_items.
            exclude_seen: leave out the items of the history.

        Returns:
            item ids int32 (U, k) and scores float32 (U, k), by falling score and of equal scores by rising id; where
            fewer items have a score, id 0 and -inf.

        Raises:
            ValueError: k is outside 1 .. n_items.
        """
        ...


def recommend_by_scores(
    score: Callable[[Queries], np.ndarray], queries: Queries, k: int, exclude_seen: bool, n_items: int
) -> tuple[np.ndarray, np.ndarray]:
    """`Recommender.recommend` of whatever scores every item, block of users by block.

    Args:
        score: queries (u,) -> float32 (u, n_items), column j is item j + 1; -inf: the item has no score.
        queries, k, exclude_seen: as in `Recommender.recommend`.
        n_items: size of the catalogue; a block is SCORES_PER_BLOCK scores.

    Returns:
        item ids int32 (U, k) and scores float32 (U, k).

    Raises:
        ValueError: k is not within 1..n_items.
    """
    if not 1 <= k <= n_items:
        raise ValueError(f"k must be from 1 to the {n_items} items, not {k}.")
    ids, best = np.zeros((len(queries), k), np.int32), np.full((len(queries), k), -np.inf, np.float32)
    for rows in blocks(len(queries), n_items):
        block = queries.take(rows)
        ids[rows], best[rows] = top_k(score(block), k, block.histories if exclude_seen else None)
    return ids, best


def blocks(n_queries: int, width: int) -> list[np.ndarray]:
    """Consecutive queries, int64 each, so that a block of `width` scores per query is at most SCORES_PER_BLOCK."""
    size = max(1, SCORES_PER_BLOCK // width)
    return [np.arange(first, min(first + size, n_queries)) for first in range(0, n_queries, size)]


def largest(shares: np.ndarray, key: Callable[[int, int], int | None]) -> list[list[list[tuple]]]:
    """The largest parts of scores that are sums.

    Args:
        shares: (U, k, S), what each of S slots of a user gives to each of the k items recommended.
        key: (user, slot) -> the item that stands in the slot; None for what is no item.

    Returns:
        For each user, for each item, at most three parts above 0 as (key, number of the slot from 1, share).
    """

    def parts(user, share):
        slots = np.argsort(-share, kind="stable")[:3]
        return [(key(user, slot), int(slot) + 1, share[slot]) for slot in slots if share[slot] > 0]

    return [[parts(user, share) for share in shares[user]] for user in range(len(shares))]
