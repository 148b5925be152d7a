"""Small blocks that every model is built from."""

import math

import mindspore as ms
import mindspore.common.initializer as init
import numpy as np
from mindspore import nn, ops

EPSILON = 1e-7  # added to a variance


class AddBias(nn.Cell):
    """`x + bias` with the bias gradient as one sum: the built-in BiasAddGrad is several times slower on the CPU."""

    def construct(self, x, bias):
        return ops.bias_add(x, bias)

    def bprop(self, x, bias, out, dout):
        return dout, ops.ReduceSum()(dout, 0)


class Dense(nn.Cell):
    """Affine map of the last axis, `x @ weight.T + bias`.

    The weight starts uniform in +-1/sqrt(width_in) as in `nn.Dense`, the bias at zero.

    Args:
        width_in, width_out: sizes of the last axis before and after.
        has_bias: whether a bias is added.
    """

    def __init__(self, width_in, width_out, has_bias=True):
        super().__init__()
        self.width_in, self.width_out, self.has_bias = width_in, width_out, has_bias
        scale = 1 / math.sqrt(width_in)
        self.weight = ms.Parameter(init.initializer(init.Uniform(scale), [width_out, width_in]), name="weight")
        if has_bias:
            self.bias = ms.Parameter(init.initializer("zeros", [width_out]), name="bias")
            self.add_bias = AddBias()

    def construct(self, x):
        rows = x.reshape(-1, self.width_in)
        out = ops.MatMul(transpose_b=True)(rows, self.weight)
        if self.has_bias:
            out = self.add_bias(out, self.bias)
        return out.reshape(x.shape[:-1] + (self.width_out,))

    def onnx(self, graph, x):
        """The layer as nodes of an ONNX graph; see `models.onnx_export`."""
        out = graph("MatMul", x, self.weight.asnumpy().T)
        return graph("Add", out, self.bias.asnumpy()) if self.has_bias else out


class LayerNorm(nn.Cell):
    """x less its mean, over its standard deviation, times a scale plus a bias, all of the last axis.

    The gradient is written out, row means as products with a matrix: `nn.LayerNorm` takes twice as long on the CPU.

    Args:
        width: W, size of the last axis.
    """

    def __init__(self, width):
        super().__init__()
        self.gamma = ms.Parameter(init.initializer("ones", [width]), name="gamma")
        self.beta = ms.Parameter(init.initializer("zeros", [width]), name="beta")
        self.epsilon, self.norm = EPSILON, _Norm(width)

    def construct(self, x):
        """(R, W) -> (R, W)."""
        return self.norm(x, self.gamma, self.beta)[0]


class _Norm(nn.Cell):
    """The norm, mean and variance of every row, with a gradient for the first."""

    def __init__(self, width):
        super().__init__()
        self.forward = ops.LayerNorm(1, 1, EPSILON)
        self.average = ms.Tensor(np.full((width, width), 1 / width, np.float32))
        self.widen = ms.Tensor(np.ones((1, width), np.float32))

    def construct(self, x, gamma, beta):
        return self.forward(x, gamma, beta)  # (R, W), (R, 1), (R, 1)

    def bprop(self, x, gamma, beta, out, dout):
        _, mean, variance = out
        scale = ops.matmul(ops.rsqrt(variance + EPSILON), self.widen)  # (R, W)
        normed = (x - ops.matmul(mean, self.widen)) * scale
        inner = dout[0] * gamma
        # What moves the mean or the size of a row changes nothing.
        dx = inner - ops.matmul(inner, self.average) - normed * ops.matmul(inner * normed, self.average)
        return dx * scale, ops.ReduceSum()(dout[0] * normed, 0), ops.ReduceSum()(dout[0], 0)


class SquaredNorm(nn.Cell):
    """The sum of all squares as a product of x with itself; the built-in sum, square and their gradients take ten times
    as long on the CPU."""

    def construct(self, x):
        return ops.matmul(x.reshape(1, -1), x.reshape(-1, 1)).squeeze()

    def bprop(self, x, out, dout):
        return (x * (2 * dout),)


def summed(x):
    """The sum over the middle axis, (B, K, C) -> (B, C); the built-in one is five to twenty times slower on the CPU."""
    if x.shape[1] == 1:
        return x.squeeze(1)
    return ops.bmm(ops.ones((x.shape[0], 1, x.shape[1]), ms.float32), x).squeeze(1)


def dropout(x, noise, share):
    """Zeroes places of x at random and scales up the rest; noise None leaves x as it is.

    Place (r, w) falls away where the fraction of row r's number plus column w's is below the share. So a place falls
    with that probability, any two places independently of each other, and R + W random numbers do for R x W places.
    They come from outside: the built-in dropout keeps a hidden state, with which a resumed run could not equal one that
    never stopped, and a number per place would cost more to draw than the layer to compute.

    Args:
        x: (R, W) float32.
        noise: rows (R,) and columns (W,) float32, uniform in [0, 1), or None.
        share: 0 .. 1; None is 0.
    """
    if noise is None or not share:
        return x
    rows, columns = noise[0].expand_dims(1), noise[1].expand_dims(0)
    # A product of width two in place of a broadcasting addition, which is several times slower on the CPU.
    left, right = ops.concat((rows, ops.ones_like(rows)), 1), ops.concat((ops.ones_like(columns), columns), 0)
    sums = ops.matmul(left, right)  # (R, W)
    return x * (sums - ops.floor(sums) >= share).astype(x.dtype) * (1 / (1 - share))


class MLP(nn.Cell):
    """Dense layers, each followed by ReLU and dropout.

    Args:
        widths: sizes from input to output, for example `[64, 256, 256]`; one entry means the identity.
        dropout: share of activations zeroed when noise is given.
    """

    def __init__(self, widths, dropout):
        super().__init__()
        self.layers = nn.CellList([Dense(a, b) for a, b in zip(widths[:-1], widths[1:])])
        self.widths, self.share = tuple(widths[1:]), dropout
        self.noise_width = sum(self.widths)

    def construct(self, x, noise):
        """x (R, widths[0]), noise (R,) and (noise_width,) as in `dropout`, or None -> (R, widths[-1])."""
        first = 0
        for layer, width in zip(self.layers, self.widths):
            part = None if noise is None else (noise[0], noise[1][first : first + width])
            x = dropout(ops.relu(layer(x)), part, self.share)
            first += width
        return x

    def onnx(self, graph, x):
        """`construct` without dropout as nodes of an ONNX graph; see `models.onnx_export`."""
        for layer in self.layers:
            x = graph("Relu", layer.onnx(graph, x))
        return x


class MaskedMean(nn.Cell):
    """Means of the rows whose mask is one; an empty mask gives zeros."""

    def construct(self, rows, masks):
        """rows (B, L, D), V masks each (B, V, L) -> (B, V, D)."""
        weights = masks / ops.clamp(masks.sum(2, keepdims=True), min=1.0)
        return ops.bmm(weights, rows)

    def onnx(self, graph, rows, mask):
        """The mean as nodes of an ONNX graph, rows (B, L, D) and mask (B, L) -> (B, D); see `models.onnx_export`."""
        count = graph("Max", graph("ReduceSum", mask, [1], keepdims=1), np.float32(1))
        weights = graph("Unsqueeze", graph("Div", mask, count), [1])  # (B, 1, L)
        return graph("Squeeze", graph("MatMul", weights, rows), [1])
