"""The index answers exactly what a scan of all items answers, and refuses what it can't answer."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval import Pruning, SparseInvertedIndex, build_index
from retrieval.sizes import gini


class Table:
    """A scorer that reads code x item scores from a table; code c is row c."""

    def __init__(self, table):
        self.table = np.asarray(table, np.float32)

    def scores(self, codes):
        return self.table[codes]


def rows(lists):
    lengths = [len(one) for one in lists]
    return SimpleNamespace(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        values=np.array([item for one in lists for item in one], np.int32),
    )


def brute_force(table, codes, k, seen, reachable=None):
    """One item at a time: sum over the query's codes, sort by (-score, id), leave out the seen."""
    ids = np.zeros((len(codes), k), np.int32)
    scores = np.full((len(codes), k), -np.inf, np.float32)
    for u, query in enumerate(codes):
        ranked = []
        for item in range(1, table.shape[1] + 1):
            if item in seen[u] or (reachable is not None and not reachable[query, item - 1].any()):
                continue
            total = np.float32(0)
            for code in sorted(query):
                total += table[code, item - 1]
            ranked.append((-total, item))
        for slot, (minus, item) in enumerate(sorted(ranked)[:k]):
            ids[u, slot], scores[u, slot] = item, -minus
    return ids, scores


def grid(rng, shape, low, high):
    """Scores in eighths: float32 adds them without rounding, and many sums are equal."""
    return (rng.integers(low, high, shape) / 8).astype(np.float32)


def index_of(table, relu, **options):
    return build_index(Table(table), np.arange(len(table)), table.shape[1], relu=relu, progress=False, **options)


@pytest.mark.parametrize("k", [1, 7, 60])  # 60 is the whole catalogue
@pytest.mark.parametrize("with_seen", [False, True])
def test_relu_index_equals_brute_force_with_ties(rng, k, with_seen):
    table = np.maximum(grid(rng, (20, 60), -24, 12), 0)
    codes = rng.integers(0, 20, (150, 4))  # 150 queries: several tasks of the thread pool
    codes[:20, 1:] = codes[:20, :1]  # one code four times
    codes[20:40, 2] = codes[20:40, 0]
    seen = [rng.choice(60, rng.integers(0, 60), False) + 1 if with_seen else [] for _ in codes]
    ids, scores = index_of(table, relu=True).recommend(codes, k, seen=rows(seen), threads=2)
    expected_ids, expected_scores = brute_force(table, codes, k, seen, reachable=table > 0)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_array_equal(scores, expected_scores)
    assert (ids.dtype, scores.dtype) == (np.int32, np.float32)


@pytest.mark.parametrize("k", [1, 10, 50])
def test_plain_sum_index_equals_brute_force(rng, k):
    table = rng.normal(-1, 2, (16, 50)).astype(np.float32)  # most scores are negative
    codes = rng.integers(0, 16, (80, 3))
    codes[:10] = codes[:10, :1]
    seen = [rng.choice(50, rng.integers(0, 20), False) + 1 for _ in codes]
    index = index_of(table, relu=False)
    assert index.statistics()["sparsity"] == 0  # every item has a posting, the worst one too
    ids, scores = index.recommend(codes, k, seen=rows(seen))
    expected_ids, expected_scores = brute_force(table, codes, k, seen)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 50, 127, 200, 900])
@pytest.mark.parametrize("levels", [3, 3000])
def test_more_candidates_than_are_collected_at_once(rng, k, levels):
    """What is collected is cut back to its best k many times, by scores with many ties and few."""
    table = grid(rng, (12, 2500), -levels, levels).clip(0)
    codes = rng.integers(0, 12, (6, 4))
    got = index_of(table, relu=True).recommend(codes, k)
    for a, b in zip(got, brute_force(table, codes, k, [()] * 6), strict=True):
        np.testing.assert_array_equal(a, b)


def test_of_equal_scores_the_lower_id_wins_though_it_comes_last():
    """The lists of ascending codes are walked one after the other; the second one holds lower ids."""
    table = np.zeros((2, 1000), np.float32)
    table[0, 500:] = table[1, :500] = 1
    ids, _ = index_of(table, relu=True).recommend([[0, 1]], 40)
    assert ids[0].tolist() == list(range(1, 41))


def test_plain_sum_index_holds_constant_and_zero_rows():
    table = np.array([[0, 0, 0], [-5, -5, -5], [1e-30, 0, 0]], np.float32)
    ids, scores = index_of(table, relu=False).recommend([[0, 0], [0, 1], [2, 2]], 3)
    np.testing.assert_array_equal(ids, [[1, 2, 3], [1, 2, 3], [1, 2, 3]])
    np.testing.assert_allclose(scores, [[0, 0, 0], [-5, -5, -5], [0, 0, 0]], atol=1e-5)


def test_returned_scores_never_rise_and_ties_ascend(rng):
    """On the scores as returned: large floors round many sums to the same float32."""
    table = (rng.normal(0, 1e-3, (12, 400)) - 1000).astype(np.float32)
    ids, scores = index_of(table, relu=False).recommend(rng.integers(0, 12, (64, 4)), 400)
    step = np.diff(scores)
    assert (step <= 0).all() and (step == 0).any()
    assert (np.diff(ids)[step == 0] > 0).all()


