"""What every baseline owes, whatever its formula."""

import numpy as np
import pytest

import baselines
from baselines import BASELINES
from data.queries import Queries
from data.ragged import Ragged
from errors import UserError
from metric import evaluate

NAMES = tuple(BASELINES)
PERSONAL = tuple(name for name in NAMES if name != "GlobalHot")
CUT = ("ItemKNN", "EASE", "ItemCF", "Swing")  # with neighbours and last_items


@pytest.mark.parametrize("name", NAMES)
def test_answers_are_rankings(fitted, queries, n_items, name):
    recommender = fitted(name)
    for exclude_seen in (True, False):
        ids, scores = recommender.recommend(queries, n_items, exclude_seen)
        assert ids.shape == scores.shape == (len(queries), n_items)
        assert ids.dtype == np.int32 and scores.dtype == np.float32
        assert np.array_equal(ids == 0, np.isneginf(scores))
        tied = (scores[:, 1:] == scores[:, :-1]) & (ids[:, 1:] > 0)
        assert (np.diff(ids)[tied] > 0).all()  # of equal scores the lower id is first
        evaluate(recommender, queries, (1, n_items), exclude_seen)  # refuses repeats, seen items, rising scores


@pytest.mark.parametrize("name", PERSONAL)
def test_withheld_cell_of_a_checkerboard_is_found(checkerboard, name):
    sequences, queries = checkerboard
    assert evaluate(baselines.fit(name, sequences, 20), queries, (1,)).mean("hit", 1) == 1


@pytest.mark.parametrize("name", NAMES)
def test_same_data_same_answer(fitted, queries, name):
    first, again = (fitted(name).recommend(queries, 10) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_query_alone_is_answered_as_among_others(fitted, queries, name):
    recommender = fitted(name)
    ids, scores = recommender.recommend(queries, 10)
    for row in range(len(queries)):
        one_ids, one_scores = recommender.recommend(queries.take([row]), 10)
        np.testing.assert_array_equal(one_ids[0], ids[row])
        np.testing.assert_array_equal(one_scores[0], scores[row])


@pytest.mark.parametrize("name", PERSONAL)
def test_without_a_known_item_nothing_is_recommended(fitted, name):
    queries = Queries(Ragged.from_rows([[29], [], [30, 29]]), Ragged.from_rows([[1], [1], [1]]))
    ids, _ = fitted(name).recommend(queries, 5)
    assert not ids.any()


def test_popularity_needs_no_history(fitted, sequences, n_items):
    queries = Queries(Ragged.from_rows([[29], []]), Ragged.from_rows([[1], [1]]))
    ids, scores = fitted("GlobalHot").recommend(queries, n_items)
    counts = np.bincount(sequences.values, minlength=n_items + 1)
    assert ids[1, 0] == counts.argmax() and np.array_equal(scores[1], counts[ids[1]])
    assert 29 not in ids[0] and 29 in ids[1]


@pytest.mark.parametrize("name", CUT)
def test_last_items_forgets_what_is_older(fitted, n_items, name):
    recommender = fitted(name, last_items=2)
    histories = Ragged.from_rows([[1, 2, 3], [4, 2, 3], [2, 3]])
    _, scores = recommender.recommend(Queries(histories, histories), n_items, exclude_seen=False)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


@pytest.mark.parametrize("name", CUT)
def test_neighbours_keeps_the_best_of_each_list(fitted, name):
    whole, cut = (fitted(name, neighbours=kept).item_lists().toarray() for kept in (None, 3))
    for full, kept in zip(whole, cut, strict=True):
        best = np.argsort(-np.where(full == 0, -np.inf, full), kind="stable")[: min(3, np.count_nonzero(full))]
        assert np.array_equal(np.flatnonzero(kept), np.sort(best))
        assert np.array_equal(kept[best], full[best])


def test_settings_of_other_baselines_are_left_aside(fitted):
    assert fitted("ItemKNN", neighbours=7, smoothing=1.0, regularisation=2.0).neighbours == 7


@pytest.mark.parametrize(
    "name, setting",
    [("EASE", {"regularisation": 0.0}), ("Swing", {"last_items": 0}), ("ItemKNN", {"neighbours": 0}), ("Nothing", {})],
)
def test_refusals_say_what_is_wrong(fitted, name, setting):
    with pytest.raises(UserError, match=next(iter(setting), "Nothing")):
        fitted(name, **setting)
