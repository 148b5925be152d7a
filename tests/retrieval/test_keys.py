"""A query is a set of weighted keys: every path answers what a sum of weighted scores in float64 answers."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval import (
    ArrayIndex,
    ArrayLibrary,
    IndexRecommender,
    Pruning,
    ShardedIndex,
    SparseInvertedIndex,
    load_into_milvus,
)
from retrieval.build import build_pruned
from retrieval.search import look_up

N_ITEMS, N_CODES = 70, 24


def table_scorer(table):
    return SimpleNamespace(scores=lambda codes: table[codes])


@pytest.fixture
def table(rng):
    """Eighths, some of them negative: sums with weights in quarters need no rounding, and many are equal."""
    return (rng.integers(-9, 12, (N_CODES, N_ITEMS)) / 8).astype(np.float32)


@pytest.fixture
def index(table):
    """Lists of several lengths; floors as a binary fraction, so that no path has anything to round."""
    floors = np.arange(N_CODES, dtype=np.float32) / 4 - 3
    stored = table - np.float32(0.25)
    lengths = (stored > 0).sum(1)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = (np.nonzero(stored > 0)[1] + 1).astype(np.uint32)
    return SparseInvertedIndex(np.arange(N_CODES) * 5, offsets, items, stored[stored > 0], floors, N_ITEMS)


@pytest.fixture
def keys(rng):
    """Codes with repeats, empty slots, codes of weight 0 that no index knows, and a query of nothing."""
    codes = rng.integers(0, N_CODES, (40, 6)) * 5
    weights = (rng.integers(0, 9, codes.shape) / 4).astype(np.float32)
    codes[:10, 1] = codes[:10, 0]
    codes[10:20, 2] = -1
    codes[20:30, 3], weights[20:30, 3] = 999, 0
    codes[30], weights[31] = -1, 0
    return codes, weights


@pytest.fixture
def seen(rng):
    rows = [rng.integers(0, N_ITEMS + 1, rng.integers(0, 25)) for _ in range(40)]
    offsets = np.cumsum([0, *map(len, rows)])
    return SimpleNamespace(offsets=offsets, values=np.concatenate(rows).astype(np.int32))


def dense(index):
    """What the index stands for: float64 (C, n_items), and which pairs have a posting."""
    scores = np.repeat(index.floors.astype(np.float64)[:, None], index.n_items, 1)
    stored = np.zeros(scores.shape, bool)
    rows = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    scores[rows, index.items - 1] += index.scores
    stored[rows, index.items - 1] = True
    return scores, stored


def brute_force(index, codes, weights, k, seen=None):
    scores, stored = dense(index)
    row_of = {code: row for row, code in enumerate(index.codes.tolist())}
    ids, totals = np.zeros((len(codes), k), np.int32), np.full((len(codes), k), -np.inf)
    for query in range(len(codes)):
        used = [(row_of[c], w) for c, w in zip(codes[query], weights[query], strict=True) if c != -1 and w > 0]
        total, met = np.zeros(index.n_items), np.zeros(index.n_items, bool)
        for row, weight in used:
            total += np.float64(weight) * scores[row]
            met |= stored[row]
        if seen is not None:
            gone = seen.values[seen.offsets[query] : seen.offsets[query + 1]]
            met[gone[gone > 0] - 1] = False
        best = sorted((-total[item], item + 1) for item in np.flatnonzero(met))[:k]
        for at, (minus, item) in enumerate(best):
            ids[query, at], totals[query, at] = item, -minus
    return ids, totals


def assert_same(got, expected):
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("k", [1, 9, N_ITEMS])
def test_every_path_answers_what_brute_force_answers(index, keys, seen, tmp_path, k):
    codes, weights = keys
    for history in (None, seen):
        expected = brute_force(index, codes, weights, k, history)
        assert (expected[0][[30, 31]] == 0).all() and np.isneginf(expected[1][[30, 31]]).all()
        for one in (index, ShardedIndex(index.shard(3)), ArrayIndex.of(index, ArrayLibrary("numpy"))):
            assert_same(one.recommend(codes, k, history, weights), expected)


def test_compact_answers_are_those_of_its_rounded_scores(rng, index, keys, seen):
    codes, weights = keys
    for format in ("uint16", "uint8"):
        compact = index.compact(format)
        got, expected = (one.recommend(codes, 30, seen, weights) for one in (compact, compact.decode()))
        assert_same(got, expected)
        np.testing.assert_allclose(got[1], brute_force(compact.decode(), codes, weights, 30, seen)[1], atol=1e-5)


def test_milvus_answers_as_the_index(index, keys, seen, tmp_path):
    codes, weights = keys
    served = load_into_milvus(index, str(tmp_path / "keys.db"), progress=False)
    try:
        assert_same(served.recommend(codes, 9, seen, weights), index.recommend(codes, 9, seen, weights))
        np.testing.assert_array_equal(served.explain(codes[:2], [[1], [2]]), index.explain(codes[:2], [[1], [2]]))
    finally:
        served.close()


def test_weights_that_need_rounding_differ_from_float64_by_rounding_only(rng):
    table = rng.normal(size=(N_CODES, N_ITEMS)).astype(np.float32)
    index = build_pruned(table_scorer(table), range(N_CODES), N_ITEMS, Pruning(relu=False, max_postings=30))
    codes, weights = rng.integers(0, N_CODES, (50, 8)), rng.random((50, 8)).astype(np.float32)
    got = index.recommend(codes, 10, weights=weights)
    np.testing.assert_allclose(got[1], brute_force(index, codes, weights, 10)[1], atol=1e-5)
    on_array = ArrayIndex.of(index, ArrayLibrary("numpy")).recommend(codes, 10, weights=weights)
    assert_same(on_array, got)  # every bit


def test_all_ones_are_no_weights_at_all_and_repeats_add_up(rng, index):
    codes = rng.integers(0, N_CODES, (60, 5)) * 5
    codes[:30, 1] = codes[:30, 0]
    plain = index.recommend(codes, 20)
    assert_same(index.recommend(codes, 20, weights=np.ones(codes.shape)), plain)
    once, weights = codes[:30].copy(), np.ones((30, 5))
    once[:, 1], weights[:, 0] = -1, 2
    assert_same(index.recommend(once, 20, weights=weights), [part[:30] for part in plain])


def test_the_order_of_keys_changes_no_bit(rng):
    table = rng.normal(size=(N_CODES, N_ITEMS)).astype(np.float32)
    index = build_pruned(table_scorer(table), range(N_CODES), N_ITEMS, Pruning(relu=False, max_postings=30))
    codes = rng.integers(0, 4, (60, 12))  # many repeats, each with a weight of its own
    weights = (rng.random(codes.shape) * 10.0 ** rng.integers(-6, 6, codes.shape)).astype(np.float32)
    expected = index.recommend(codes, 20, weights=weights)
    order = rng.permuted(np.tile(np.arange(12), (60, 1)), axis=1)
    shuffled = [np.take_along_axis(part, order, 1) for part in (codes, weights)]
    for one in (index, ArrayIndex.of(index, ArrayLibrary("numpy"))):
        assert_same(one.recommend(shuffled[0], 20, weights=shuffled[1]), expected)


def test_weights_of_one_key_are_added_from_the_smallest_up():
    """1 + 2^-53 is 1 in float64, and 2^-53 + 2^-53 + 1 is not."""
    tiny = np.float32(2.0**-53)
    for weights in ([1, tiny, tiny], [tiny, 1, tiny], [tiny, tiny, 1]):
        rows, sums = np.zeros(3, np.int64), np.zeros(3)
        assert look_up(np.array([4, 8]), np.array([8, 8, 8]), np.array(weights, np.float32), rows, sums) == 1
        assert rows[0] == 1 and sums[0] == 1 + 2.0**-52


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[1, 1], [1, -0.5]], "Query 1 gives code 5 the weight -0.5; weights are numbers from 0 to 1e.06"),
        ([[np.nan, 1], [1, 1]], "Query 0 gives code 0 the weight nan"),
        ([[1, np.inf], [1, 1]], "Query 0 gives code 5 the weight inf"),
        ([[1, 2e6], [1, 1]], "Query 0 gives code 5 the weight 2000000"),
        ([1, 1], r"numbers of the shape of the codes, \[2, 2\], not int64 of \[2\]"),
        ([["1", "1"], ["1", "1"]], "Weights must be numbers"),
    ],
)
def test_bad_weights_are_refused(index, weights, message):
    for one in (index, index.compact("uint8"), ArrayIndex.of(index, ArrayLibrary("numpy"))):
        with pytest.raises(ValueError, match=message):
            one.recommend([[0, 5], [0, 5]], 3, weights=np.array(weights))


def test_a_code_with_a_weight_must_be_known_and_one_without_need_not(index):
    for one in (index, ArrayIndex.of(index, ArrayLibrary("numpy"))):
        with pytest.raises(ValueError, match="Query 1 holds code 7, which is not in the index"):
            one.recommend([[0, 5], [7, 5]], 3, weights=[[1, 1], [0.5, 1]])
        got = one.recommend([[7, 5]], 3, weights=[[0, 1]])
        assert_same(got, index.recommend([[5]], 3))
        assert not one.recommend([[-1, -1]], 3)[0].any()
    assert index.missing([[-1, 7, 5]]).tolist() == [7]
    nothing = index.only([])
    for one in (nothing, ArrayIndex.of(nothing, ArrayLibrary("numpy"))):
        assert not one.recommend([[-1, 9]], 3, weights=[[1, 0]])[0].any()


def test_a_recommender_takes_weighted_keys_and_scores_what_is_missing(rng, table):
    whole = build_pruned(table_scorer(table), range(N_CODES), N_ITEMS, Pruning(relu=False, max_postings=20))
    some = whole.only([0, 1, 2])
    codes, weights = rng.integers(0, N_CODES, (15, 4)), rng.random((15, 4)).astype(np.float32)
    weights[:, 3], codes[:, 3] = 0, 10**6  # a key that nobody could score
    codes[0] = -1
    queries = SimpleNamespace(histories=None)
    recommender = IndexRecommender(some, lambda _: (codes, weights), table_scorer(table))
    got = recommender.recommend(queries, 12, exclude_seen=False)
    assert_same(got, whole.recommend(codes, 12, weights=weights))
    asked = codes[1:, :3]
    assert recommender.scored_codes == len(set(asked[asked > 2]))
    keys, shares = recommender.explain(queries, got[0])
    assert (keys[:, 3] == -1).all() and (keys[0] == -1).all()
    np.testing.assert_allclose(shares.sum(2)[got[0] > 0], got[1][got[0] > 0], atol=1e-5)


def test_codes_that_an_index_of_two_kinds_lacks_are_cut_as_its_codes(rng, table):
    pruning = Pruning(relu=True, threshold=0.25, max_postings=20)
    codes = build_pruned(table_scorer(np.maximum(table, 0)), range(N_CODES), N_ITEMS, pruning)
    items = build_pruned(
        SimpleNamespace(scores=lambda keys: -table[keys - 100]),
        range(100, 100 + N_CODES),
        N_ITEMS,
        Pruning(relu=False, max_postings=4),
    )
    keys = np.hstack([rng.integers(0, N_CODES, (15, 3)), rng.integers(100, 100 + N_CODES, (15, 5))])
    weights = rng.random(keys.shape).astype(np.float32)
    part = codes.only([0, 1, 2]).extend(items)
    recommender = IndexRecommender(part, lambda _: (keys, weights), table_scorer(np.maximum(table, 0)))
    got = recommender.recommend(None, 9, exclude_seen=False)
    assert_same(got, codes.extend(items).recommend(keys, 9, weights=weights))
    assert recommender.scored_codes > 5


# --- why this item


def test_shares_are_exact_and_sum_up_to_the_score(index, keys):
    codes, weights = keys
    for one in (
        index,
        index.compact("uint8"),
        ShardedIndex(index.shard(4)),
        ArrayIndex.of(index, ArrayLibrary("numpy")),
    ):
        ids, scores = one.recommend(codes, 12, weights=weights)
        shares = one.explain(codes, ids, weights)
        assert shares.shape == (40, 12, 6) and shares.dtype == np.float64
        np.testing.assert_allclose(shares.sum(2)[ids > 0], scores[ids > 0], rtol=1e-6, atol=1e-6)
        assert not shares[ids == 0].any() and not shares[30].any()
    scores, _ = dense(index)
    by_hand = weights[3, 4].astype(np.float64) * scores[codes[3, 4] // 5, [4, 60]]
    np.testing.assert_array_equal(index.explain(codes[3:4], [[5, 61]], weights[3:4])[0, :, 4], by_hand)


def test_shares_of_items_without_a_posting_are_floors(index):
    empty = SparseInvertedIndex([4], [0, 0], np.zeros(0, np.uint32), np.zeros(0, np.float32), np.float32([-2]), 9)
    np.testing.assert_array_equal(empty.explain([[4, 4]], [[1, 9, 0]], [[0.5, 1]]), [[[-1, -2], [-1, -2], [0, 0]]])


@pytest.mark.parametrize(
    ("codes", "items", "message"),
    [
        ([[0]], [[71]], "Item 71 is outside the items 1..70"),
        ([[0]], [1, 2], "Items to explain must have the shape"),
        ([[0]], [[1], [2]], "Items to explain must have the shape"),
        ([[3]], [[1]], "Code 3 is not in the index"),
    ],
)
def test_what_can_not_be_explained_is_refused(index, codes, items, message):
    with pytest.raises(ValueError, match=message):
        index.explain(codes, items)
