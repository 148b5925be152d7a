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
def test_every_window_stands_in_one_batch_that_it_fits(batch_size):
    width = np.repeat([20, 10, 5], [31, 7, 120])
    found = widths.batches(np.random.default_rng(0), width, batch_size)
    assert len(found) == widths.steps(width, batch_size) == pytest.approx(158 / batch_size, rel=0.15, abs=1)
    rows = np.concatenate([row for row, _ in found])
    assert sorted(rows) == list(range(len(rows)))
    places = batch_size * width.mean()
    for row, wide in found:
        assert len(row) == pytest.approx(places / wide, abs=0.5)
        real = row[row < len(width)]
        assert len(real) and width[real].max() == wide  # no batch is wider than it need be
    spread = [np.count_nonzero(row < len(width)) for row, wide in found if wide == 5]
    assert not spread or min(spread) > 0.3 * max(spread)  # what is missing is missing everywhere


def test_one_width_is_a_plain_shuffle():
    found = widths.batches(np.random.default_rng(3), np.full(10, 7), 4)
    assert np.array_equal(np.concatenate([row for row, _ in found]), np.random.default_rng(3).permutation(12))


def test_wide_and_narrow_batches_come_by_turns():
    order = [wide for _, wide in widths.batches(np.random.default_rng(0), np.repeat([20, 5], [400, 1600]), 20)]
    assert order.count(20) == order.count(5) == 50  # 8 and 32 windows
    assert 15 < order[:50].count(20) < 35 and order[:4] != order[46:50]


def test_short_sequences_in_narrow_batches_teach_the_same_targets(short):
    found = list(short.epoch(np.random.default_rng(1), 8, 20, 7, 10**6, 0.5, all_positions=True))
    assert len(found) == short.steps(8, 10**6, all_positions=True, seq_len=20)
    assert {batch.history.shape for batch in found} == {(5, 20), (9, 10), (19, 5)}
    positive = np.concatenate([batch.positive[batch.positive > 0] for batch in found])
    whole = np.concatenate([row[1:] for row in short.sequences])
    assert sorted(positive) == sorted(whole)
    for batch in found:
        assert batch.positive.shape == batch.history.shape
        has = batch.positive > 0
        assert (batch.history[has] == batch.positive[has] - 1).all()  # the items rise by one
    every = short.targets_per_batch(8, 10**6, all_positions=True, seq_len=20)
    assert every == pytest.approx(len(whole) / len(found))
