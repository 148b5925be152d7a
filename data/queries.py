"""Held-out queries: what a recommender is asked, and what it should have answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.ragged import Ragged


@dataclass(frozen=True)
class Queries:
    """Row by row what a user took (the whole history, oldest first) and what came next.

    Attributes:
        histories, targets: U rows of item ids.
        users: (U, W) int32, the feature values of each row's user (`data.features`); None without features.
        askers: (U,) int, a number for the user of each row, where some have several; None: each row is another user's.
    """

    histories: Ragged
    targets: Ragged
    users: np.ndarray | None = None
    askers: np.ndarray | None = None

    @classmethod
    def without_targets(cls, histories: Ragged, users: np.ndarray | None = None) -> Queries:
        """Queries whose answers are not known."""
        return cls(histories, Ragged.from_lengths(np.zeros(len(histories), np.int64), np.zeros(0, np.int32)), users)

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def n_users(self) -> int:
        """How many users ask: metrics and tests count each once."""
        return len(self) if self.askers is None else len(np.unique(self.askers))

    def take(self, rows: Sequence[int] | np.ndarray) -> Queries:
        """The given rows (indices or a boolean mask), in the given order."""
        users, askers = (None if each is None else each[rows] for each in (self.users, self.askers))
        return Queries(self.histories.take(rows), self.targets.take(rows), users, askers)

    def at_most(self, number: int) -> Queries:
        """These queries, or of more than so many that number at even distances."""
        if len(self) <= number:
            return self
        return self.take(np.linspace(0, len(self) - 1, number).astype(np.int64))
