"""What codes cost is told from the model before and after, beside the table at its weight."""

import numpy as np
import pytest

from data.queries import Queries
from data.ragged import Ragged
from models import fidelity
from models.fidelity import Fidelity

TARGETS = np.random.default_rng(0).integers(1, 51, 400)
QUERIES = Queries(Ragged.from_rows([[]] * 400), Ragged.from_rows(TARGETS[:, None]))


def scores(known, seed=1):
    """Scores that put the target first for so many users, and noise."""
    found = np.random.default_rng(seed).normal(size=(400, 50)).astype(np.float32)
    found[np.arange(known), TARGETS[:known] - 1] = 9
    return found


class Table:
    def __init__(self, known):
        self.known = known

    def scores(self, histories):
        return scores(self.known, seed=2)


def costs(monkeypatch, before, after, wide=None):
    class Exhaustive:
        found = iter([before, after])

        def __init__(self, model, batch_size):
            pass

        def scores(self, queries):
            return next(self.found).copy()

    monkeypatch.setattr(fidelity, "Exhaustive", Exhaustive)
    return Fidelity(None, wide, QUERIES, 5, True, 0.005, 64).cost()


def test_codes_that_change_nothing_cost_nothing(monkeypatch):
    row, nothing = costs(monkeypatch, scores(200), scores(200))
    assert nothing and row["recall change"] == row["ndcg change"] == 0


def test_codes_that_lose_targets_cost_them(monkeypatch):
    row, nothing = costs(monkeypatch, scores(200), scores(180))
    assert not nothing and row["recall change"] == pytest.approx(-20 / 400 * 0.9, abs=0.01)


def test_what_the_table_knows_as_well_is_not_lost(monkeypatch):
    row, nothing = costs(monkeypatch, scores(200), scores(180), Table(300))
    assert nothing and row["recall change"] == 0 and row["recall@5"] > 0.74
