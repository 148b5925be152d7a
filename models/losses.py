"""Ranking losses of (positive, negative, log_expected, collision), one value per positive: free functions, or cells
where a loss has settings. All take what `sampled_softmax` takes.
"""

import mindspore as ms
from mindspore import nn, ops


def sampled_softmax(positive, negative, log_expected, collision):
    """Cross-entropy of the positive among itself and sampled negatives.

    A negative that is drawn often would be pushed down too often; subtracting the log of its expected number of draws
    makes the sampled sum an unbiased estimate of the full one (Bengio and Senecal, "Adaptive importance sampling to
    accelerate training of a neural probabilistic language model", 2008).

    Args:
        positive: (B, 1) float32 scores.
        negative: (B, N) float32 scores.
        log_expected: (N,) or (B, N) float32, log of how often each negative is expected among the N draws.
        collision: (B, N) bool, True where the negative is the positive itself; it is left out.

    Returns:
        (B,) float32.
    """
    negative = ops.masked_fill(negative - log_expected, collision, ms.Tensor(-1e9, ms.float32))
    logits = ops.concat((positive, negative), 1)  # (B, 1 + N)
    return ops.logsumexp(logits, 1) - positive.squeeze(1)


def bce(positive, negative, log_expected, collision):
    """Binary cross-entropy: -log sigmoid(positive) - sum_j log sigmoid(-negative_j)."""
    return softplus(-positive).squeeze(1) + _sum_of(softplus(negative), collision)


class GBCE(nn.Cell):
    """Generalised binary cross-entropy (Petrov and Macdonald, "gSASRec", 2023): the positive's probability to the power
    beta, which undoes the overconfidence of training with few negatives.

    beta = a (t (1 - 1/a) + 1/a), a = N / (n_items - 1) the share of the items drawn: t = 0 is `bce`, t = 1 calibrates
    like training with all of them.

    Args:
        gbce_t: t.
        neg_num: N.
        n_items: size of the catalogue.
    """

    def __init__(self, gbce_t, neg_num, n_items):
        super().__init__()
        share = min(neg_num / (n_items - 1), 1.0)
        self.power = share * (gbce_t * (1 - 1 / share) + 1 / share)

    def construct(self, positive, negative, log_expected, collision):
        return self.power * softplus(-positive).squeeze(1) + _sum_of(softplus(negative), collision)


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


LOSSES = {"softmax": sampled_softmax, "BCE": bce, "gBCE": GBCE, "CCL": CCL}
