"""Losses by their formulas; a negative that is the positive itself counts in none."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from models.losses import CCL, GBCE, LOSSES, SampledSoftmax, bce

POSITIVE = np.array([[0.5], [-3.0], [0.95]], np.float32)
NEGATIVE = np.array([[0.2, 0.95, -0.4], [2.0, 1.0, -1.0], [0.91, 0.3, 0.95]], np.float32)
COLLISION = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1]], bool)


def found(loss, log_expected=None):
    log_expected = np.zeros(3, np.float32) if log_expected is None else log_expected
    return loss(*map(ms.Tensor, (POSITIVE, NEGATIVE, log_expected, COLLISION))).asnumpy()


def log_sigmoid(x):
    return -np.log1p(np.exp(-x.astype(np.float64)))


def test_softmax_over_all_items_is_the_cross_entropy_of_the_catalogue():
    powers = np.where(COLLISION, 0, np.exp(NEGATIVE.astype(np.float64))).sum(1) + np.exp(POSITIVE[:, 0])
    np.testing.assert_allclose(found(SampledSoftmax()), np.log(powers) - POSITIVE[:, 0], rtol=1e-5)


def test_softmax_divides_a_negative_by_how_often_it_is_expected():
    often = np.array([2.0, 3.0, 0.5], np.float32)
    powers = np.where(COLLISION, 0, np.exp(NEGATIVE) / often).sum(1) + np.exp(POSITIVE[:, 0])
    np.testing.assert_allclose(found(SampledSoftmax(), np.log(often)), np.log(powers) - POSITIVE[:, 0], rtol=1e-5)


def test_binary_cross_entropy():
    expected = -log_sigmoid(POSITIVE[:, 0]) - np.where(COLLISION, 0, log_sigmoid(-NEGATIVE)).sum(1)
    np.testing.assert_allclose(found(bce), expected, rtol=1e-5)


def test_gbce_without_calibration_is_bce_and_with_all_of_it_weighs_the_positive_by_the_share_drawn():
    np.testing.assert_allclose(found(GBCE(0.0, 31)), found(bce), rtol=1e-6)
    expected = found(bce) + 0.9 * log_sigmoid(POSITIVE[:, 0])  # 3 of 30 items are drawn
    np.testing.assert_allclose(found(GBCE(1.0, 31)), expected, rtol=1e-5)
    np.testing.assert_allclose(found(GBCE(1.0, 3)), found(bce), rtol=1e-6)


def test_ccl_asks_for_one_and_lets_negatives_be_up_to_the_margin():
    expected = [0.5 + 10 * 0.05 / 3, 4.0 + 10 * 0.1 / 3, 0.05 + 10 * 0.01 / 3]
    np.testing.assert_allclose(found(CCL(10.0, 0.9)), expected, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_far_from_zero_overflow_in_no_loss(loss, make_model):
    model = make_model("TwoTower", loss=loss)
    scores = ms.Tensor(np.full((1, 2), 1e4, np.float32))
    for sign in (1, -1):
        values = model.loss(sign * scores[:, :1], -sign * scores, ms.Tensor(np.zeros(2, np.float32)), scores < 0)
        assert np.isfinite(values.asnumpy()).all()


class Summed(nn.Cell):
    """A weighted sum of the loss over rows, for gradients."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def construct(self, positive, negative, often, collision):
        return (self.loss(positive, negative, often, collision) * ms.Tensor(WEIGHTS)).sum()


WEIGHTS = np.array([1.0, 0.3, -2.0], np.float32)


def test_the_gradient_of_softmax_is_that_of_its_formula():
    often = np.array([0.5, 0.0, -1.0], np.float32)
    step = ms.grad(Summed(SampledSoftmax()), (0, 1))
    ours = step(*map(ms.Tensor, (POSITIVE, NEGATIVE, often, COLLISION)))
    logits = np.concatenate([POSITIVE, np.where(COLLISION, -1e9, NEGATIVE - often)], 1).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    shares[:, 0] -= 1
    expected = shares * WEIGHTS[:, None]
    np.testing.assert_allclose(ours[0].asnumpy(), expected[:, :1], atol=1e-6)
    np.testing.assert_allclose(ours[1].asnumpy(), expected[:, 1:], atol=1e-6)
