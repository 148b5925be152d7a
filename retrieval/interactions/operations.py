"""What the formulas of interactions need of an array library: NumPy, torch or CuPy."""

from __future__ import annotations

TINY = 1e-12  # keeps the length of a zero vector from dividing by zero


class Operations:
    """What the formulas need beside operators, indexing, reshape and swapaxes.

    Args:
        xp: the namespace of NumPy, torch or CuPy.
    """

    def __init__(self, xp):
        self.xp = xp

    def dense(self, x, weight, bias=None):
        """Affine map of the last axis, (..., a) with weight (b, a) and bias (b,) -> (..., b)."""
        rows = x.reshape(-1, x.shape[-1])  # one product, not one for each leading index
        out = (rows @ weight.T).reshape(x.shape[:-1] + (len(weight),))
        return out if bias is None else out + bias

    def inner(self, a, b):
        """Inner products of all rows, (..., T, d) x (..., C, d) -> (..., T, C)."""
        return a @ b.swapaxes(-1, -2)

    def relu(self, x):
        """The larger of x and 0; NaN stays NaN."""
        return self.xp.clip(x, 0, None)

    def silu(self, x):
        """x * sigmoid(x)."""
        return x * (0.5 + 0.5 * self.xp.tanh(0.5 * x))

    def softmax(self, x):
        """Softmax of the last axis."""
        powers = self.xp.exp(x - self.xp.amax(x, axis=-1, keepdims=True))
        return powers / self.xp.sum(powers, axis=-1, keepdims=True)

    def normalise(self, x):
        """Vectors of the last axis over their length."""
        return x / self.xp.sqrt(self.xp.sum(x * x, axis=-1, keepdims=True) + TINY)

    def broadcast(self, x, shape):
        """x repeated along axes of size 1 until it has this shape."""
        return self.xp.broadcast_to(x, shape)

    def concat(self, parts, axis=-1):
        """Arrays joined along an axis."""
        return self.xp.concatenate(parts, axis)
