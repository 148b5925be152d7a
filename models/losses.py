"""Ranking losses: free functions of (positive, negative, log_expected, collision), one value per positive."""

import mindspore as ms
from mindspore import ops


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


LOSSES = {"softmax": sampled_softmax}
