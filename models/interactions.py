"""The interactions of `retrieval.interactions` as one Cell: every user token meets every item."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from models.layers import AddBias
from retrieval import CodeScorer
from retrieval.interactions import interaction, settings_of
from retrieval.interactions.base import Interaction
from retrieval.interactions.dnn import DNN
from retrieval.interactions.operations import TINY

ms.jit_class(Interaction)  # lets the graph compiler read the formulas as they stand


class InteractionCell(nn.Cell):
    """Any interaction with trainable weights, which are named as the formula names them.

    Args:
        name: a key of `retrieval.interactions.INTERACTIONS`.
        settings: flags and their values; the interaction takes those it knows.
        rng: NumPy generator of the starting values.

    Raises:
        ValueError: an unknown name, or sizes that don't fit.
    """

    def __init__(self, name: str, settings: dict, rng: np.random.Generator):
        super().__init__()
        self.name, self.settings = name, settings_of(name, settings)
        self.formula = interaction(name, settings, FASTER)
        self.xp = GraphOperations()
        weights = self.formula.weights(rng)
        self.parameters = ms.ParameterTuple(ms.Parameter(ms.Tensor(array), name=key) for key, array in weights.items())
        # A dictionary made inside construct would cut the gradients off.
        self.weights = dict(zip(weights, self.parameters))

    def construct(self, tokens, items):
        """tokens (B, K, D), item embeddings (C, E) shared by the batch or (B, C, E) -> scores (B, K, C) float32."""
        tokens = self.formula.token_side(self.xp, self.weights, tokens)
        items = self.formula.item_side(self.xp, self.weights, items)
        return self.formula.pairs(self.xp, self.weights, tokens, items)

    def scorer(self, items, score_bias=None, codewords=None) -> CodeScorer:
        """The same scores outside the graph.

        Args:
            items: embeddings (n_items, E) float32.
            score_bias, codewords: see `CodeScorer`.
        """
        weights = {name: parameter.asnumpy() for name, parameter in self.weights.items()}
        return CodeScorer(self.name, self.settings, weights, items, score_bias=score_bias, codewords=codewords)


@ms.jit_class
class GraphOperations:
    """`retrieval.interactions.Operations` for MindSpore's graph."""

    def __init__(self):
        self.add_bias = AddBias()

    def dense(self, x, weight, bias=None):
        out = ops.MatMul(transpose_b=True)(x.reshape(-1, x.shape[-1]), weight)
        if bias is not None:
            out = self.add_bias(out, bias)
        return out.reshape(x.shape[:-1] + (weight.shape[0],))

    def inner(self, a, b):
        if b.ndim == 2:
            rows = a.reshape(-1, a.shape[-1])
            return ops.MatMul(transpose_b=True)(rows, b).reshape(a.shape[:-1] + (b.shape[0],))
        return ops.BatchMatMul(transpose_b=True)(a, b)

    def relu(self, x):
        return ops.relu(x)

    def silu(self, x):
        return x * ops.sigmoid(x)

    def softmax(self, x):
        return ops.softmax(x, -1)

    def normalise(self, x):
        return x * ops.rsqrt(ops.square(x).sum(-1, keepdims=True) + TINY)

    def broadcast(self, x, shape):
        return ops.broadcast_to(x, shape)

    def concat(self, parts, axis=-1):
        return ops.concat(parts, axis)


class TrainingDNN(DNN):
    """`DNN` with the hidden unit first and the pairs last, so that all later layers are plain matrix products."""

    def pairs(self, xp, w, tokens, items):
        shape = tokens[0].shape[:-1] + (items[0].shape[-2],)  # (B, K, C)
        hidden = ops.relu(_sums(tokens[0], items[0]))  # (H, B * K * C)
        for depth in range(len(self.hidden) - 1):
            weight, bias = w[f"deeper.{depth}.weight"], w[f"deeper.{depth}.bias"]
            hidden = ops.relu(ops.matmul(weight, hidden) + bias.expand_dims(1))
        return (ops.matmul(w["out.weight"], hidden) + w["out.bias"]).reshape(shape)


def _sums(token_half, item_half):
    """Sums of every token's half and every item's half, (B, K, H) and (C, H) or (B, C, H) -> (H, B * K * C).

    For shared items the sum a + b is the product [a, 1] [1; b], per unit: broadcasting additions are several times
    slower on the CPU, and their gradients more so.
    """
    batch, n_tokens, width = token_half.shape
    if item_half.ndim == 2:
        tokens = token_half.reshape(-1, width).T.expand_dims(2)  # (H, B * K, 1)
        items = item_half.T.expand_dims(1)  # (H, 1, C)
        left = ops.concat((tokens, ops.ones_like(tokens)), 2)
        right = ops.concat((ops.ones_like(items), items), 1)
        return ops.BatchMatMul()(left, right).reshape(width, -1)
    pairs = token_half.expand_dims(2) + item_half.expand_dims(1)  # (B, K, C, H)
    return pairs.reshape(-1, width).T


FASTER = {"DNN": TrainingDNN}
