"""The wide table is a ridge regression that can be written out; what it votes for is known for a known source."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from data.queries import Queries
from data.ragged import Ragged
from wide import ORDER, WideSettings, WideTable, choose, pairs
from wide.inverse import local_inverse
from wide.pairs import Pairs
from wide.table import ndcg_of

WHOLE = WideSettings(0.5, 0.4, l2=3.0, max_postings=1000, lookups=4, neighbours=1000)  # windows of 4 and 3


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_sequences(rng, users, n_items, longest=12):
    """Histories without repetition, of 1 to `longest` items."""
    return Ragged.from_rows(rng.permutation(n_items)[: rng.integers(1, longest + 1)] + 1 for _ in range(users))


def chain(rng, users, n_items, length=8):
    """Item i is always followed by i + 1, in a circle."""
    starts = rng.integers(0, n_items, users)
    return Ragged.from_rows((starts[:, None] + np.arange(length)) % n_items + 1)


def regression(sequences, n_items, settings):
    """W by its definition, float64 (n_items, n_items): every position a row of X and of Y."""
    X, Y = [], []
    for i in range(len(sequences)):
        sequence = sequences[i]
        for position in range(1, len(sequence)):
            x, y = np.zeros(n_items), np.zeros(n_items)
            for age, item in enumerate(sequence[:position][::-1][:4]):
                x[item - 1] += settings.history_decay**age
            for distance, item in enumerate(sequence[position:][:3]):
                y[item - 1] += settings.target_decay**distance
            X.append(x)
            Y.append(y)
    X, Y = np.array(X), np.array(Y)
    return np.linalg.solve(X.T @ X + settings.l2 * np.eye(n_items), X.T @ Y)


def by_id(table):
    """float32 (n_items + 1, n_items + 1), by item id."""
    return np.pad(table.matrix.toarray(), ((1, 0), (1, 0)))


@pytest.mark.parametrize("rows", [256, 1])  # in one block, and in fifteen
def test_equals_the_regression_written_out(rng, monkeypatch, rows):
    monkeypatch.setattr(pairs, "ROWS", rows)
    sequences = random_sequences(rng, 400, 15)  # all items meet: each one's neighbours are the whole catalogue
    W = regression(sequences, 15, WHOLE)
    table = WideTable.fit(sequences, 15, WHOLE)
    np.testing.assert_allclose(table.matrix.toarray(), np.maximum(W, 0), atol=1e-5)
    assert table.offsets[1] == 0 and table.items.min() == 1  # padding votes for nothing, and nothing for padding


@pytest.mark.parametrize("rows", [256, 1])
def test_without_order_it_is_ease(rng, monkeypatch, rows):
    monkeypatch.setattr(pairs, "ROWS", rows)
    sequences = random_sequences(rng, 400, 15)
    taken = np.zeros((400, 15))
    taken[sequences.row_of_value(), sequences.values - 1] = 1
    together = taken.T @ taken
    inverse = np.linalg.inv(together + WHOLE.l2 * np.eye(15))
    ease = -inverse / np.diag(inverse)
    np.fill_diagonal(ease, 0)
    table = WideTable.fit(sequences, 15, replace(WHOLE, history_decay=1.0, target_decay=1.0))
    np.testing.assert_allclose(table.matrix.toarray(), np.maximum(ease, 0), atol=1e-5)
    np.testing.assert_array_equal(table.keys(sequences)[1].sum(1), np.minimum(sequences.lengths(), 4))


def test_recommends_the_known_successor(rng):
    table = WideTable.fit(chain(rng, 300, 50), 50, WideSettings(l2=1.0))
    histories = Ragged.from_rows([[3, 4, 5], [49, 50], [20]])
    scores = table.scores(histories)
    scores[histories.row_of_value(), histories.values - 1] = -np.inf
    assert (scores.argmax(axis=1) + 1).tolist() == [6, 1, 21]


def test_order_of_users_changes_nothing(rng):
    sequences = random_sequences(rng, 60, 30)
    table = WideTable.fit(sequences, 30, WHOLE).matrix.toarray()
    again = WideTable.fit(sequences.take(rng.permutation(60)), 30, WHOLE).matrix.toarray()
    np.testing.assert_allclose(again, table, atol=1e-6)


def test_keys_are_the_last_items_weighted_by_age(rng):
    table = WideTable.fit(random_sequences(rng, 20, 9), 9, replace(WHOLE, lookups=3))
    items, weights = table.keys(Ragged.from_rows([[9, 5, 2, 7], [4], []]))
    assert items.tolist() == [[5, 2, 7], [0, 0, 4], [0, 0, 0]]
    assert weights.tolist() == [[0.25, 0.5, 1], [0, 0, 1], [0, 0, 0]]
    assert items.dtype == np.int64 and weights.dtype == np.float32


def test_scores_are_the_weighted_sum_of_rows_and_padding_has_none(rng):
    table = WideTable.fit(random_sequences(rng, 50, 20), 20, WHOLE)
    scores, rows = table.scores(Ragged.from_rows([[8, 3], [3], []])), by_id(table)[:, 1:]
    np.testing.assert_allclose(scores, [rows[3] + 0.5 * rows[8], rows[3], np.zeros(20)], rtol=1e-6)


def test_rows_keep_their_highest_values(rng):
    sequences = random_sequences(rng, 200, 30)
    whole = by_id(WideTable.fit(sequences, 30, WHOLE))
    cut = WideTable.fit(sequences, 30, replace(WHOLE, max_postings=4))
    assert np.diff(cut.offsets).max() == 4
    for item in range(1, 31):
        kept = cut.items[cut.offsets[item] : cut.offsets[item + 1]]
        assert kept.tolist() == np.sort(np.argsort(-whole[item])[:4]).tolist()


def test_an_item_without_followers_has_an_empty_row():
    table = WideTable.fit(Ragged.from_rows([[1, 2], [1, 2]]), 3, WHOLE)
    assert np.diff(table.offsets).tolist() == [0, 1, 0, 0]


def test_neighbourhoods_come_close_to_the_whole_inverse(rng):
    sequences = Ragged.from_rows((rng.integers(300) + rng.permutation(30)[:12]) % 300 + 1 for _ in range(2000))
    gram = Pairs(sequences, 300).gram(0.8)
    exact = np.linalg.inv(gram.toarray() + 100 * np.eye(300))
    items = np.arange(300)
    error = [np.abs(local_inverse(gram, 100, n)(items).toarray() - exact).max() / exact.max() for n in (4, 16, 64)]
    assert error[0] > error[1] > error[2] and error[2] < 0.02


def test_pairs_are_the_products_of_the_rows_of_the_regression(rng):
    """Items stand in a history more than once here."""
    sequences = Ragged.from_rows(rng.integers(1, 7, length) for length in (1, 9, 4, 12))
    X, Y, sets = [], [], []
    for i in range(len(sequences)):
        row = np.eye(6)[sequences[i] - 1]  # (L, n_items)
        sets.append(row.any(0))
        for position in range(1, len(row)):
            X.append(sum(0.5**age * each for age, each in enumerate(row[:position][::-1][:4])))
            Y.append(sum(0.4**distance * each for distance, each in enumerate(row[position:][:3])))
    X, Y, sets = np.array(X), np.array(Y), np.array(sets, float)
    counted = Pairs(sequences, 6)
    np.testing.assert_allclose(counted.gram(0.5).toarray(), X.T @ X, rtol=1e-6)
    np.testing.assert_allclose(counted.cross(0.5, 0.4).toarray(), X.T @ Y, rtol=1e-6)
    np.testing.assert_array_equal(counted.gram(1).toarray(), sets.T @ sets)
    np.testing.assert_array_equal(counted.cross(1, 1).toarray(), sets.T @ sets * (1 - np.eye(6)))


def test_an_item_whose_system_lacks_dropped_pairs_stands_for_itself():
    gram = sparse.csr_matrix(np.array([[1, 9, 9], [9, 1, 0], [9, 0, 99]], np.float32))
    rows = local_inverse(gram, 1, 1)(np.arange(3)).toarray()
    np.testing.assert_allclose(rows[:2], [[1 / 2, 0, 0], [0, 1 / 2, 0]])
    np.testing.assert_allclose(rows[2, [0, 2]], np.linalg.inv([[2, 9], [9, 100]])[1], rtol=1e-5)


def test_memory_does_not_grow_with_the_square_of_the_catalogue(rng, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS", 16)
    n_items = 4000
    sequences = chain(rng, 50, n_items)
    tracemalloc.start()
    try:
        WideTable.fit(sequences, n_items, replace(WHOLE, neighbours=8))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * n_items**2 / 10  # bytes; of a dense float32 matrix a tenth


def test_the_lightest_pairs_are_dropped_beyond_the_limit(rng, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS", 1)
    sequences = chain(rng, 500, 40)
    whole = Pairs(sequences, 40).cross(0.5, 0)
    monkeypatch.setattr(pairs, "PAIRS", 100)
    cross = Pairs(sequences, 40).cross(0.5, 0)
    assert cross.nnz <= 100 < whole.nnz
    assert Pairs(sequences, 40).gram(1).nnz <= 100  # of whole numbers, many of them equal
    successors = (np.arange(40), (np.arange(40) + 1) % 40)
    np.testing.assert_allclose(cross.toarray()[successors], whole.toarray()[successors])


def test_pairs_are_dropped_whatever_the_number_of_an_item(rng, monkeypatch):
    """The first 40 of 400 items are popular; fewer pairs than the limit are theirs, and those are kept."""
    rows = [rng.permutation(40)[:20] + 1 for _ in range(60)] + [rng.integers(41, 401, 8) for _ in range(100)]
    monkeypatch.setattr(pairs, "ROWS", 20)
    whole = Pairs(Ragged.from_rows(rows), 400).gram(1)
    monkeypatch.setattr(pairs, "PAIRS", 4000)
    kept = Pairs(Ragged.from_rows(rows), 400).gram(1)
    assert 1600 < kept.nnz <= 4000 < whole.nnz
    np.testing.assert_array_equal(kept[:40].toarray(), whole[:40].toarray())


def test_choice_follows_the_data(rng):
    def queries(histories, targets):
        return Queries(Ragged.from_rows(histories), Ragged.from_rows(targets))

    told = {}
    strict = chain(rng, 400, 60)
    valid = queries([row[:-1] for row in strict], [row[-1:] for row in strict])
    best = choose(strict, 60, valid, k=1, tell=told.__setitem__)
    assert told[best] == max(told.values()) == 1

    # the order within a group of ten says nothing, and half of what is taken is chance: the older items tell as much
    groups = 10 * rng.integers(6, size=300)[:, None] + rng.permuted(np.tile(np.arange(1, 11), (300, 1)), axis=1)
    noise = rng.permuted(np.tile(np.arange(61, 121), (300, 1)), axis=1)[:, :5]
    taken = Ragged.from_rows(rng.permuted(np.hstack([groups[:, :5], noise]), axis=1))
    valid = queries(taken, groups[:, 5:]).take(np.arange(100, 300))
    told, taken = {}, taken.take(np.arange(100))
    best = choose(taken, 120, valid, start=WideSettings(0.5), lookups=60, k=5, tell=told.__setitem__)
    assert (best.history_decay, best.target_decay, best.lookups) == (1, 1, 60)
    assert {each.neighbours for each in told if each.history_decay == 1} > {128}
    for each in told:  # what is chosen is what will be read
        if each.history_decay == 1:
            assert told[each] == ndcg_of(WideTable.fit(taken, 120, each).scores(valid.histories), valid, 5)


def test_order_is_doubted_where_the_latest_items_count_most_by_chance():
    """Twenty hits that nearly everybody takes, in any order, and a long tail: the best decay of a history is .8."""
    rng = np.random.default_rng(1)
    takes = rng.random((300, 60)) < np.append(np.linspace(0.95, 0.6, 20), np.full(40, 0.05))
    rows = [rng.permutation(np.flatnonzero(row) + 1) for row in takes]
    taken, told = Ragged.from_rows([row[:-1] for row in rows]), {}
    best = choose(taken, 60, Queries(taken, Ragged.from_rows([row[-1:] for row in rows])), k=5, tell=told.__setitem__)
    ordered = [each for each in told if each.history_decay < 1]
    assert max(ordered, key=told.get).history_decay < ORDER
    assert best.history_decay == 1 and told[best] == max(told.values())


def test_new_items_from_their_first_interactions(rng):
    """Item 51 stands between 10 and 11 with its first users."""
    table = WideTable.fit(chain(rng, 400, 50), 50, replace(WHOLE, max_postings=50))
    first = Ragged.from_rows([[8, 9, 10, 51, 11, 12]] * 12)
    added = table.add_items(first, 51)
    assert table.n_items == 50 and added.n_items == 51
    rows = by_id(added)
    np.testing.assert_array_equal(rows[:51, :51], by_id(table))
    assert rows[51].argmax() == 11  # what it votes for
    assert rows[:, 51].argmax() == 10  # what votes for it
    with pytest.raises(ValueError, match="none can be taken away"):
        added.add_items(first, 50)


def test_new_items_without_order_join_their_group(rng):
    """Users take six of a group's ten items; the new one stands with items 1, 2, 3 and three others of the first."""

    def some_of(items, users, count):
        return rng.permuted(np.tile(items, (users, 1)), axis=1)[:, :count]

    old = np.vstack([some_of(np.arange(1, 11), 100, 6), some_of(np.arange(11, 21), 100, 6)])
    first = np.hstack([np.tile([1, 2, 3, 21], (12, 1)), some_of(np.arange(4, 11), 12, 3)])
    table = WideTable.fit(Ragged.from_rows(old), 20, replace(WHOLE, history_decay=1.0, target_decay=1.0))
    rows = by_id(table.add_items(Ragged.from_rows(first), 21))
    assert set(np.argsort(-rows[21])[:3]) == set(np.argsort(-rows[:, 21])[:3]) == {1, 2, 3}
    assert not rows[21, 11:21].any() and not rows[11:21, 21].any() and rows[1:11, 21].all()


