"""Pruning keeps what it says it keeps, and bad scores never get into an index."""

import numpy as np
import pytest

from retrieval import Pruning, build_index
from retrieval.build import build_pruned, choose_threshold


class Table:
    def __init__(self, table):
        self.table = np.asarray(table)
        self.asked = []

    def scores(self, codes):
        self.asked.append(len(codes))
        return self.table[codes]


def dense(index):
    """The scores the index stands for, floor + stored [codes, items]; which pairs are stored."""
    scores = np.repeat(index.floors[:, None], index.n_items, axis=1)
    stored = np.zeros(scores.shape, bool)
    for row in range(len(index)):
        part = slice(index.offsets[row], index.offsets[row + 1])
        scores[row, index.items[part] - 1] += index.scores[part]
        stored[row, index.items[part] - 1] = True
    return scores, stored


def build(table, relu, **options):
    scorer = Table(np.asarray(table, np.float32))
    return build_index(scorer, np.arange(len(table)), len(table[0]), relu=relu, progress=False, **options)


def test_relu_stores_exactly_the_positive_scores(rng):
    table = np.maximum(rng.normal(-1, 1, (40, 70)), 0).astype(np.float32)
    index = build(table, relu=True)
    scores, stored = dense(index)
    np.testing.assert_array_equal(scores, table)
    np.testing.assert_array_equal(stored, table > 0)
    assert not index.floors.any()


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_change_nothing(rng, block):
    table = rng.normal(size=(25, 30)).astype(np.float32)
    scorer = Table(table)
    index = build_index(scorer, range(25), 30, relu=False, block=block, progress=False)
    np.testing.assert_allclose(dense(index)[0], table, atol=1e-6)
    assert max(scorer.asked) == min(block, 25)


def test_codes_in_any_order_and_repeated(rng):
    table = np.maximum(rng.normal(size=(9, 5)), 0).astype(np.float32)
    index = build_index(Table(table), [7, 2, 2, 5], 5, relu=True, progress=False)
    np.testing.assert_array_equal(index.codes, [2, 5, 7])
    np.testing.assert_array_equal(dense(index)[0], table[[2, 5, 7]])


@pytest.mark.parametrize("relu", [True, False])
def test_cap_keeps_the_best_and_their_order(rng, relu):
    table = rng.permuted(np.arange(1, 61) / 8, axis=0) * np.ones((20, 1), np.float32)
    table = rng.permuted(table, axis=1).astype(np.float32) - (0 if relu else 5)
    index = build(table, relu, max_postings=10)
    scores, stored = dense(index)
    best = table > np.sort(table, axis=1)[:, [-11]]
    assert (stored.sum(axis=1) == 10).all()
    np.testing.assert_array_equal(stored, best)
    np.testing.assert_allclose(scores[best], table[best], atol=1e-6)
    rest = np.where(best, 0, table).sum(axis=1) / 50
    np.testing.assert_allclose(index.floors, rest, atol=1e-6)  # the mean of what was left out


def test_a_cap_above_the_positive_scores_cuts_nothing(rng):
    table = np.maximum(rng.normal(-2, 1, (20, 60)), 0).astype(np.float32)
    np.testing.assert_array_equal(dense(build(table, True, max_postings=40))[0], table)
    np.testing.assert_array_equal(dense(build(table, True, max_postings=60))[0], table)


def test_a_tie_at_the_cap_is_cut_whole():
    index = build([[4, 3, 2, 2, 2, 1]], relu=True, max_postings=3)
    np.testing.assert_array_equal(index.items, [1, 2])
    np.testing.assert_array_equal(dense(index)[0], [[4, 3, 1.75, 1.75, 1.75, 1.75]])


@pytest.mark.parametrize("relu", [True, False])
def test_a_row_without_differences_has_no_postings_under_a_cap(relu):
    index = build([[0.1, 0.1, 0.1], [0.3, 0.2, 0.1]], relu, max_postings=2)
    np.testing.assert_array_equal(np.diff(index.offsets), [0, 2])
    np.testing.assert_allclose(dense(index)[0], [[0.1, 0.1, 0.1], [0.3, 0.2, 0.1]], atol=1e-7)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
def test_keep_share_keeps_that_share(rng, relu, share):
    table = rng.normal(size=(50, 400)).astype(np.float32)
    if relu:
        table = np.maximum(table, 0)
    index = build(table, relu, keep_share=share)
    assert len(index.items) == round(share * table.size)  # the sample is all of this small index
    scores, stored = dense(index)
    np.testing.assert_array_equal(stored, table > np.float32(index.pruning.threshold))
    np.testing.assert_allclose(scores[stored], table[stored], atol=1e-6)
    rest = np.where(stored, 0, table).sum(axis=1) / (~stored).sum(axis=1)
    np.testing.assert_allclose(index.floors, rest, atol=1e-6)


