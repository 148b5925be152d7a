"""The recommender loses no accuracy to codes that the build did not foresee, and counts them."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval import IndexRecommender, Pruning, build_index


class Table:
    def __init__(self, table):
        self.table = table
        self.asked = []

    def scores(self, codes):
        self.asked.extend(codes.tolist())
        return self.table[codes]


def queries(codes, histories):
    lengths = [len(one) for one in histories]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.array([item for one in histories for item in one], np.int32)
    histories = SimpleNamespace(offsets=offsets, values=values)
    return SimpleNamespace(codes=np.array(codes), histories=histories)


def encode(queries):
    return queries.codes


@pytest.fixture
def table(rng):
    return np.maximum(rng.normal(size=(20, 30)), 0).astype(np.float32)


def test_missing_codes_are_scored_once_and_counted(table):
    scorer = Table(table)
    index = build_index(scorer, [0, 1, 2], 30, relu=True, progress=False)
    whole = build_index(scorer, range(20), 30, relu=True, progress=False)
    scorer.asked.clear()
    recommender = IndexRecommender(index, encode, scorer)
    one, two = queries([[0, 7], [9, 9]], [[], []]), queries([[1, 2], [7, 11]], [[], []])
    for batch in (one, two, one):
        got = recommender.recommend(batch, 10, exclude_seen=True)
        expected = whole.recommend(batch.codes, 10)
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert scorer.asked == [7, 9, 11]
    assert recommender.scored_codes == 3
    np.testing.assert_array_equal(recommender.extra.codes, [7, 9, 11])
    assert recommender.index is index


def test_missing_codes_are_pruned_like_the_index(table):
    scorer = Table(table)
    options = {"relu": True, "keep_share": 0.2, "max_postings": 4, "progress": False}
    whole = build_index(scorer, range(20), 30, **options)
    part = build_index(scorer, range(0, 20, 2), 30, **options)
    assert part.pruning.threshold is not None
    batch = queries([[1, 3], [5, 8]], [[], []])
    recommender = IndexRecommender(part, encode, scorer)
    recommender.recommend(batch, 5)
    added = recommender.extra
    lengths = np.diff(added.offsets)
    row = np.searchsorted(added.codes, 3)
    kept = added.scores[added.offsets[row] : added.offsets[row + 1]] + added.floors[row]
    assert lengths.max() <= 4 and (kept > part.pruning.threshold).all()
    assert 0 < added.floors[row] < part.pruning.threshold  # the mean of what was left out
    same = IndexRecommender(whole, encode, scorer, Pruning(relu=True))
    assert same.recommend(batch, 5)[0].shape == (2, 5) and same.scored_codes == 0


def test_a_query_that_comes_while_another_is_scored_loses_it_nothing(table):
    """As two threads do that share a recommender: while code 7 is scored another query brings codes 7 and 9 in."""
    index = build_index(Table(table), [0], 30, relu=True, progress=False)
    whole = build_index(Table(table), range(20), 30, relu=True, progress=False)
    one, two = queries([[0, 7]], [[]]), queries([[9, 7]], [[]])
    waiting, answers = [two], []

    class Interrupted(Table):
        def scores(self, codes):
            if waiting:
                answers.append(recommender.recommend(waiting.pop(), 10))
            return super().scores(codes)

    recommender = IndexRecommender(index, encode, Interrupted(table))
    answers.append(recommender.recommend(one, 10))
    for batch, got in zip((two, one), answers, strict=True):
        np.testing.assert_array_equal(got[0], whole.recommend(batch.codes, 10)[0])


def test_without_a_scorer_a_missing_code_is_an_error(table):
    index = build_index(Table(table), [0], 30, relu=True, progress=False)
    with pytest.raises(ValueError, match="Query 1 holds code 4, which is not in the index"):
        IndexRecommender(index, encode).recommend(queries([[0], [4]], [[], []]), 3)


def test_seen_items_are_left_out_only_when_asked(table):
    index = build_index(Table(table), range(20), 30, relu=True, progress=False)
    recommender = IndexRecommender(index, encode)
    best = int(recommender.recommend(queries([[3, 4]], [[]]), 1)[0][0, 0])
    batch = queries([[3, 4]], [[best]])
    assert best not in recommender.recommend(batch, 30, exclude_seen=True)[0]
    assert recommender.recommend(batch, 1, exclude_seen=False)[0][0, 0] == best
