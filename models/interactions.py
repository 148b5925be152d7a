"""Token x item scorers: every user token meets every item."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from models.layers import Dense
from retrieval import PairScorer


def dot(tokens, items):
    """Inner products, tokens (B, K, D) with items shared by the batch (C, D) or of each row (B, C, D) -> (B, K, C)."""
    if items.ndim == 2:
        batch, n_tokens, width = tokens.shape
        return ops.MatMul(transpose_b=True)(tokens.reshape(-1, width), items).reshape(batch, n_tokens, -1)
    return ops.BatchMatMul(transpose_b=True)(tokens, items)


class DNN(nn.Cell):
    """An MLP over [token; item tokens] beside a dot product: s = token . P(item) + MLP([token; item tokens]).

    The release scores with the MLP alone. An MLP needs very long to learn an inner product (Rendle et al., "Neural
    Collaborative Filtering vs. Matrix Factorization Revisited", 2020), hence the shortcut.

    The first layer is split, W [u; v] = W_u u + W_v v, so that each half is computed once per token and once per item
    and not once per pair. This is exact.

    Args:
        item_width: of an item embedding.
        token_width: of a user or item token.
        k_i: item tokens, each from a Dense layer of its own.
        hidden: widths of the hidden layers; empty leaves the dot product alone.
    """

    def __init__(self, item_width, token_width, k_i, hidden):
        super().__init__()
        self.has_hidden = bool(hidden)
        self.project = Dense(item_width, token_width, has_bias=False)  # P starts as the identity
        self.project.weight.set_data(ops.eye(token_width, item_width, ms.float32))
        if hidden:
            self.item_heads = Dense(item_width, k_i * token_width)
            self.token_half = Dense(token_width, hidden[0])
            self.item_half = Dense(k_i * token_width, hidden[0], has_bias=False)
            self.deeper = nn.CellList([Dense(a, b) for a, b in zip(hidden[:-1], hidden[1:])])
            self.out = Dense(hidden[-1], 1)
            self.out.weight.set_data(ops.zeros_like(self.out.weight))  # starts as the dot product

    def construct(self, tokens, items):
        """tokens (B, K, D), item embeddings (C, E) shared by the batch or (B, C, E) -> scores (B, K, C) float32."""
        scores = dot(tokens, self.project(items))  # (B, K, C)
        if self.has_hidden:
            item_half = self.item_half(self.item_heads(items))  # (C, H) or (B, C, H)
            hidden = ops.relu(_sums(self.token_half(tokens), item_half))  # (H, B * K * C)
            for layer in self.deeper:
                hidden = ops.relu(ops.matmul(layer.weight, hidden) + layer.bias.expand_dims(1))
            scores = scores + (ops.matmul(self.out.weight, hidden) + self.out.bias).reshape(scores.shape)
        return scores

    def scorer(self, items, score_bias, codewords=None):
        """The same scores outside the graph: a `PairScorer` without codewords over items (n_items, E) float32."""
        weight = self.project.weight.asnumpy()
        identity, no_bias = np.eye(len(weight), dtype=np.float32), np.zeros(len(weight), np.float32)
        parts = {"token_dot": (identity, no_bias), "item_dot": items @ weight.T, "score_bias": score_bias}
        if self.has_hidden:
            head_weight, head_bias = _arrays(self.item_heads)
            token_weight, token_bias = _arrays(self.token_half)
            out_weight, out_bias = _arrays(self.out)
            parts |= {
                "token_hidden_weight": token_weight,
                "token_hidden_bias": token_bias,
                "item_hidden": (items @ head_weight.T + head_bias) @ self.item_half.weight.asnumpy().T,
                "layers": [_arrays(layer) for layer in self.deeper],
                "out_weight": out_weight[0],
                "out_bias": out_bias[0],
            }
        return PairScorer(codewords=codewords, **parts)


def _arrays(dense):
    return dense.weight.asnumpy(), dense.bias.asnumpy()


def _sums(token_half, item_half):
    """Sums of every token's half and every item's half, (B, K, H) and (C, H) or (B, C, H) -> (H, B * K * C).

    The hidden unit comes first and pairs last, so that all later layers are plain matrix products. For shared items
    the sum a + b is the product [a, 1] [1; b], per unit: broadcasting additions are several times slower on the CPU,
    and their gradients more so.
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


INTERACTIONS = {"DNN": DNN}


class _Dot(nn.Cell):
    def construct(self, tokens, items):
        return dot(tokens, items)

    def scorer(self, items, score_bias=None, codewords=None):
        d = items.shape[1]
        return PairScorer(
            token_dot=(np.eye(d, dtype=np.float32), np.zeros(d, np.float32)), item_dot=items, codewords=codewords
        )


class _Made:
    def __init__(self, embedding_size, token_embedding_size, K_i, interaction_hidden):
        self.made = DNN(embedding_size, token_embedding_size, K_i, interaction_hidden)


class _MadeDot:
    def __init__(self):
        self.made = _Dot()


def Interaction(f, rng):
    return f.made


INTERACTIONS = {"DNN": _Made, "dot": _MadeDot}
