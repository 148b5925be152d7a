"""What the matrix factorisations share: item factors from a library, user factors solved for the history asked with."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from data.queries import Queries
from data.ragged import Ragged
from errors import UserError
from recommender import recommend_by_scores


class Factors:
    """score(item | history) = x . v_item, where x minimises the loss of alternating least squares for that history.

    That is the half step by which the library itself finds the factors of a training user, so new users and longer
    histories need no fit. Hu, Koren and Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008:

        x = argmin  sum over all items (p - x.v)^2  +  confidence * sum over the history (1 - x.v)^2  +  ridge |x|^2

    with p = 1 for the items of the history and 0 for others; without `implicit` the first sum is left out and the
    confidence is 1: ratings of 1, the rest unknown. Items that nobody took in training count in no history and are
    never recommended.

    Args:
        factors: numbers per user and item.
        iterations: of alternating least squares.
        confidence: how much more an interaction weighs than its absence.
        seed: of the first item factors.

    Attributes:
        item_factors: float64 (n_items, factors), NaN for items without training, set by fit.
    """

    implicit = True
    nonnegative = False

    def __init__(self, factors: int, iterations: int, confidence: float, seed: int):
        for name, value in (("factors", factors), ("iterations", iterations), ("confidence", confidence)):
            if value <= 0:
                raise ValueError(f"{name} is {value}; it must be positive.")
        self.factors, self.iterations, self.confidence, self.seed = factors, iterations, confidence, seed

    @classmethod
    def missing(cls) -> str:
        """What must be installed before this can be fitted, as a sentence; "" where nothing is."""
        raise NotImplementedError(f"{cls.__name__} does not say what it needs.")

    def fit(self, sequences: Ragged, n_items: int) -> Factors:
        """Learn the item factors from what each user took; returns itself. Raises UserError without the library."""
        if missing := self.missing():
            raise UserError(missing)
        item_factors = np.array(self.learn(sequences, n_items), np.float64)  # (n_items, factors)
        item_factors[np.bincount(sequences.values, minlength=n_items + 1)[1:] == 0] = np.nan
        self.item_factors = item_factors
        known = np.nan_to_num(item_factors)
        self._gram = known.T @ known  # (factors, factors)
        return self

    def learn(self, sequences: Ragged, n_items: int) -> np.ndarray:
        """Item factors (n_items, factors) from the library."""
        raise NotImplementedError(f"{type(self).__name__} learns no factors.")

    def ridge(self, length: int) -> float:
        """The penalty on the factors of a user with so many items."""
        raise NotImplementedError(f"{type(self).__name__} names no penalty.")

    def recommend(self, queries: Queries, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The k best items of each query, as every `Recommender`: ids int32 (U, k), scores float32 (U, k)."""
        return recommend_by_scores(self._scores, queries, k, exclude_seen, len(self.item_factors))

    def user_factors(self, history: np.ndarray) -> np.ndarray:
        """x of one history, int (L,), each item counted once: float64 (factors,); NaN where training had none."""
        items = self.item_factors[np.unique(history) - 1]  # (L, factors)
        items = items[~np.isnan(items[:, 0])]
        if not len(items):
            return np.full(self.item_factors.shape[1], np.nan)
        confidence = self.confidence if self.implicit else 1.0
        left = confidence * items.T @ items + self.ridge(len(items)) * np.eye(items.shape[1])
        right = confidence * items.sum(0)
        if self.implicit:
            left += self._gram
            right += items.sum(0)
        if not self.nonnegative:
            return np.linalg.solve(left, right)
        from scipy.optimize import nnls  # here, as it takes most of a second to import

        root = np.linalg.cholesky(left)  # |root' x - root^-1 right|^2 is the loss but for a constant
        return nnls(root.T, solve_triangular(root, right, lower=True))[0]

    def _scores(self, queries: Queries) -> np.ndarray:
        scores = np.stack([self.item_factors @ self.user_factors(history) for history in queries.histories])
        return np.where(np.isnan(scores), -np.inf, scores).astype(np.float32)  # (U, n_items)
