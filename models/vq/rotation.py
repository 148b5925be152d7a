"""The rotation trick: what a codeword's gradient tells the token that it stands for."""

from mindspore import ops

SMALLEST = 1e-6  # what is added to a squared length, so that a token of zeros has a direction


def turned(tokens, codewords):
    """Codewords in value; in gradient the tokens, turned into the direction of their codewords and stretched to their
    length, where turn and stretch are constants.

    So the angle between a codeword and its gradient is the angle between the token and what it gets, while a gradient
    that is passed straight through means the same to all tokens of a codeword (Fifty et al., "Restructuring Vector
    Quantization with the Rotation Trick", 2024, section 4): with e and q of length 1 and r = (e + q) / |e + q| the turn
    of x is x - 2 r (r . x) + 2 q (e . x).

    Args:
        tokens: (B, K, D) float32.
        codewords: (B, K, D) float32, without gradient.
    """
    fixed = ops.stop_gradient(tokens)
    own, theirs = _length(fixed), _length(codewords)  # (B, K, 1)
    start, end = fixed / own, codewords / theirs
    between = start + end
    between = ops.stop_gradient(between / _length(between))
    start, end, stretch = ops.stop_gradient(start), ops.stop_gradient(end), ops.stop_gradient(theirs / own)
    found = tokens - 2 * between * _inner(between, tokens) + 2 * end * _inner(start, tokens)
    found = stretch * found
    return codewords + found - ops.stop_gradient(found)


def _inner(left, right):
    return (left * right).sum(-1, keepdims=True)


def _length(vectors):
    return ops.sqrt(_inner(vectors, vectors) + SMALLEST)
