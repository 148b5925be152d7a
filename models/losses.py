"""Ranking losses of (positive, negative, log_expected, target, drawn), one value per positive: free functions, or cells
where a loss has settings or gradients of its own. All take what `SampledSoftmax` takes.
"""

import math

import mindspore as ms
from mindspore import nn, ops

# Share of the softmax: a logarithm needs one above 0. A tensor, as a graph takes floats nearer than 2.2e-16 for one
# constant: of 1e-30 and the 0.0 below it kept 0.0 in one graph of some hundred, and a loss was infinite there.
LEAST = ms.Tensor(1e-30, ms.float32)


class SampledSoftmax(nn.Cell):
    """Cross-entropy of the positive among itself and sampled negatives.

    A negative that is drawn often would be pushed down too often; dividing by its expected number of draws makes the
    sampled sum an unbiased estimate of the full one (Bengio and Senecal, "Adaptive importance sampling to accelerate
    training of a neural probabilistic language model", 2008).

    Args:
        n_items: size of the catalogue.
    """

    def __init__(self, n_items):
        super().__init__()
        self.n_items, self.entropy = n_items, _CrossEntropy()

    def construct(self, positive, negative, log_expected, target, drawn):
        """The loss of every positive.

        Args:
            positive: (B, 1) float32 scores.
            negative: (B, N) float32 scores.
            log_expected: (N,) or (B, N) float32, log of how often each negative is expected among the N draws.
            target: (B, 1) int32, the items of `positive`; 0 where there is none.
            drawn: int32 of the shape of `log_expected`, the items of `negative`. One that is the positive itself has
                its score, and is left out.

        Returns:
            (B,) float32.
        """
        weights = ops.exp(-log_expected)
        if drawn.ndim == 1:
            of_items = ops.unsorted_segment_sum(weights, drawn, self.n_items + 1)
            own = ops.gather(of_items, target, 0)  # (B, 1): far cheaper than to compare each pair
        else:
            own = (weights * collision(target, drawn).astype(ms.float32)).sum(1, keepdims=True)
        return self.entropy(positive, negative, weights, own)[0].squeeze(1)


class _CrossEntropy(nn.Cell):
    """log(exp(p) + sum_j w_j exp(n_j) - own exp(p)) - p, where `own` is the weight of those n_j that are p.

    The gradient is written out, as the few passes over (B, N) that are fast on the CPU. It reaches those n_j as if they
    were others, and p takes it back: they are one score.
    """

    def construct(self, positive, negative, weights, own):
        """(B, 1), (B, N), (N,) or (B, N), (B, 1) -> the value (B, 1), shares of a softmax (B, 1 + N), their sum."""
        shares = ops.softmax(ops.concat((positive, negative), 1), -1)
        one, others = shares[:, :1], shares[:, 1:]
        if weights.ndim == 1:
            others = ops.MatMul()(others, weights.expand_dims(1))
        else:
            others = (others * weights).sum(1, keepdims=True)
        total = one + ops.maximum(others - own * one, 0.0)  # (B, 1)
        return ops.log(ops.maximum(total, LEAST)) - ops.log(ops.maximum(one, LEAST)), shares, total

    def bprop(self, positive, negative, weights, own, out, dout):
        _, shares, total = out
        scale = dout[0] / ops.maximum(total, LEAST)
        one = shares[:, :1]
        if weights.ndim == 1:
            others = ops.MatMul()(scale, weights.expand_dims(0)) * shares[:, 1:]  # a broadcast costs twice as much
        else:
            others = scale * weights * shares[:, 1:]
        return scale * one * (1 - own) - dout[0], others, ops.zeros_like(weights), ops.zeros_like(own)


def bce(positive, negative, log_expected, target, drawn):
    """Binary cross-entropy of scores less a prior, see `_centred`: -log sigmoid(positive) - sum_j log
    sigmoid(-negative_j)."""
    positive, negative = _centred(positive, negative)
    return softplus(-positive).squeeze(1) + _sum_of(softplus(negative), target, drawn)


class GBCE(nn.Cell):
    """Generalised binary cross-entropy (Petrov and Macdonald, "gSASRec", 2023): the positive's probability to the power
    beta, which undoes the overconfidence of training with few negatives.

    beta = a (t (1 - 1/a) + 1/a), a = N / (n_items - 1) the share of the items drawn, however they are drawn: t = 0 is
    `bce`, t = 1 calibrates like training with all of them.

    Args:
        gbce_t: t.
        n_items: size of the catalogue.
    """

    def __init__(self, gbce_t, n_items):
        super().__init__()
        self.t, self.others = gbce_t, n_items - 1

    def construct(self, positive, negative, log_expected, target, drawn):
        share = min(negative.shape[1] / self.others, 1.0)
        power = share * (self.t * (1 - 1 / share) + 1 / share)
        positive, negative = _centred(positive, negative)
        return power * softplus(-positive).squeeze(1) + _sum_of(softplus(negative), target, drawn)


class CCL(nn.Cell):
    """Cosine contrastive loss, relu(1 - positive) + w mean_j relu(negative_j - m) (Mao et al., "SimpleX", 2021). Its
    scores are cosines: `--interaction cosine --interaction_temperature 1`, one token per user.

    Args:
        ccl_weight: w. ccl_margin: m.
    """

    def __init__(self, ccl_weight, ccl_margin):
        super().__init__()
        self.weight, self.margin = ccl_weight, ccl_margin

    def construct(self, positive, negative, log_expected, target, drawn):
        found = _sum_of(ops.relu(negative - self.margin), target, drawn) / negative.shape[1]
        return ops.relu(1 - positive).squeeze(1) + self.weight * found


def _centred(positive, negative):
    """Scores less log N of N negatives: a score of 0 then means one chance in N + 1, as a positive among them has.

    Without it many negatives push all scores down before anything else is learnt, and where items have no bias a model
    stays there: with 1,024 it was at popularity's level after 20 epochs. It ranks nothing otherwise, and is 0 for the
    one negative of SASRec.
    """
    prior = math.log(negative.shape[1])
    return positive - prior, negative - prior


def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return ops.relu(x) + ops.log1p(ops.exp(-ops.abs(x)))


def collision(target, drawn):
    """Where a negative is the positive itself, (B, 1) and (N,) or (B, N) int32 -> (B, N) bool."""
    return ops.equal(target, drawn)


def _sum_of(values, target, drawn):
    """Sum over negatives that are not the positive itself, (B, N) -> (B,)."""
    return ops.masked_fill(values, collision(target, drawn), ms.Tensor(0.0, ms.float32)).sum(1)


LOSSES = {"softmax": SampledSoftmax, "BCE": bce, "gBCE": GBCE, "CCL": CCL}
