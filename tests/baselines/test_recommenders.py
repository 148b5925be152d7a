"""What baselines owe beyond tests/test_recommender.py, whatever their formula."""

import numpy as np
import pytest

import baselines
from baselines import BASELINES
from baselines.item_to_item import ItemToItem
from data.queries import Queries
from data.ragged import Ragged
from errors import UserError
from metric import evaluate

PERSONAL = tuple(name for name in BASELINES if name != "GlobalHot")
BY_LISTS = tuple(name for name, kind in BASELINES.items() if issubclass(kind, ItemToItem))
CUT = ("ItemKNN", "EASE", "ItemCF", "Swing")  # with neighbours and last_items


@pytest.mark.parametrize("name", PERSONAL)
def test_withheld_cell_of_a_checkerboard_is_found(checkerboard, installed, name):
    sequences, queries = checkerboard
    assert evaluate(baselines.fit(installed(name), sequences, 20, factors=8), queries, (1,)).mean("hit", 1) == 1


@pytest.mark.parametrize("name", BASELINES)
def test_same_data_same_answer(fitted, queries, name):
    first, again = (fitted(name).recommend(queries, 10) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("name", PERSONAL)
def test_without_a_known_item_nothing_is_known(fitted, name):
    """EASE gives every item a weight, here 0; the others have nothing to sum."""
    queries = Queries(Ragged.from_rows([[29], [], [30, 29]]), Ragged.from_rows([[1], [1], [1]]))
    ids, scores = fitted(name).recommend(queries, 5)
    assert not ids[1].any()
    assert not (scores[[0, 2]] if "EASE" in name else ids).any()


def test_popularity_needs_no_history(fitted, sequences, n_items):
    queries = Queries(Ragged.from_rows([[29], []]), Ragged.from_rows([[1], [1]]))
    ids, scores = fitted("GlobalHot").recommend(queries, n_items)
    counts = np.bincount(sequences.values, minlength=n_items + 1)
    assert ids[1, 0] == counts.argmax() and np.array_equal(scores[1], counts[ids[1]])
    assert 29 not in ids[0] and 29 in ids[1]


def test_popularity_counts_users(n_items):
    taken = Ragged.from_rows([[5, 5, 5], [4], [4, 7]])
    assert baselines.fit("GlobalHot", taken, n_items).popularity[[3, 4, 6]].tolist() == [2, 1, 1]


@pytest.mark.parametrize("item", [-1, 31, 10**8])
@pytest.mark.parametrize("name", BY_LISTS)
def test_items_outside_the_catalogue_are_refused(fitted, n_items, name, item):
    """Their lists would be read out of bounds."""
    queries = Queries.without_targets(Ragged.from_rows([[1, item, 2]]))
    for exclude_seen in (True, False):
        with pytest.raises(ValueError, match=f"{item} is outside the items 1..{n_items}"):
            fitted(name).recommend(queries, 2, exclude_seen)
    with pytest.raises(ValueError, match=f"{item} is outside the items 1..{n_items}"):
        baselines.fit(name, Ragged.from_rows([[1, 2, item]]), n_items)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("name", BY_LISTS)
def test_the_inverted_index_serves_the_same(fitted, queries, n_items, name, exclude_seen):
    recommender = fitted(name)
    ids, scores = recommender.recommend(queries, n_items, exclude_seen)
    served_ids, served_scores = recommender.served().recommend(queries, n_items, exclude_seen)
    np.testing.assert_allclose(served_scores, scores, rtol=1e-5, atol=1e-6)
    for row in np.flatnonzero((served_ids != ids).any(1)):  # rounding may turn near-ties over, and nothing else
        by_id = [dict(zip(*found, strict=True)) for found in ((ids[row], scores[row]), (served_ids[row], scores[row]))]
        assert by_id[0] == pytest.approx(by_id[1], abs=1e-6)


@pytest.mark.parametrize("name", sorted({*BY_LISTS} - {"EASE", "WholeEASE", "Linear"}))  # which take votes away, too
def test_reasons_add_up_to_the_score_by_items_of_the_history(fitted, name):
    recommender = fitted(name)
    queries = Queries.without_targets(Ragged.from_rows([[3, 9], [5], [2, 29, 8]]))
    ids, scores = recommender.recommend(queries, 6)
    for user, reasons in enumerate(recommender.reasons(queries, ids)):
        for item, score, parts in zip(ids[user], scores[user], reasons, strict=True):
            assert not item or sum(share for *_, share in parts) == pytest.approx(score, rel=1e-5)
            assert {key for key, *_ in parts} <= set(queries.histories[user].tolist())
    assert recommender.reasons(queries.take([]), ids[:0]) == []


def test_reasons_name_the_items_that_vote_most_first(fitted):
    recommender = fitted("EASE", last_items=None)
    history = [3, 9, 12, 1, 20]
    (parts,) = recommender.reasons(Queries.without_targets(Ragged.from_rows([history])), np.array([[7]]))[0]
    votes = {item: recommender.lists[item - 1, 6] for item in history}
    best = sorted((item for item in history if votes[item] > 0), key=lambda item: -votes[item])[:3]
    assert [(item, share) for item, _, share in parts] == [(item, pytest.approx(votes[item])) for item in best]


@pytest.mark.parametrize("name", CUT)
def test_last_items_forgets_what_is_older(fitted, n_items, name):
    recommender = fitted(name, last_items=2)
    histories = Ragged.from_rows([[1, 2, 3], [4, 2, 3], [2, 3]])
    _, scores = recommender.recommend(Queries(histories, histories), n_items, exclude_seen=False)
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])


@pytest.mark.parametrize("most", [3, 25])  # 25: more than the positive weights of an item in EASE
@pytest.mark.parametrize("name", CUT)
def test_neighbours_keeps_the_best_of_each_list(fitted, name, most):
    whole, cut = (fitted(name, neighbours=neighbours).lists.toarray() for neighbours in (None, most))
    for full, kept in zip(whole, cut, strict=True):
        best = np.argsort(-full, kind="stable")[: min(most, np.count_nonzero(full > 0))]
        assert np.array_equal(np.flatnonzero(kept), np.sort(best))
        assert np.array_equal(kept[best], full[best])


def test_settings_of_other_baselines_are_left_aside(fitted):
    assert fitted("ItemKNN", neighbours=7, smoothing=1.0, regularisation=2.0).neighbours == 7


@pytest.mark.parametrize(
    "name, setting",
    [
        ("EASE", {"regularisation": 0.0}),
        ("Swing", {"last_items": 0}),
        ("ItemKNN", {"neighbours": 0}),
        ("ItemKNN", {"neighbours": 2.5}),
        ("ALS", {"factors": 0}),
        ("Nothing", {}),
    ],
)
def test_refusals_say_what_is_wrong(sequences, n_items, name, setting):
    with pytest.raises(UserError, match=next(iter(setting), "Nothing")):
        baselines.fit(name, sequences, n_items, **setting)