def test_a_new_item_is_told_no_more_of_than_if_it_had_always_been_there(rng):
    """Many old items tell of it, and all the same: counted one by one they made it three times too much."""
    tastes = rng.integers(0, 3, 400)
    rows = [rng.permutation(np.arange(10 * taste + 1, 10 * taste + 13))[:9] for taste in tastes]  # 12 of 32 items
    full = WideTable.fit(Ragged.from_rows(rows), 32, replace(WHOLE, l2=50.0))
    old = WideTable.fit(Ragged.from_rows([row[row < 31] for row in rows]), 30, replace(WHOLE, l2=50.0))
    added = old.add_items(Ragged.from_rows([row for row in rows if (row > 30).any()]), 32)
    asked = Ragged.from_rows([row[row < 31] for row in rows])
    scores, known = added.scores(asked)[:, 30:].mean(0), full.scores(asked)[:, 30:].mean(0)
    assert (scores > 0.5 * known).all() and (scores < 1.5 * known).all()


def test_file_holds_everything(rng, tmp_path):
    table = WideTable.fit(random_sequences(rng, 50, 20), 20, WHOLE).scaled(7.0)
    table.save(tmp_path / "wide.npz")
    again = WideTable.load(tmp_path / "wide.npz")
    assert (again.settings, again.scale) == (table.settings, 7.0)
    for name in ("offsets", "items", "values", "occurrences"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


@pytest.mark.parametrize(
    "wrong",
    [
        {"history_decay": 1.0},
        {"history_decay": 0.0},
        {"target_decay": -0.1},
        {"l2": 0.0},
        {"max_postings": 0},
        {"lookups": 0},
        {"neighbours": None},
        {"neighbours": 2.5},
    ],
)
def test_settings_without_a_table_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        WideSettings(**wrong)
