"""Dropout: the right share, pairwise independent, from R + W numbers."""

import mindspore as ms
import numpy as np
import pytest

from models.layers import dropout

SHARE = 0.3


@pytest.fixture(scope="module")
def dropped():
    """Which of (3, 4) places fell, in 20,000 draws of the noise: bool (20000, 3, 4)."""
    rng = np.random.default_rng(0)
    ones = ms.Tensor(np.ones((60_000, 4), np.float32))
    fell = []
    for _ in range(2):  # a batch is many triples of rows with the same columns, so columns must be drawn anew as well
        noise = ms.Tensor(rng.random(60_000, np.float32)), ms.Tensor(rng.random(4, np.float32))
        kept = dropout(ones, noise, SHARE).asnumpy()
        assert set(np.unique(kept)) == {0, np.float32(1 / (1 - SHARE))}
        fell.append(kept == 0)
    return fell


def test_every_place_falls_with_the_share(dropped):
    for fell in dropped:
        np.testing.assert_allclose(fell.mean(0), SHARE, atol=0.01)


def test_two_rows_fall_independently(dropped):
    for fell in dropped:
        both = (fell[0::2] & fell[1::2]).mean(0)
        np.testing.assert_allclose(both, SHARE**2, atol=0.01)


def test_two_columns_fall_independently_over_draws_of_the_columns():
    rng, both = np.random.default_rng(1), []
    for _ in range(1000):
        noise = ms.Tensor(rng.random(1, np.float32)), ms.Tensor(rng.random(2, np.float32))
        both.append((dropout(ms.Tensor(np.ones((1, 2), np.float32)), noise, SHARE).asnumpy() == 0).all())
    assert np.mean(both) == pytest.approx(SHARE**2, abs=0.03)


def test_without_noise_nothing_falls():
    x = ms.Tensor(np.ones((2, 3), np.float32))
    assert (dropout(x, None, SHARE).asnumpy() == 1).all()
