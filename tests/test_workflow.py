"""On whom an epoch is validated, and by what codes are judged."""

from types import SimpleNamespace

import numpy as np
import pytest

import workflow
from data.queries import Queries
from data.ragged import Ragged
from retrieval.ranking import top_k
from work import Hyperparameters
from workflow import judge_of_codes


@pytest.mark.parametrize(("linear", "most", "asked"), [(True, 36, 9), (True, 32, 8), (False, 36, 5)])
def test_an_epoch_is_validated_on_as_many_users_as_pairs_allow(monkeypatch, capsys, linear, most, asked):
    monkeypatch.setattr(workflow, "EPOCH_PAIRS", most)
    monkeypatch.setattr(workflow, "PAIRS", 20)
    monkeypatch.setattr(workflow.models, "Exhaustive", lambda model, batch_size: None)
    queries = Queries.without_targets(Ragged.from_rows([[1]] * 9))
    model = SimpleNamespace(linear=linear, items=SimpleNamespace(n_items=4))
    validation = workflow.Validation(model, queries, SimpleNamespace(inference_batch_size=1))
    assert len(validation.queries) == asked
    assert (f"{asked} of 9" in capsys.readouterr().out) == (asked < 9)


TARGETS = np.random.default_rng(0).integers(1, 51, 400)


def known(users, seed):
    """Scores of 50 items that put the target first for so many users, and noise."""
    found = np.random.default_rng(seed).normal(size=(400, 50)).astype(np.float32)
    found[np.arange(users), TARGETS[:users] - 1] = 9
    return found


class Known:
    """A table or a model by its scores."""

    linear = True

    def __init__(self, users, seed, scale=1.0):
        self.users, self.seed, self.scale = users, seed, scale

    def scores(self, histories):
        return self.scale * known(self.users, self.seed)

    def scaled(self, weight):
        return Known(self.users, self.seed, self.scale * weight)


class ByScores:
    def __init__(self, model, batch_size, wide=None):
        self.model, self.wide = model, wide

    def scores(self, queries):
        return self.model.scores(queries.histories)

    def recommend(self, queries, k, exclude_seen):
        return top_k(self.scores(queries) + (self.wide.scores(queries.histories) if self.wide else 0), k)


@pytest.mark.parametrize(
    ("after", "wide", "said", "nothing"),
    [
        (200, None, "recall@5 +0.0000 (p = 1.00)", True),
        (180, None, "recall@5 -0.04", False),
        (180, Known(300, 2, 40.0), "recall@5 +0.0000 (p = 1.00)", True),  # what the table knows as well is not lost
    ],
)
def test_codes_are_judged_beside_the_table_at_its_weight(monkeypatch, capsys, after, wide, said, nothing):
    monkeypatch.setattr(workflow.models, "Exhaustive", ByScores)
    valid = Queries(Ragged.from_rows([[]] * 400), Ragged.from_rows(TARGETS[:, None]))
    h, model = Hyperparameters(inference_batch_size=9, topk=(5,)), Known(200, 1)
    found = SimpleNamespace(catalogue=SimpleNamespace(n_items=50), valid=valid)
    judge = judge_of_codes(model, wide, h, found)
    model.users = after
    assert judge(12)[1] == nothing and f"12 codes; on validation users {said}" in capsys.readouterr().out


def test_what_is_not_open_is_not_judged():
    for settings in (Hyperparameters(token_lookups=4), Hyperparameters(index_loss=None)):
        assert judge_of_codes(None, None, settings, None) is None
