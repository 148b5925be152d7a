"""Ranking losses: free functions of (positive, negative) scores."""

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
        float32 scalar, the mean over the batch.
    """
    negative = ops.masked_fill(negative - log_expected, collision, ms.Tensor(-1e9, ms.float32))
    logits = ops.concat((positive, negative), 1)                                     # (B, 1 + N)
    return (ops.logsumexp(logits, 1) - positive.squeeze(1)).mean()


def token_correlation(tokens):
    """Mean squared cosine between the tokens of a user, (B, K, D) -> float32 scalar in 0 .. 1; 0 for one token.

    Tokens are taken relative to their mean over the batch. Without it the K tokens of a user become copies of each
    other: as long as scores only add up, all of them get the same gradient, and K copies hold no more than one.
    """
    n_tokens = tokens.shape[1]
    if n_tokens == 1:
        return ops.zeros((), ms.float32)
    centred = tokens - tokens.mean(0, keep_dims=True)
    unit = centred / ops.sqrt(ops.square(centred).sum(2, keepdims=True) + 1e-12)
    cosine = ops.BatchMatMul(transpose_b=True)(unit, unit)                           # (B, K, K)
    return (ops.square(cosine).sum((1, 2)).mean() - n_tokens) / (n_tokens * (n_tokens - 1))
