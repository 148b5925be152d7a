"""Vectors whose inner products are, nearly, the scores of an interaction that adds up over nothing."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import nn

from recommender import blocks

WIDTH = 256  # of the vectors, and landmarks
ROWS, CELLS = 12000, 2**26  # users whose scores of all items are decomposed, and scores, at most
RIDGE = 1e-4  # of the mean square of the landmarks' scores


class ScoreFeatures(nn.Cell):
    """score(user, item) ~ z(user) . v(item), by a user's scores of a few landmark items.

    Rows of scores over all items, whatever interaction made them, lie near a subspace: v are its principal directions
    (a truncated singular value decomposition of the rows of some users), and z is predicted, by ridge regression, from
    the scores of as many landmark items as the subspace has dimensions, drawn at random (the idea of Nystrom's method:
    Williams and Seeger, "Using the Nystrom Method to Speed Up Kernel Machines", 2000). So what no inner product of
    tokens and items holds is held by one of these longer vectors, and adds up: over tokens, and over codewords. Of each
    row its mean is left out, which ranks nothing. A query costs the interaction of its tokens with the landmarks.

    Args:
        scores: function of tokens (T, D) float32 and items, their rows in the table of embeddings or None for all, that
            returns scores (T, items) float32.
        n_items: of the catalogue.
    """

    def __init__(self, scores: Callable, n_items: int):
        super().__init__()
        self._scores = scores
        self.landmarks = _fixed("landmarks", np.zeros(WIDTH, np.int32))  # rows of items
        self.of_landmarks = _fixed("of_landmarks", np.zeros((WIDTH, WIDTH), np.float32))
        self.items = _fixed("items", np.zeros((n_items, WIDTH), np.float32))  # v

    def fit(self, tokens: np.ndarray, seed: int) -> None:
        """Chooses all of it by the scores of some users, tokens (U, K, D) float32."""
        from sklearn.utils.extmath import randomized_svd  # here, as it takes two seconds to import

        n_users = min(len(tokens), ROWS, max(CELLS // len(self.items), 1))
        tokens = tokens[np.linspace(0, len(tokens) - 1, n_users).astype(np.int64)]
        rows = self._rows(tokens, None)  # (U, n_items)
        _, _, directions = randomized_svd(rows, min(WIDTH, *rows.shape), random_state=seed)
        directions = np.pad(directions, ((0, WIDTH - len(directions)), (0, 0)))  # (W, n_items), 0 where rows are few
        # Of a small catalogue all items, again and again.
        drawn = np.random.default_rng(seed).choice(len(self.items), min(WIDTH, len(self.items)), replace=False)
        landmarks = np.resize(drawn, WIDTH).astype(np.int32)
        known = self._rows(tokens, landmarks)  # (U, W)
        size = max(np.square(known).mean(), 1e-12)  # above 0 where all scores are the same
        ridge = RIDGE * size * n_users * np.eye(WIDTH)
        of_landmarks = np.linalg.solve(known.T @ known + ridge, known.T @ (rows @ directions.T))
        for part, values in (
            (self.landmarks, landmarks),
            (self.of_landmarks, of_landmarks.astype(np.float32)),
            (self.items, np.ascontiguousarray(directions.T, np.float32)),
        ):
            part.set_data(ms.Tensor(values))

    def of(self, tokens: np.ndarray) -> np.ndarray:
        """z of users, tokens (U, K, D) float32 -> (U, 1, W) float32."""
        return (self._rows(tokens, self.landmarks.asnumpy()) @ self.of_landmarks.asnumpy())[:, None]

    def onnx(self, graph, scores):
        """z as nodes of an ONNX graph, from scores of the landmarks (B, W), summed over tokens; see
        `models.onnx_export`."""
        rows = graph("Sub", scores, graph("ReduceMean", scores, axes=[1]))
        return graph("MatMul", rows, self.of_landmarks.asnumpy())

    def _rows(self, tokens, items):
        """Scores of items, summed over tokens, less their mean."""
        n_users, n_tokens, width = tokens.shape
        rows = np.empty((n_users, len(self.items) if items is None else len(items)), np.float32)
        for users in blocks(n_users, n_tokens * rows.shape[1]):
            scores = self._scores(tokens[users].reshape(-1, width), items)
            rows[users] = scores.reshape(-1, n_tokens, rows.shape[1]).sum(1)
        return rows - rows.mean(1, keepdims=True)


def _fixed(name, values):
    """A parameter, so that checkpoints hold it, that no optimiser moves."""
    return ms.Parameter(ms.Tensor(values), name=name, requires_grad=False)