def test_a_row_that_the_threshold_leaves_whole(rng):
    """Nothing was left out of it, so nothing says what its floor should be but its own lowest."""
    table = np.stack([np.arange(4) + 10, np.arange(4)]).astype(np.float32)
    index = build_pruned(Table(table), [0, 1], 4, Pruning(relu=False, threshold=1.0))
    np.testing.assert_array_equal(np.diff(index.offsets), [4, 2])
    np.testing.assert_allclose(dense(index)[0], [[10, 11, 12, 13], [0.5, 0.5, 2, 3]], atol=1e-4)
    index = build_pruned(Table(table), [0, 1], 4, Pruning(relu=True, threshold=1.0))
    np.testing.assert_array_equal(index.floors, [0, 0.5])


def test_keep_share_of_a_sample_is_close(rng, monkeypatch):
    monkeypatch.setattr("retrieval.build.SAMPLE_CODES", 64)
    table = rng.normal(size=(2000, 200)).astype(np.float32)
    index = build(table, relu=False, keep_share=0.1)
    assert index.statistics()["sparsity"] == pytest.approx(0.9, abs=0.01)


def test_keep_share_above_what_is_positive_cuts_nothing(rng):
    table = np.maximum(rng.normal(-1, 1, (30, 100)), 0).astype(np.float32)
    index = build(table, relu=True, keep_share=0.9)
    assert index.pruning.threshold is None
    np.testing.assert_array_equal(dense(index)[0], table)
    assert choose_threshold(Table(table), np.arange(30), 100, False, 1.0) is None


def test_later_codes_are_cut_alike(rng):
    table = rng.normal(size=(40, 100)).astype(np.float32)
    index = build(table, relu=False, keep_share=0.1, max_postings=8)
    again = build_pruned(Table(table), [3, 17], 100, index.pruning)
    np.testing.assert_array_equal(dense(again)[0], dense(index)[0][[3, 17]])


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (np.zeros((3, 4)), {"relu": True}, "Every score is 0: the score_bias silences all items"),
        (np.ones((3, 4)), {"relu": False, "max_postings": 2}, "all items score alike"),
        (np.ones((3, 4)), {"relu": False, "keep_share": 0.5}, "No score is above the threshold 1"),
        (np.ones((0, 4)), {"relu": True}, "There are no codes"),
        (np.ones((3, 0)), {"relu": True}, "n_items is 0"),
    ],
)
def test_an_index_of_nothing_is_refused(table, options, message):
    with pytest.raises(ValueError, match=message):
        build_index(Table(table.astype(np.float32)), range(len(table)), table.shape[1], progress=False, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
def test_scores_that_are_no_numbers_are_refused(bad):
    table = np.ones((3, 4), np.float32)
    table[1, 2] = bad
    with pytest.raises(ValueError, match="score of code 1 and item 3 is"):
        build(table, relu=False)
    with pytest.raises(ValueError, match="score of code 1 and item 3 is"):
        build(table, relu=False, keep_share=0.5)


def test_negative_scores_are_refused_where_relu_was_promised():
    with pytest.raises(ValueError, match="must return ReLU"):
        build([[1, -0.5]], relu=True)


@pytest.mark.parametrize("table", [np.ones((3, 5), np.float32), np.ones((3, 4), int)])
def test_a_scorer_of_another_shape_or_type_is_refused(table):
    with pytest.raises(ValueError, match="The scorer returned"):
        build_index(Table(table), [0, 1, 2], 4, relu=True, progress=False)


@pytest.mark.parametrize("codes", [[0.5], [-1], ["a"]])
def test_bad_codes_are_refused(codes):
    with pytest.raises(ValueError, match="non-negative integers"):
        build_index(Table(np.ones((1, 4), np.float32)), codes, 4, relu=True, progress=False)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_bad_shares_are_refused(share):
    with pytest.raises(ValueError, match="keep_share"):
        build([[1, 2]], relu=True, keep_share=share)


def test_progress_goes_to_standard_error_in_plain_lines_where_that_is_no_terminal(capfd, monkeypatch):
    table = np.ones((4, 3), np.float32)
    quiet = build(table, relu=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("retrieval.blocks.QUIET", -1.0)
    monkeypatch.setattr("retrieval.blocks.EVERY", -1.0)
    loud = build_index(Table(table), range(4), 3, relu=True, block=2, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and err == "index: 0 of 4 codes\nindex: 2 of 4 codes\n"
    np.testing.assert_array_equal(dense(quiet)[0], dense(loud)[0])
