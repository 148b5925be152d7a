"""The weight of the wide table: 0 where it misleads, high where it knows the answer, whatever the scales."""

import numpy as np
import pytest

from data.queries import Queries
from data.ragged import Ragged
from metric import Metrics
from wide import WideSettings, WideTable, blend
from wide.blend import RATIOS, USUAL, choose_weight, cut, some_of

TARGETS = np.random.default_rng(0).integers(1, 51, 40)
QUERIES = Queries(Ragged.from_rows([[]] * 40), Ragged.from_rows(TARGETS[:, None]))


def knowing(scale):
    """Scores that put the target first, on a scale."""
    scores = np.random.default_rng(1).normal(size=(40, 50)).astype(np.float32)
    scores[np.arange(40), TARGETS - 1] = 5
    return scale * scores


def misled(scale):
    scores = np.random.default_rng(2).normal(size=(40, 50)).astype(np.float32)
    return scale * scores


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_better_part_counts_whatever_its_scale(scale):
    weight, _, found = choose_weight(misled(1.0), knowing(scale), QUERIES, 5, True)
    assert weight * scale > 0.9 and found[0.0] < 0.3 < 0.9 < max(found.values())
    _, ratio, found = choose_weight(knowing(scale), misled(1.0), QUERIES, 5, True)
    assert ratio <= USUAL and found[0.0] == max(found.values())


def test_every_ratio_is_reported():
    assert tuple(choose_weight(misled(1.0), knowing(1.0), QUERIES, 5, False)[2]) == RATIOS


@pytest.mark.parametrize(("gaining", "chosen"), [(1, USUAL), (20, 2.0)])
def test_what_users_cannot_tell_apart_gets_the_usual_weight(monkeypatch, gaining, chosen):
    """A heavy table takes something of a user in 40 and gives one more than that: chance. To twenty: not."""
    change = np.where(np.arange(40) < gaining, 0.5, 0)
    change[-1] = -0.3
    ratios = iter(RATIOS)

    def measured(*_):
        return Metrics((5,), {"ndcg": (0.4 + (next(ratios) == 2.0) * change)[:, None]})

    monkeypatch.setattr(blend, "_measured", measured)
    _, ratio, found = choose_weight(misled(1.0), misled(2.0), QUERIES, 5, True)
    assert ratio == chosen and max(found, key=found.get) == 2.0


def table(n_items=50):
    """Users walk around a ring: the newest item names the next one, older ones add little."""
    rng = np.random.default_rng(3)
    rows = [(rng.integers(n_items) + np.arange(12)) % n_items + 1 for _ in range(200)]
    fitted = WideTable.fit(
        Ragged.from_rows([row[:-1] for row in rows]), n_items, WideSettings(lookups=8, max_postings=40)
    )
    return fitted, Queries(Ragged.from_rows([row[:-1] for row in rows]), Ragged.from_rows([row[-1:] for row in rows]))


def test_a_table_is_read_as_little_as_loses_nothing():
    fitted, queries = table()
    less, costs = cut(np.zeros((200, 50), np.float32), fitted, queries, 5, True, 0.005)
    assert (less.settings.lookups, less.settings.max_postings) == (4, 40)  # all is at its top already
    assert np.diff(less.offsets).max() <= 40 and len(less.weights()) == 4
    assert costs["loses nothing"] and costs["ndcg change"] >= -0.005


def test_queries_of_one_user_are_no_users_of_their_own():
    """Of 67 users who ask three times each, none are so many that a cut is sure to lose nothing."""
    fitted, queries = table()
    asked = Queries(queries.histories, queries.targets, None, np.arange(200) // 3)
    less, costs = cut(np.zeros((200, 50), np.float32), fitted, asked, 5, True, 0.005)
    assert less is fitted and costs["ndcg change"] == 0


def test_what_is_never_recommended_has_no_say():
    """Where a score says nothing up to 0, an item that is first by its id alone is no find."""
    first = Queries(Ragged.from_rows([[]] * 40), Ragged.from_rows(np.ones((40, 1), int)))
    deep, wide = np.zeros((40, 50), np.float32), np.zeros((40, 50), np.float32)
    deep[:, 7] = wide[:, 8] = 1
    assert choose_weight(deep, wide, first, 5, True)[2][0.0] > 0.4
    assert choose_weight(deep, wide, first, 5, True, 0.0)[2] == dict.fromkeys(RATIOS, 0.0)


def test_a_table_that_needs_all_keeps_all():
    """The oldest item looked up names the target."""
    rng = np.random.default_rng(4)
    histories = np.array([rng.permutation(30)[:6] + 1 for _ in range(300)])
    rows = np.zeros((31, 31), np.float32)
    rows[np.arange(1, 31), np.arange(1, 31) % 30 + 1] = 1
    offsets, items = np.concatenate([[0, 0], np.arange(1, 31)]), np.arange(1, 31) % 30 + 1
    oldest = WideTable(offsets, items, np.ones(30), np.ones(31), WideSettings(history_decay=0.9, lookups=6))
    queries = Queries(Ragged.from_rows(list(histories)), Ragged.from_rows(histories[:, :1] % 30 + 1))
    less, _ = cut(np.zeros((300, 30), np.float32), oldest, queries, 6, False, 0.005)
    assert less.settings.lookups == 6


def test_of_many_users_some_at_even_distances_choose():
    many = Queries(Ragged.from_rows([[1]] * 9), Ragged.from_rows(np.arange(1, 10)[:, None]))
    assert some_of(many, 10) is many
    assert some_of(many, 2**26 // 3).targets.values.tolist() == [1, 5, 9]
