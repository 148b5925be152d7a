"""Dropout: the right share, pairwise independent, from R + W numbers. Layers with written gradients: the right ones."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from models.layers import LayerNorm, SquaredNorm, dropout, summed

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
    for _ in range(300):
        noise = ms.Tensor(rng.random(1, np.float32)), ms.Tensor(rng.random(2, np.float32))
        both.append((dropout(ms.Tensor(np.ones((1, 2), np.float32)), noise, SHARE).asnumpy() == 0).all())
    assert np.mean(both) == pytest.approx(SHARE**2, abs=0.06)


def test_without_noise_nothing_falls():
    x = ms.Tensor(np.ones((2, 3), np.float32))
    assert (dropout(x, None, SHARE).asnumpy() == 1).all()


class Gradients(nn.Cell):
    """Gradients of a cell's output times given numbers: of its input and its parameters."""

    def __init__(self, net):
        super().__init__()
        self.net, self.parameters = net, ms.ParameterTuple(net.trainable_params())
        self.of = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)

    def construct(self, x, sens):
        return self.of(self.net, self.parameters)(x, sens)


def gradients(net, x, sens):
    (of_x,), of_weights = Gradients(net)(ms.Tensor(x), ms.Tensor(sens))
    return [of_x.asnumpy(), *(each.asnumpy() for each in of_weights)]


def test_layer_norm_and_its_gradient_are_those_of_mindspore():
    rng = np.random.default_rng(0)
    x, sens = 1 + 3 * rng.normal(size=(2, 50, 8)).astype(np.float32)
    ours, theirs = LayerNorm(8), nn.LayerNorm((8,))
    for net in (ours, theirs):
        net.gamma.set_data(ms.Tensor(np.linspace(0.5, 2, 8, dtype=np.float32)))
        net.beta.set_data(ms.Tensor(np.linspace(-1, 1, 8, dtype=np.float32)))
    np.testing.assert_allclose(ours(ms.Tensor(x)).asnumpy(), theirs(ms.Tensor(x)).asnumpy(), rtol=1e-5)
    for found, expected in zip(gradients(ours, x, sens), gradients(theirs, x, sens), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_squared_norm_has_the_gradient_2x():
    x = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    assert SquaredNorm()(ms.Tensor(x)).asnumpy() == pytest.approx(np.square(x).sum(), rel=1e-5)
    (found,) = gradients(SquaredNorm(), x, np.float32(3))
    np.testing.assert_allclose(found, 6 * x, rtol=1e-5)


@pytest.mark.parametrize("middle", [1, 4])
def test_summed_is_the_sum_over_the_middle_axis(middle):
    x = np.random.default_rng(0).normal(size=(3, middle, 5)).astype(np.float32)
    np.testing.assert_allclose(summed(ms.Tensor(x)).asnumpy(), x.sum(1), rtol=1e-5, atol=1e-6)
