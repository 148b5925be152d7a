"""SASRec: causal self-attention over the history."""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from models.layers import Dense, LayerNorm, dropout

FORBIDDEN = -1e9  # added to the logit of a key that a query must not see


class Block(nn.Cell):
    """Attention and a feed-forward network of one hidden layer, each beside a shortcut.

    Args:
        width: E.
        num_heads, dropout: as of `SASRec`.
    """

    def __init__(self, width, num_heads, dropout):
        super().__init__()
        self.width, self.heads, self.share = width, num_heads, dropout
        self.first_norm, self.second_norm = LayerNorm(width), LayerNorm(width)
        self.query, self.key, self.value, self.merge = (Dense(width, width) for _ in range(4))
        self.hidden, self.out = Dense(width, width), Dense(width, width)

    def construct(self, x, allowed, noise):
        """x (B * L, E), allowed (B, Q, L) of Q newest positions, noise (B * Q,) and (2 E,) or None -> (B * Q, E)."""
        found = self.attention(self.first_norm(x), allowed)
        x = newest(x, allowed) + dropout(found, columns(noise, 0, self.width), self.share)
        inner = self.feed_forward(self.second_norm(x))
        return x + dropout(inner, columns(noise, self.width, self.width), self.share)

    def attention(self, x, allowed):
        """x (B * L, E), allowed (B, Q, L) -> (B * Q, E)."""
        query, key, value = (
            layer(rows).reshape(len(allowed), -1, self.heads, self.width // self.heads).swapaxes(1, 2)
            for layer, rows in ((self.query, newest(x, allowed)), (self.key, x), (self.value, x))
        )  # (B, heads, Q, E / heads), (B, heads, L, E / heads) twice
        logits = ops.BatchMatMul(transpose_b=True)(query, key) * (1 / math.sqrt(self.width // self.heads))
        weights = ops.softmax(logits + allowed.expand_dims(1), -1)  # (B, heads, Q, L)
        return self.merge(ops.BatchMatMul()(weights, value).swapaxes(1, 2).reshape(-1, self.width))

    def feed_forward(self, x):
        """(R, E) -> (R, E)."""
        return self.out(ops.relu(self.hidden(x)))

    def onnx(self, graph, x, allowed, places):
        """As `construct`, x (B, L, E), Q = places."""
        found = self.onnx_attention(graph, onnx_norm(graph, self.first_norm, x), allowed, places)
        x = graph("Add", onnx_newest(graph, x, places), found)
        return graph("Add", x, self.onnx_feed_forward(graph, onnx_norm(graph, self.second_norm, x)))

    def onnx_attention(self, graph, x, allowed, places):
        """As `attention`, (B, L, E) -> (B, Q, E)."""
        parts, last = [], onnx_newest(graph, x, places)
        for layer, rows, order in (
            (self.query, last, [0, 2, 1, 3]),
            (self.key, x, [0, 2, 3, 1]),
            (self.value, x, [0, 2, 1, 3]),
        ):
            split = graph("Reshape", layer.onnx(graph, rows), [0, 0, self.heads, -1])
            parts.append(graph("Transpose", split, perm=order))
        logits = graph("Mul", graph("MatMul", parts[0], parts[1]), np.float32(1 / math.sqrt(self.width // self.heads)))
        weights = graph("Softmax", graph("Add", logits, graph("Unsqueeze", allowed, [1])), axis=-1)
        found = graph("Transpose", graph("MatMul", weights, parts[2]), perm=[0, 2, 1, 3])
        return self.merge.onnx(graph, graph("Reshape", found, [0, 0, self.width]))

    def onnx_feed_forward(self, graph, x):
        """As `feed_forward`, (B, L, E)."""
        return self.out.onnx(graph, graph("Relu", self.hidden.onnx(graph, x)))


class SASRec(nn.Cell):
    """Self-attentive sequential recommendation (Kang and McAuley, 2018), with layer norm before each block's halves.

    x = embeddings * sqrt(E) + learned positions; each block adds attention(norm(x)) and then feed-forward(norm(x)); a
    last norm. A position sees itself and what stands before it. Positions count from the end of the history, so the
    last item has the same one whatever the padding.

    Args:
        embedding_size: E.
        seq_len: L, the longest history.
        att_layer: blocks.
        num_heads: attention heads; they must divide E.
        dropout: share of activations zeroed in training: of the input, and of each half of a block.
        rng: NumPy generator of the starting values of the positions.

    Raises:
        ValueError: num_heads does not divide embedding_size.
    """

    causal, block = True, Block

    def __init__(self, embedding_size, seq_len, att_layer, num_heads, dropout, rng):
        super().__init__()
        if embedding_size % num_heads:
            raise ValueError(f"embedding_size {embedding_size} is not divisible by {num_heads} attention heads")
        self.width, self.length, self.share = embedding_size, seq_len, dropout
        positions = rng.normal(0, 0.1, (seq_len, embedding_size)).astype(np.float32)
        self.positions = ms.Parameter(ms.Tensor(positions), name="positions")  # (L, E)
        self.blocks = nn.CellList([self.block(embedding_size, num_heads, dropout) for _ in range(att_layer)])
        self.norm = LayerNorm(embedding_size)
        self.noise_width = embedding_size * (1 + 2 * att_layer)

    def construct(self, embeddings, mask, noise, every):
        """embeddings (B, L, E), mask (B, L), noise (B * L,) and (noise_width,) or None -> (B, L, E) float32, or unless
        `every` those of the last position, (B, 1, E)."""
        _, length, width = embeddings.shape
        # The last positions, for a tokeniser may ask for parts of a history.
        positions = self.positions[self.length - length :].expand_dims(0)
        x = (embeddings * math.sqrt(width) + positions).reshape(-1, width)  # (B * L, E)
        x = dropout(x, columns(noise, 0, width), self.share)
        allowed = self.allowed(mask, length)
        for number, block in enumerate(self.blocks):
            if not every and number == len(self.blocks) - 1:  # nothing comes after it that would look at the others
                allowed = allowed[:, -1:]
                noise = None if noise is None else (noise[0].reshape(-1, length)[:, -1], noise[1])
            x = block(x, allowed, columns(noise, (1 + 2 * number) * width, 2 * width))
        return self.norm(x).reshape(len(embeddings), -1, width)

    def allowed(self, mask, length):
        """What is added to attention logits (B, L, L): 0 at keys that are items up to the query, else FORBIDDEN."""
        past = ms.Tensor(np.tril(np.ones((length, length), np.float32)))
        return (1 - past.expand_dims(0) * mask.expand_dims(1)) * FORBIDDEN

    def onnx(self, graph, embeddings, mask, length):
        """`construct` without dropout as nodes of an ONNX graph, the last position alone; see `models.onnx_export`."""
        x = graph("Mul", embeddings, np.float32(math.sqrt(self.width)))
        x = graph("Add", x, self.positions.asnumpy()[self.length - length :])  # (B, L, E)
        past = np.tril(np.ones((length, length), np.float32))
        seen = graph("Mul", graph("Unsqueeze", mask, [1]), past)  # (B, L, L)
        allowed = graph("Mul", graph("Sub", np.float32(1), seen), np.float32(FORBIDDEN))
        for block in self.blocks[:-1]:
            x = block.onnx(graph, x, allowed, length)
        x = self.blocks[-1].onnx(graph, x, onnx_newest(graph, allowed, 1), 1)  # (B, 1, E)
        return graph("Squeeze", onnx_norm(graph, self.norm, x), [1])  # (B, E)


def newest(x, allowed):
    """The rows of the Q newest positions, x (B * L, E) and allowed (B, Q, L) -> (B * Q, E)."""
    batch, places, length = allowed.shape
    if places == length:
        return x
    return x.reshape(batch, length, -1)[:, length - places :].reshape(batch * places, -1)


def onnx_newest(graph, x, places):
    """The `places` newest positions as a node of an ONNX graph, (B, L, ..) -> (B, Q, ..)."""
    return graph("Slice", x, [-places], [np.iinfo(np.int64).max], [1])


def columns(noise, first, width):
    """The part of the noise for `width` columns from `first` on; see `layers.dropout`."""
    return None if noise is None else (noise[0], noise[1][first : first + width])


def onnx_norm(graph, norm, x):
    """A layer norm as a node of an ONNX graph."""
    scale, bias = norm.gamma.asnumpy(), norm.beta.asnumpy()
    return graph("LayerNormalization", x, scale, bias, axis=-1, epsilon=float(norm.epsilon))
