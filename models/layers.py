"""Small blocks that every model is built from."""

import math

import mindspore as ms
import mindspore.common.initializer as init
import numpy as np
from mindspore import nn, ops


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
