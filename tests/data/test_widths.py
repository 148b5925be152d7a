import numpy as np
import pytest

from data import widths
from data.batches import TrainingSequences
from data.ragged import Ragged


@pytest.fixture
def short(monkeypatch):
    """100 sequences of up to 12 items and 20 longer ones; so few places count as many."""
    monkeypatch.setattr(widths, "LONG", 0)
    rng = np.random.default_rng(0)
    lengths = np.concatenate([rng.integers(1, 6, 60), rng.integers(6, 13, 40), rng.integers(20, 50, 20)])
    return TrainingSequences(Ragged.from_lengths(lengths, np.arange(1, lengths.sum() + 1)), int(lengths.sum()))


def test_a_window_is_as_narrow_as_its_user_allows(monkeypatch):
    monkeypatch.setattr(widths, "LONG", 0)
    targets, windows = np.array([0, 1, 3, 4, 5, 6, 7, 11, 23]), np.array([0, 50, 50, 1, 1, 1, 1, 1, 2])
    assert widths.widths(targets, windows, 11).tolist() == [3, 3, 3, 6, 6, 6, 11, 11, 11]


@pytest.mark.parametrize(("few", "many"), [(0, 20), (widths.LONG // 20 - 30, 9)])
def test_one_width_where_little_is_saved(few, many):
    targets = np.concatenate([np.full(few, 4), np.full(20, 15), np.full(many, 4)])
    assert set(widths.widths(targets, np.ones(len(targets), int), 20)) == {20}
    more = np.concatenate([targets, np.full(widths.LONG // 20, 4)])
    assert set(widths.widths(more, np.ones(len(more), int), 20)) == {5, 20}


@pytest.mark.parametrize("batch_size", [2, 3, 8, 1000])
def test_every_window_stands_in_one_batch_that_has_its_share_of_each_width(batch_size):
    width = np.repeat([20, 10, 5], [31, 7, 120])
    found = widths.batches(np.random.default_rng(0), width, batch_size)
    shapes = widths.shapes(width, batch_size)
    assert [each for _, each in shapes] == [20, 10, 5]
    assert found.shape == (-(-158 // batch_size), sum(rows for rows, _ in shapes))
    assert min(batch_size, 158) <= found.shape[1] <= min(batch_size + 2, 158)
    assert sorted(found[found < 158]) == list(range(158)) and (found[found >= 158] == 158).all()
    at = np.repeat([20, 10, 5], [rows for rows, _ in shapes])
    assert (width[found[found < 158]] == np.broadcast_to(at, found.shape)[found < 158]).all()


def test_one_width_is_a_plain_shuffle_with_padding_last():
    found = widths.batches(np.random.default_rng(3), np.full(10, 7), 4)
    shuffled = np.random.default_rng(3).permutation(12).reshape(3, 4).tolist()
    assert found.tolist() == [[n for n in row if n < 10] + [10] * sum(n >= 10 for n in row) for row in shuffled]


def test_short_sequences_as_narrow_rows_teach_the_same_targets(short):
    found = list(short.epoch(np.random.default_rng(1), 8, 20, 7, 10**6, 0.5, all_positions=True))
    assert len(found) == short.steps(8, 10**6, all_positions=True, seq_len=20)
    assert {batch.shapes for batch in found} == {((3, 20), (2, 10), (4, 5))}
    positive = np.concatenate([batch.positive[batch.positive > 0] for batch in found])
    whole = np.concatenate([row[1:] for row in short.sequences])
    assert sorted(positive) == sorted(whole)
    for batch in found:
        assert batch.positive.shape == batch.history.shape == (9, 20)
        has = batch.positive > 0
        assert (batch.history[has] == batch.positive[has] - 1).all()  # the items rise by one
        assert not batch.history[3:, :10].any() and not batch.history[5:, :15].any()
        assert widths.places(batch.positive, batch.shapes).shape == (3 * 20 + 2 * 10 + 4 * 5, 1)
        assert (widths.places(batch.positive, batch.shapes)[-5:, 0] == batch.positive[-1, -5:]).all()
    every = short.targets_per_batch(8, 10**6, all_positions=True, seq_len=20)
    assert every == pytest.approx(len(whole) / len(found))
