"""Losses by their formulas; a negative that is the positive itself counts in none."""

import ast
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

from models.losses import CCL, GBCE, LOSSES, SampledSoftmax, bce

POSITIVE = np.array([[0.5], [-3.0], [0.95]], np.float32)
NEGATIVE = np.array([[0.2, 0.95, -0.4], [-3.0, 1.0, -1.0], [0.91, 0.3, 0.95]], np.float32)
TARGET = np.array([[7], [5], [4]], np.int32)
DRAWN = np.array([5, 6, 4], np.int32)
COLLISION = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1]], bool)


def found(loss, log_expected=None, drawn=DRAWN):
    log_expected = np.zeros(3, np.float32) if log_expected is None else log_expected
    return loss(*map(ms.Tensor, (POSITIVE, NEGATIVE, log_expected, TARGET, drawn))).asnumpy()


def log_sigmoid(x):
    return -np.log1p(np.exp(-x.astype(np.float64)))


@pytest.mark.parametrize("often", [[1.0, 1.0, 1.0], [2.0, 3.0, 0.5]])
def test_softmax_divides_a_negative_by_how_often_it_is_expected(often):
    often = np.array(often, np.float32)
    powers = np.where(COLLISION, 0, np.exp(NEGATIVE) / often).sum(1) + np.exp(POSITIVE[:, 0])
    expected = np.log(powers) - POSITIVE[:, 0]
    np.testing.assert_allclose(found(SampledSoftmax(9), np.log(often)), expected, rtol=1e-5)
    each = [np.tile(row, (3, 1)) for row in (np.log(often), DRAWN)]  # negatives of each target its own
    np.testing.assert_allclose(found(SampledSoftmax(9), *each), expected, rtol=1e-5)


CENTRE = np.log(3)  # of three negatives


def test_binary_cross_entropy():
    expected = -log_sigmoid(POSITIVE[:, 0] - CENTRE) - np.where(COLLISION, 0, log_sigmoid(CENTRE - NEGATIVE)).sum(1)
    np.testing.assert_allclose(found(bce), expected, rtol=1e-5)


@pytest.mark.parametrize("n", [2, 10, 1000])
def test_binary_cross_entropy_pulls_as_much_as_it_pushes_where_nothing_is_known(n):
    def loss(positive, negative):
        ids = ms.Tensor([[1]], ms.int32), ms.Tensor(np.arange(2, n + 2), ms.int32)
        return bce(positive, negative, ms.Tensor(np.zeros(n, np.float32)), *ids).sum()

    zeros = [ms.Tensor(np.zeros((1, width), np.float32)) for width in (1, n)]
    pull, push = (gradient.asnumpy().sum() for gradient in ms.grad(loss, (0, 1))(*zeros))
    np.testing.assert_allclose([pull, push], [-n / (n + 1), n / (n + 1)], rtol=1e-4)


def test_gbce_without_calibration_is_bce_and_with_all_of_it_weighs_the_positive_by_the_share_drawn():
    np.testing.assert_allclose(found(GBCE(0.0, 31)), found(bce), rtol=1e-6)
    expected = found(bce) + 0.9 * log_sigmoid(POSITIVE[:, 0] - CENTRE)  # 3 of 30 items are drawn
    np.testing.assert_allclose(found(GBCE(1.0, 31)), expected, rtol=1e-5)
    np.testing.assert_allclose(found(GBCE(1.0, 3)), found(bce), rtol=1e-6)


def test_ccl_asks_for_one_and_lets_negatives_be_up_to_the_margin():
    expected = [0.5 + 10 * 0.05 / 3, 4.0 + 10 * 0.1 / 3, 0.05 + 10 * 0.01 / 3]
    np.testing.assert_allclose(found(CCL(10.0, 0.9)), expected, atol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_scores_far_from_zero_overflow_in_no_loss(loss, make_model, graph_mode):
    model = make_model("TwoTower", loss=loss)
    scores = ms.Tensor(np.full((1, 2), 1e4, np.float32))
    for sign in (1, -1):
        ids = ms.Tensor([[1]], ms.int32), ms.Tensor([2, 3], ms.int32)
        values = model.loss(sign * scores[:, :1], -sign * scores, ms.Tensor(np.zeros(2, np.float32)), *ids)
        assert np.isfinite(values.asnumpy()).all()


def test_no_number_of_the_models_is_one_that_a_graph_may_take_for_zero():
    """See `losses.LEAST`."""
    for file in (Path(__file__).resolve().parents[2] / "models").rglob("*.py"):
        tree = ast.parse(file.read_text())
        tensors = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and "Tensor" in ast.unparse(node.func)]
        allowed = {id(part) for tensor in tensors for part in ast.walk(tensor)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, float) and id(node) not in allowed:
                assert node.value == 0 or node.value > 1e-15, f"{file}:{node.lineno}: as a Tensor it is kept"


class Summed(nn.Cell):
    """A weighted sum of the loss over rows, of scores by item: a negative that is the positive has its score."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def construct(self, scores, often, target, drawn):
        columns = drawn if drawn.ndim == 2 else ops.tile(drawn.expand_dims(0), (3, 1))
        positive, negative = ops.gather_elements(scores, 1, target), ops.gather_elements(scores, 1, columns)
        return (self.loss(positive, negative, often, target, drawn) * ms.Tensor(WEIGHTS)).sum()


WEIGHTS = np.array([1.0, 0.3, -2.0], np.float32)


@pytest.mark.parametrize("own", [False, True])
def test_the_gradient_of_softmax_is_that_of_its_formula(own):
    often, drawn = np.array([0.5, 0.0, -1.0, 0.5], np.float32), np.array([5, 6, 4, 5], np.int32)  # 5 is drawn twice
    scores = np.random.default_rng(3).normal(size=(3, 9)).astype(np.float32) * 3
    logits = np.where(drawn == TARGET, -1e9, scores[:, drawn] - often)
    logits = np.concatenate([np.take_along_axis(scores, TARGET, 1), logits], 1).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    shares[:, 0] -= 1
    expected = np.zeros(scores.shape)
    for row, items in enumerate(np.concatenate([TARGET, np.tile(drawn, (3, 1))], 1)):
        np.add.at(expected[row], items, shares[row] * WEIGHTS[row])
    if own:
        often, drawn = np.tile(often, (3, 1)), np.tile(drawn, (3, 1))
    step = ms.grad(Summed(SampledSoftmax(8)))
    ours = step(*map(ms.Tensor, (scores, often, TARGET, drawn))).asnumpy()
    np.testing.assert_allclose(ours, expected, atol=2e-6)


def test_a_positive_that_all_negatives_are_has_no_loss():
    same = ms.Tensor(np.full((1, 3), 2.0, np.float32))
    ids = ms.Tensor([[4]], ms.int32), ms.Tensor([4, 4, 4], ms.int32)
    loss = SampledSoftmax(9)(same[:, :1], same, ms.Tensor(np.log([2.7, 2.7, 2.7]).astype(np.float32)), *ids)
    assert abs(loss.asnumpy()[0]) < 1e-6