def test_order_of_tokens_and_of_queries_changes_nothing(rng):
    table = np.maximum(rng.normal(0, 1, (30, 200)), 0).astype(np.float32)
    index = index_of(table, relu=True)
    codes = rng.integers(0, 30, (300, 5))
    ids, scores = index.recommend(codes, 20)
    shuffled = rng.permutation(300)
    ids2, scores2 = index.recommend(codes[shuffled][:, ::-1], 20, threads=1)
    np.testing.assert_array_equal(ids[shuffled], ids2)
    np.testing.assert_array_equal(scores[shuffled], scores2)
    for u in range(0, 300, 50):
        one_ids, one_scores = index.recommend(codes[u : u + 1], 20)
        np.testing.assert_array_equal(one_ids[0], ids[u])
        np.testing.assert_array_equal(one_scores[0], scores[u])


def test_only_items_with_a_posting_and_empty_slots():
    table = np.array([[0, 2, 0, 1], [0, 0, 0, 0]], np.float32)
    ids, scores = index_of(table, relu=True).recommend([[0, 1], [1, 1]], 4)
    np.testing.assert_array_equal(ids, [[2, 4, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(scores[0], [2, 1, -np.inf, -np.inf])
    assert np.isneginf(scores[1]).all()


def test_nothing_leaks_from_one_query_into_the_next():
    table = np.array([[3, 2, 1, 0], [0, 0, 1, 2]], np.float32)
    index = index_of(table, relu=True)
    masked = rows([[1], [], [4]])
    ids, _ = index.recommend([[0], [1], [1]], 4, seen=masked, threads=1)
    np.testing.assert_array_equal(ids, [[2, 3, 0, 0], [4, 3, 0, 0], [3, 0, 0, 0]])
    with pytest.raises(ValueError, match="history of query 1 holds item 9"):
        index.recommend([[0], [1]], 2, seen=rows([[], [9]]), threads=1)
    np.testing.assert_array_equal(index.recommend([[1]], 4)[0], [[4, 3, 0, 0]])


def test_padding_in_the_history_is_ignored(rng):
    table = np.maximum(rng.normal(size=(3, 9)), 0).astype(np.float32)
    index = index_of(table, relu=True)
    plain = index.recommend([[0, 2]], 9, seen=rows([[4]]))[0]
    np.testing.assert_array_equal(index.recommend([[0, 2]], 9, seen=rows([[0, 4, 0]]))[0], plain)


def test_no_queries(rng):
    ids, scores = index_of(np.eye(3, dtype=np.float32), True).recommend(np.zeros((0, 2), int), 2)
    assert ids.shape == scores.shape == (0, 2)


def test_missing_and_extend_equal_a_build_of_all(rng):
    table = np.maximum(rng.normal(size=(12, 30)), 0).astype(np.float32)
    some = np.array([1, 4, 5, 11])
    index = build_index(Table(table), some, 30, relu=True, progress=False)
    query = rng.integers(0, 12, (40, 3))
    missing = index.missing(query)
    np.testing.assert_array_equal(missing, sorted(set(query.ravel()) - set(some)))
    with pytest.raises(ValueError, match=r"code \d+, which is not in the index"):
        index.recommend(query, 5)
    both = index.extend(build_index(Table(table), missing, 30, relu=True, progress=False))
    whole = index_of(table, relu=True)
    for got, expected in zip(both.recommend(query, 9), whole.recommend(query, 9), strict=True):
        np.testing.assert_array_equal(got, expected)
    for name in ("codes", "offsets", "items", "scores", "floors"):
        np.testing.assert_array_equal(getattr(both, name), getattr(whole, name))
    assert len(index) == 4  # extend leaves the index it is called on alone
    with pytest.raises(ValueError, match="Both indexes hold code"):
        both.extend(index)
    with pytest.raises(ValueError, match="30 items can't be extended by one of 31"):
        both.extend(index_of(np.eye(1, 31), relu=True))


def test_statistics_by_hand():
    table = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], np.float32)
    statistics = index_of(table, relu=True).statistics()
    assert statistics["codes"] == 3 and statistics["postings"] == 4
    assert statistics["sparsity"] == pytest.approx(1 - 4 / 12)
    assert statistics["bytes"] == 3 * 8 + 4 * 8 + 4 * 4 + 4 * 4 + 2 * 3 * 4
    lengths = [statistics[f"postings_{name}"] for name in ("min", "median", "max")]
    assert lengths == [0, 1, 3]
    assert statistics["postings_gini"] == pytest.approx(0.5)
    assert gini([5, 5, 5]) == 0 and gini([0, 0, 0, 9]) == pytest.approx(0.75)


@pytest.mark.parametrize("k", [0, -1, 5, 2.0, True, None])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the 4 items"):
        index_of(np.eye(4, dtype=np.float32), relu=True).recommend([[0]], k)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0.0, 1.0]], "must be integers"),
        ([[np.nan]], "must be integers"),
        ([0, 1], "must have the shape"),
        (np.zeros((2, 0), int), "must have the shape"),
        ([[0, 4]], "Query 0 holds code 4"),
        ([[0, 1], [-2, 0]], "Query 1 holds code -2"),
        ([[2**63 - 1, 0]], "Query 0 holds code 9223372036854775807"),
        (np.array([[2**63]], np.uint64), "must be integers"),
    ],
)
def test_bad_query_codes_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        index_of(np.eye(4, dtype=np.float32), relu=True).recommend(codes, 2)


