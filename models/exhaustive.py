"""Exhaustive recommendation: every item is scored for every query. The reference the index is measured against."""

from __future__ import annotations

import numpy as np

from data.queries import Queries
from models.query_side import QuerySide
from recommender import blocks
from retrieval.ranking import top_k
from wide import WideTable


class Exhaustive:
    """recommend() of a trained model without an index.

    Args:
        model: TwoTower, AllToAll or DQMatch; its weights are read anew at every call.
        batch_size: histories encoded at once.
        wide: `wide.WideTable` whose scores are added, or None.
    """

    def __init__(self, model, batch_size: int, wide: WideTable | None = None):
        self.model, self.query_side, self.wide = model, QuerySide(model, batch_size), wide

    def recommend(self, queries: Queries, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query; see `recommender.Recommender`.

        An item that every ReLU has silenced has no score. Of the scores, one block stands in memory at a time:
        `recommender.SCORES_PER_BLOCK`; of the tokens, those of all queries, but not of the codewords they look up.
        """
        above = -np.inf if self.model.score_bias is None else 0.0
        ids, best = np.empty((len(queries), k), np.int32), np.empty((len(queries), k), np.float32)
        for users, by_token, place in self._blocks(queries):
            seen = queries.histories.take(users) if exclude_seen else None
            ids[users], best[users] = top_k(by_token, k, seen, rows=place, above=above)
        return ids, best

    def scores(self, queries: Queries) -> np.ndarray:
        """Scores of all items, float32 (U, n_items), in memory as a whole; column j is item j + 1."""
        parts = [by_token[place].sum(1) for _, by_token, place in self._blocks(queries)]
        return np.concatenate(parts)

    def _blocks(self, queries: Queries):
        """Blocks of users: their rows, scores (R, n_items), and which of them add up to a user's (u, K)."""
        tokens, scorer = self.query_side.raw_tokens(queries), self.model.scorer()  # (U, K, D)
        found = self.model.quantiser.keys(tokens) if self.model.is_quantised else None  # (U, C, M) and (U, C)
        n_tokens = 1 if scorer.linear else (tokens if found is None else found[1]).shape[1]
        for users in blocks(len(tokens), (n_tokens + 1) * self.model.items.n_items):
            block = tokens[users] if found is None else self.query_side.looked_up(*(each[users] for each in found))
            if scorer.linear:
                block = block.sum(1, keepdims=True)  # one score in place of K
            block = block.reshape(-1, block.shape[2])
            place = np.arange(len(block))
            if self.model.is_quantised and not scorer.linear:  # tokens repeat, and each different one is scored once
                block, place = np.unique(block, axis=0, return_inverse=True)
            scores, place = scorer.token_scores(block), place.reshape(-1, n_tokens)
            if self.wide is not None:
                last = len(scores) + np.arange(len(users))
                scores = np.concatenate([scores, self.wide.scores(queries.histories.take(users))])
                place = np.concatenate([place, last[:, None]], 1)
            yield users, scores, place
