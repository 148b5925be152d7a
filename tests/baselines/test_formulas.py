"""The lists of the item-to-item baselines against their definitions, written out plainly."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from implicit.nearest_neighbours import CosineRecommender
from scipy import sparse

from baselines.similarity import incidence
from baselines.swing import Swing
from data.ragged import Ragged
from retrieval import lists as sparse_rows


@pytest.fixture
def taken(sequences, n_items):
    return incidence(sequences, n_items).toarray().astype(np.float64)


@pytest.fixture
def lists(fitted):
    return lambda name, **settings: fitted(name, neighbours=None, **settings).lists.toarray()


def cosines(taken):
    shared = taken.T @ taken
    norms = np.sqrt(np.maximum(np.diag(shared), 1e-9))
    expected = shared / norms / norms[:, None]
    np.fill_diagonal(expected, 0)
    return expected


def swing(taken, smoothing):
    expected = np.zeros((taken.shape[1], taken.shape[1]))
    for u, v in combinations(taken, 2):
        both = np.flatnonzero(u * v)
        for i, j in combinations(both, 2):
            expected[[i, j], [j, i]] += 1 / np.sqrt(u.sum() * v.sum()) / (smoothing + len(both))
    return expected


def test_item_knn(lists, taken):
    np.testing.assert_allclose(lists("ItemKNN"), cosines(taken), rtol=1e-5)


def test_item_cf(lists, taken):
    weighted = taken / np.sqrt(np.maximum(taken.sum(1, keepdims=True), 1))
    np.testing.assert_allclose(lists("ItemCF"), cosines(weighted), rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.5, 1.0])
def test_swing(lists, taken, smoothing):
    np.testing.assert_allclose(lists("Swing", smoothing=smoothing), swing(taken, smoothing), rtol=1e-5)


@pytest.mark.parametrize("name", ["ItemKNN", "ItemCF", "Swing"])
def test_blocks_of_two_rows_change_nothing(lists, n_items, name, monkeypatch):
    whole = lists(name)
    monkeypatch.setattr(sparse_rows, "BLOCK_BYTES", 4 * n_items * 2)
    np.testing.assert_allclose(lists(name), whole, rtol=1e-6)  # blocks of Swing add in another order


def test_ease_is_a_ridge_regression_of_each_item_on_the_others(lists, taken, n_items):
    found = lists("EASE", regularisation=5.0)
    assert not np.diag(found).any()
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        x, y = taken[:, others], taken[:, item]
        expected = np.linalg.solve(x.T @ x + 5.0 * np.eye(len(others)), x.T @ y)
        np.testing.assert_allclose(found[others, item], expected, rtol=1e-4, atol=1e-6)


def test_whole_ease_lets_every_item_of_a_history_vote(fitted, n_items):
    histories = Ragged.from_rows([np.arange(1, n_items + 1), np.arange(n_items, n_items - 5, -1)])
    whole, latest = (fitted(name).query_keys(histories)[1] for name in ("WholeEASE", "EASE"))
    assert (whole > 0).sum(1).tolist() == [n_items, 5]
    assert (latest > 0).sum(1).tolist() == [20, 5]


def test_markov(lists, sequences, n_items):
    counts = np.zeros((n_items, n_items))
    for row in sequences:
        np.add.at(counts, (row[:-1] - 1, row[1:] - 1), 1)
    np.testing.assert_allclose(lists("Markov"), counts / np.maximum(counts.sum(1, keepdims=True), 1), rtol=1e-6)


def test_linear_scores_as_its_table_does(fitted, sequences, queries, n_items):
    from wide import WideSettings, WideTable

    recommender = fitted("Linear", history_decay=0.7, target_decay=0.3, regularisation=5.0, last_items=3)
    table = WideTable.fit(sequences, n_items, WideSettings(0.7, 0.3, 5.0, lookups=3))
    ids, scores = recommender.recommend(queries, n_items, exclude_seen=False)
    expected = np.take_along_axis(table.scores(queries.histories), np.maximum(ids - 1, 0).astype(np.int64), 1)
    np.testing.assert_allclose(scores[ids > 0], expected[ids > 0], rtol=1e-5)


def test_scores_are_sums_of_the_lists_of_the_history(fitted, queries, n_items):
    recommender = fitted("ItemKNN")
    lists = recommender.lists.toarray()
    ids, scores = recommender.recommend(queries, n_items)
    for history, row, values in zip(queries.histories, ids, scores, strict=True):
        expected = lists[history - 1].sum(0)
        found = row[row > 0]
        np.testing.assert_allclose(values[row > 0], expected[found - 1], rtol=1e-5)
        assert set(found - 1) == set(np.flatnonzero(expected)) - set(history - 1)


def test_item_knn_agrees_with_implicit(lists, taken):
    model = CosineRecommender(K=taken.shape[1])
    model.fit(sparse.csr_matrix(taken), show_progress=False)
    expected = model.similarity.toarray()
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(lists("ItemKNN"), expected, rtol=1e-5, atol=1e-6)


def test_equal_scores_of_swing_are_equal():
    """Sums of thirds, quarters and fifths in any order; each user has six items, so that no root is rounded."""
    rng, six = np.random.default_rng(0), 6
    rows = [np.sort(rng.choice(25, six, replace=False)) + 1 for _ in range(40)]
    scores = Swing(neighbours=None).fit(Ragged.from_rows(rows), 25).lists.toarray()
    exact = {}
    for u, v in combinations(map(set, rows), 2):
        for i, j in combinations(sorted(u & v), 2):
            exact[i, j] = exact.get((i, j), 0) + Fraction(1, six * (1 + len(u & v)))
    assert len(set(exact.values())) < len(exact) / 2
    for value in set(exact.values()):
        assert len({scores[i - 1, j - 1] for (i, j), other in exact.items() if other == value}) == 1
