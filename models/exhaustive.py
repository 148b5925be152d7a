"""Exhaustive recommendation: every item is scored for every query. The reference the index is measured against."""

import numpy as np

from models.query_side import QuerySide


class Exhaustive:
    """recommend() of a trained model without an index.

    Args:
        model: TwoTower, AllToAll or DQMatch; its weights are read anew at every call.
        batch_size: histories encoded at once.
    """

    def __init__(self, model, batch_size):
        self.model, self.query_side = model, QuerySide(model, batch_size)

    def recommend(self, queries, k, exclude_seen=True):
        """The k best items of each query, by falling score and then rising id.

        Args:
            queries: with `histories`, a `Ragged` of U rows.
            k: 1 .. n_items.
            exclude_seen: leave out the items of the history.

        Returns:
            ids (U, k) int32 and scores (U, k) float32; where fewer items have a score, id 0 and -inf. An item that
            every ReLU has silenced has none.
        """
        scores = self.scores(queries)  # (U, n_items)
        if self.model.score_bias is not None:
            scores[scores <= 0] = -np.inf
        if exclude_seen:
            scores[queries.histories.row_of_value(), queries.histories.values - 1] = -np.inf
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        top = np.take_along_axis(scores, best, 1)
        return np.where(np.isneginf(top), 0, best + 1).astype(np.int32), top

    def scores(self, queries):
        """Scores of all items, (U, n_items) float32; column j is item j + 1."""
        tokens = self.query_side.tokens(queries.histories)  # (U, K_u, D)
        n_queries, n_tokens, width = tokens.shape
        # Quantised tokens repeat: each different one is scored once.
        distinct, place = np.unique(tokens.reshape(-1, width), axis=0, return_inverse=True)
        place = place.reshape(n_queries, n_tokens)
        by_token = self.model.scorer().token_scores(distinct)  # (R, n_items)
        return sum(by_token[place[:, token]] for token in range(n_tokens))
