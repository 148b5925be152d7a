"""Ranking losses of (positive, negative, log_expected, collision), one value per positive: free functions, or cells
where a loss has settings or gradients of its own. All take what `SampledSoftmax` takes.
"""

import mindspore as ms
from mindspore import nn, ops


class SampledSoftmax(nn.Cell):
    """Cross-entropy of the positive among itself and sampled negatives.

    A negative that is drawn often would be pushed down too often; subtracting the log of its expected number of draws
    makes the sampled sum an unbiased estimate of the full one (Bengio and Senecal, "Adaptive importance sampling to
    accelerate training of a neural probabilistic language model", 2008).
    """

    def __init__(self):
        super().__init__()
        self.entropy = _CrossEntropy()

    def construct(self, positive, negative, log_expected, collision):
        """The loss of every positive.

        Args:
            positive: (B, 1) float32 scores.
            negative: (B, N) float32 scores.
            log_expected: (N,) or (B, N) float32, log of how often each negative is expected among the N draws.
            collision: (B, N) bool, True where the negative is the positive itself; it is left out.

        Returns:
            (B,) float32.
        """
        negative = ops.masked_fill(negative - log_expected, collision, ms.Tensor(-1e9, ms.float32))
        return self.entropy(positive, negative)[0].squeeze(1)


class _CrossEntropy(nn.Cell):
    """log(exp(p) + sum_j exp(n_j)) - p, whose gradients are parts of the value: half the time of derived ones."""

    def construct(self, positive, negative):
        """(B, 1), (B, N) -> the value (B, 1), then the exponentials of both and their sum, scaled against overflow."""
        most = ops.maximum(ops.ReduceMax(True)(negative, 1), positive)
        one, others = ops.exp(positive - most), ops.exp(negative - most)
        total = one + ops.ReduceSum(True)(others, 1)
        return ops.log(total) + most - positive, one, others, total

    def bprop(self, positive, negative, out, dout):
        _, one, others, total = out
        share = dout[0] / total
        return one * share - dout[0], others * share


def bce(positive, negative, log_expected, collision):
    """Binary cross-entropy: -log sigmoid(positive) - sum_j log sigmoid(-negative_j)."""
    return softplus(-positive).squeeze(1) + _sum_of(softplus(negative), collision)


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

    def construct(self, positive, negative, log_expected, collision):
        share = min(negative.shape[1] / self.others, 1.0)
        power = share * (self.t * (1 - 1 / share) + 1 / share)
        return power * softplus(-positive).squeeze(1) + _sum_of(softplus(negative), collision)


class CCL(nn.Cell):
    """Cosine contrastive loss, relu(1 - positive) + w mean_j relu(negative_j - m) (Mao et al., "SimpleX", 2021). Its
    scores are cosines: `--interaction cosine --interaction_temperature 1`, one token per user.

    Args:
        ccl_weight: w. ccl_margin: m.
    """

    def __init__(self, ccl_weight, ccl_margin):
        super().__init__()
        self.weight, self.margin = ccl_weight, ccl_margin

    def construct(self, positive, negative, log_expected, collision):
        found = _sum_of(ops.relu(negative - self.margin), collision) / negative.shape[1]
        return ops.relu(1 - positive).squeeze(1) + self.weight * found


def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return ops.relu(x) + ops.log1p(ops.exp(-ops.abs(x)))


def _sum_of(values, collision):
    """Sum over negatives that are not the positive itself, (B, N) -> (B,)."""
    return ops.masked_fill(values, collision, ms.Tensor(0.0, ms.float32)).sum(1)


LOSSES = {"softmax": SampledSoftmax, "BCE": bce, "gBCE": GBCE, "CCL": CCL}