@pytest.mark.parametrize(
    ("offsets", "values", "message"),
    [
        ([0, 1], [1], "2 queries need 3 offsets"),
        ([0, 1, 3], [1], "must rise within 0..1"),
        ([0, 2, 1], [1, 2], "must rise within"),
        ([-1, 0, 1], [1], "must rise within"),
        ([0, 1, 2], [1, -3], "history of query 1 holds item -1"),
        ([0, 1, 2], [5, 1], "history of query 0 holds item 5"),
        ([0, 0, 1], [2**40], "history of query 1 holds item"),
        ([0, 0, 1], [1.5], "must be integers"),
    ],
)
def test_bad_histories_are_refused(offsets, values, message):
    seen = SimpleNamespace(offsets=np.array(offsets), values=np.array(values))
    with pytest.raises(ValueError, match=message):
        index_of(np.eye(4, dtype=np.float32), relu=True).recommend([[0], [1]], 2, seen=seen)


ARRAYS = {
    "codes": np.array([3, 8], np.int64),
    "offsets": np.array([0, 2, 3], np.int64),
    "items": np.array([1, 4, 2], np.uint32),
    "scores": np.array([1, 2, 3], np.float32),
    "floors": np.array([0, -1], np.float32),
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("codes", np.array([8, 3], np.int64), "ascending"),
        ("codes", np.array([3, 3], np.int64), "only once"),
        ("codes", np.array([-3, 3], np.int64), "non-negative"),
        ("codes", np.array([3.0, 8.0]), "one row of int64"),
        ("codes", np.array([[3, 8]], np.int64), "one row of int64"),
        ("offsets", np.array([0, 3], np.int64), "fit together in length"),
        ("offsets", np.array([0, 2, 4], np.int64), "rise from 0"),
        ("offsets", np.array([0, 4, 3], np.int64), "rise from 0"),
        ("offsets", np.array([1, 2, 3], np.int64), "rise from 0"),
        ("items", np.array([1, 5, 2], np.uint32), "code 3 is wrong: an item id is outside"),
        ("items", np.array([1, 4, 0], np.uint32), "code 8 is wrong: an item id is outside"),
        ("items", np.array([4, 1, 2], np.uint32), "its item ids don't ascend"),
        ("items", np.array([4, 4, 2], np.uint32), "its item ids don't ascend"),
        ("scores", np.array([1, np.nan, 3], np.float32), "a score is not a positive number"),
        ("scores", np.array([1, np.inf, 3], np.float32), "a score is not a positive number"),
        ("scores", np.array([1, 0, 3], np.float32), "a score is not a positive number"),
        ("scores", np.array([1, -2, 3], np.float32), "a score is not a positive number"),
        ("scores", np.array([1, 2], np.float32), "fit together in length"),
        ("floors", np.array([0, np.nan], np.float32), "Floors must be numbers"),
        ("floors", np.array([0, -np.inf], np.float32), "Floors must be numbers"),
        ("n_items", 0, "items, not 0"),
        ("n_items", 2**31, "items, not 2147483648"),
    ],
)
def test_arrays_that_are_no_index_are_refused(name, value, message):
    good = {**ARRAYS, "n_items": 4}
    assert len(SparseInvertedIndex(**good)) == 2
    with pytest.raises(ValueError, match=message):
        SparseInvertedIndex(**{**good, name: value})


def test_floors_count_for_every_item():
    """score = floor + stored, or the floor alone; -1 is the floor of code 8."""
    index = SparseInvertedIndex(**ARRAYS, n_items=4)
    ids, scores = index.recommend([[3, 8, 8]], 4)
    np.testing.assert_array_equal(ids, [[2, 4, 1, 0]])
    np.testing.assert_array_equal(scores, np.array([[4, 0, -1, -np.inf]], np.float32))


def test_an_index_without_codes(tmp_path):
    index = index_of(np.eye(3), relu=True).only([])
    index.save(tmp_path / "index")
    for one in (index, SparseInvertedIndex.load(tmp_path / "index")):
        assert one.statistics()["postings"] == 0
        np.testing.assert_array_equal(one.missing([[2, 1, 1]]), [1, 2])
        with pytest.raises(ValueError, match="holds code 1"):
            one.recommend([[1]], 1)


def test_the_arrays_are_read_only():
    index = SparseInvertedIndex(**ARRAYS, n_items=4)
    with pytest.raises(ValueError, match="read-only"):
        index.scores[0] = 9


@pytest.mark.parametrize("options", [{"max_postings": 0}, {"threshold": np.nan}])
def test_bad_pruning_is_refused(options):
    with pytest.raises(ValueError, match="must be"):
        Pruning(**options)
