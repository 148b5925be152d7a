"""Alternating least squares on one machine, by the `implicit` library."""

from __future__ import annotations

import importlib.util

import numpy as np

from baselines.factors import Factors
from baselines.similarity import incidence
from data.ragged import Ragged


class ALS(Factors):
    """Implicit-feedback matrix factorisation, see `Factors`; the item factors are implicit's (benfred/implicit).

    Args:
        factors, iterations, confidence, seed: as in `Factors`.
        regularisation: the ridge of every user and item.
    """

    def __init__(
        self,
        factors: int = 64,
        regularisation: float = 10.0,
        iterations: int = 15,
        confidence: float = 1.0,
        seed: int = 0,
    ):
        super().__init__(factors, iterations, confidence, seed)
        if regularisation < 0:
            raise ValueError(f"regularisation is {regularisation}; it must be 0 or more.")
        self.regularisation = regularisation

    @classmethod
    def missing(cls) -> str:
        """The library; see `Factors.missing`."""
        found = importlib.util.find_spec("implicit")
        return "" if found else "ALS needs the implicit library; `pip install implicit`, or take SparkALS."

    def learn(self, sequences: Ragged, n_items: int) -> np.ndarray:
        """Item factors (n_items, factors) float32."""
        from implicit.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        model = AlternatingLeastSquares(
            factors=self.factors,
            regularization=self.regularisation,
            alpha=1 + self.confidence,  # an absence weighs 1 there, an interaction alpha
            iterations=self.iterations,
            random_state=self.seed,
        )
        with threadpool_limits(1, "blas"):  # the library has threads of its own
            model.fit(incidence(sequences, n_items), show_progress=False)
        return model.item_factors

    def ridge(self, length: int) -> float:
        """The same for every user."""
        return self.regularisation
