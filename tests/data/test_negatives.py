"""Every kind of negatives draws as often as it says."""

import numpy as np
import pytest

from data.negatives import NEGATIVES

POPULARITY = np.array([0, 1, 3, 8])


def drawn(kind, positive, count=100_000, power=0.5):
    items, log_expected = NEGATIVES[kind](POPULARITY, count, power).draw(np.random.default_rng(0), positive)
    assert items.dtype == np.int32 and log_expected.dtype == np.float32
    assert items.shape == log_expected.shape
    return items, np.exp(log_expected)


def targets(count):
    return np.random.default_rng(1).choice(4, count, p=POPULARITY / 12).astype(np.int32) + 1


@pytest.mark.parametrize(("power", "weights"), [(0, [1, 1, 1, 1]), (1, [1, 2, 4, 9]), (0.5, [1, 2**0.5, 2, 3])])
def test_popular_items_come_as_often_as_expected_and_evenly_spread(power, weights):
    items, stated = drawn("popular", targets(5), power=power)
    expected = 100_000 * np.array(weights) / np.sum(weights)
    assert np.abs(np.bincount(items, minlength=5)[1:] - expected).max() < 2
    np.testing.assert_allclose(stated, expected[items - 1], rtol=1e-4)


def test_every_target_draws_its_own():
    items, stated = drawn("own", targets(6).reshape(2, 3), count=50_000)
    assert items.shape == (6, 50_000) and (items[0] != items[1]).mean() > 0.3
    expected = 50_000 * np.array([1, 2**0.5, 2, 3]) / (6 + 2**0.5)
    for row in items:
        assert np.abs(np.bincount(row, minlength=5)[1:] - expected).max() < 600
    np.testing.assert_allclose(stated, expected[items - 1], rtol=1e-4)


def test_in_batch_are_the_targets_of_the_other_rows():
    batch = targets(20_000)
    items, stated = drawn("in-batch", batch)
    np.testing.assert_array_equal(items, batch)
    np.testing.assert_allclose(stated, 20_000 * POPULARITY[items - 1] / 12, rtol=1e-5)
    assert np.abs(np.bincount(items, minlength=5)[1:] - 20_000 * POPULARITY / 12).max() < 300


@pytest.mark.parametrize("kind", ["in-batch", "mixed"])
def test_items_are_expected_as_often_as_they_are_targets(kind):
    often = np.array([0, 3, 3, 6])
    draws = [NEGATIVES[kind](POPULARITY, 5, 0.5, each) for each in (None, often)]
    states = [each.draw(np.random.default_rng(0), targets(9)) for each in draws]
    assert (states[0][0] == states[1][0]).all() and (states[0][1] != states[1][1]).any()


@pytest.mark.parametrize("count", [7, 60])
def test_of_rows_with_many_targets_in_batch_draws_as_many_as_asked_and_no_padding(count):
    batch = np.array([[0, 0, 2], [3, 4, 4], [0, 4, 3]], np.int32)
    items, _ = drawn("in-batch", batch, count)
    assert items.shape == (count,) and set(items) <= {2, 3, 4}


def test_mixed_are_expected_from_either_source():
    batch = targets(20_000)
    items, stated = drawn("mixed", batch, count=30_000)
    np.testing.assert_array_equal(items[:20_000], batch)
    often = {item: stated[items == item][0] for item in range(1, 5)}
    found = np.bincount(items, minlength=5)[1:]
    assert np.abs(found - [often[item] for item in range(1, 5)]).max() < 300


def test_all_is_the_catalogue():
    items, stated = drawn("all", targets(5))
    assert items.tolist() == [1, 2, 3, 4] and (stated == 1).all()
