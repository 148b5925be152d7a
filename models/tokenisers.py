"""Tokenisers: a user's history of item embeddings becomes K_u tokens.

A tokeniser holds the user encoder, for it decides what the encoder reads. It says how many tokens it makes (`K_u`), how
many sequences the encoder reads of a history (`parts`) and whether it makes tokens at every position of a sequence that
a causal encoder reads (`every_position`).
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class Tokeniser(nn.Cell):
    """What all tokenisers share.

    Args:
        encoder: a user encoder of `models.encoders`.
    """

    parts = 1
    every_position = True

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def user_vectors(self, embeddings, mask, noise, every):
        """The encoder's user vectors: (B, E), or of every position (B * L, E) where `every`."""
        if not self.encoder.causal:
            return self.encoder(embeddings, mask, noise)
        vectors = self.encoder(embeddings, mask, noise, every)
        return vectors.reshape(-1, vectors.shape[2]) if every else vectors[:, -1]  # histories are left-padded

    def construct(self, embeddings, mask, noise, every=False):
        """Tokens of histories.

        Args:
            embeddings: (B, L, E) float32, zeros at padding.
            mask: (B, L) float32, 1 at items.
            noise: rows (R,) and columns (encoder.noise_width,) from which dropout is made, or None; a row for each
                sequence that the encoder reads, or for each of its positions where the encoder is causal.
            every: whether to make the tokens of every position, as causal encoders are trained.

        Returns:
            (B, K_u, D) float32, or (B * L, K_u, D) where `every`.
        """
        raise NotImplementedError

    def onnx(self, graph, embeddings, mask, length):
        """`construct` without dropout as nodes of an ONNX graph, L = length -> (K_u, B, D); see `onnx_export`."""
        raise NotImplementedError


class Whole(Tokeniser):
    """One token, the user vector: what a two-tower model has.

    Args:
        encoder: see `Tokeniser`.
        embedding_size: E, of a user vector.
        token_embedding_size: D, of a token.

    Raises:
        ValueError: the two differ.
    """

    K_u = 1

    def __init__(self, encoder, embedding_size, token_embedding_size):
        super().__init__(encoder)
        if embedding_size != token_embedding_size:
            raise ValueError(
                f"the user vector is the one token, so token_embedding_size {token_embedding_size} and embedding_size "
                f"{embedding_size} must be equal; make them so, or choose the tokeniser heads"
            )

    def construct(self, embeddings, mask, noise, every=False):
        return self.user_vectors(embeddings, mask, noise, every).expand_dims(1)  # (B, 1, E)

    def onnx(self, graph, embeddings, mask, length):
        return graph("Unsqueeze", self.encoder.onnx(graph, embeddings, mask, length), [0])  # (1, B, E)


class Heads(Tokeniser):
    """K_u Dense layers of one user vector: SparCode's tokens, as in the release.

    As long as scores add up over tokens, all heads get the same gradient, so they become copies of each other.

    Args:
        encoder: see `Tokeniser`.
        K_u: tokens per user.
        embedding_size: E, of a user vector.
        token_embedding_size: D, of a token.
        rng: NumPy generator of the starting values.
    """

    def __init__(self, *, encoder, K_u, embedding_size, token_embedding_size, rng):
        super().__init__(encoder)
        self.K_u = K_u
        # Every head starts as the identity and a little noise.
        heads = np.eye(embedding_size, token_embedding_size)
        heads = heads + rng.normal(0, 0.01, (K_u, embedding_size, token_embedding_size))
        self.heads = ms.Parameter(ms.Tensor(heads.astype(np.float32)), name="heads")  # (K_u, E, D)
        self.bias = ms.Parameter(ms.Tensor(np.zeros((K_u, 1, token_embedding_size), np.float32)), name="bias")

    def vectors_by_token(self, embeddings, mask, noise, every):
        """The user vector that each head reads, (K_u, B, E), or (1, B, E) for all of them."""
        return self.user_vectors(embeddings, mask, noise, every).expand_dims(0)

    def construct(self, embeddings, mask, noise, every=False):
        vectors = self.vectors_by_token(embeddings, mask, noise, every)
        if vectors.shape[0] < self.K_u:
            vectors = ops.tile(vectors, (self.K_u, 1, 1))
        tokens = ops.BatchMatMul()(vectors, self.heads) + self.bias  # (K_u, B, D)
        return tokens.swapaxes(0, 1)

    def onnx(self, graph, embeddings, mask, length):
        vectors = graph("Unsqueeze", self.encoder.onnx(graph, embeddings, mask, length), [0])  # (1, B, E)
        return self.onnx_heads(graph, vectors)

    def onnx_heads(self, graph, vectors):
        """The Dense layers alone, (K_u or 1, B, E) -> (K_u, B, D)."""
        return graph("Add", graph("MatMul", vectors, self.heads.asnumpy()), self.bias.asnumpy())


class Segments(Heads):
    """The history is cut in K_u segments of equal length, oldest first; token k is head k of the encoded segment k.

    So tokens hold different things, and recent items may count for more than old ones. The other arguments are those of
    `Heads`.

    Args:
        seq_len: length of a history.

    Raises:
        ValueError: K_u does not divide seq_len.
    """

    every_position = False

    def __init__(self, *, seq_len, **heads):
        super().__init__(**heads)
        if seq_len % self.K_u:
            raise ValueError(f"seq_len {seq_len} cannot be cut in K_u = {self.K_u} equal segments")
        self.length = seq_len // self.K_u
        self.parts = self.K_u

    def vectors_by_token(self, embeddings, mask, noise, every):
        width = embeddings.shape[2]
        segments = embeddings.reshape(-1, self.length, width)  # (B * K_u, L / K_u, E)
        vectors = self.user_vectors(segments, mask.reshape(-1, self.length), noise, False)  # (B * K_u, E)
        return vectors.reshape(-1, self.K_u, width).swapaxes(0, 1)

    def onnx(self, graph, embeddings, mask, length):
        width = self.heads.shape[1]
        segments = graph("Reshape", embeddings, [-1, self.length, width])  # (B * K_u, L / K_u, E)
        vectors = self.encoder.onnx(graph, segments, graph("Reshape", mask, [-1, self.length]), self.length)
        vectors = graph("Reshape", vectors, [-1, self.K_u, width])
        return self.onnx_heads(graph, graph("Transpose", vectors, perm=[1, 0, 2]))


class Windows(Heads):
    """Token k is head k of the newest items alone, each window half as long as the one before: all, a half, a quarter..

    So tokens hold different things, recent items count in more of them than old ones, and however short a history is,
    no token is empty. The other arguments are those of `Heads`.

    Args:
        seq_len: length of a history.
    """

    every_position = False

    def __init__(self, *, seq_len, **heads):
        super().__init__(**heads)
        self.lengths = [-(-seq_len // 2**k) for k in range(self.K_u)]
        age = np.arange(seq_len, 0, -1)  # of a place in the history, 1 the newest
        self.windows = ms.Tensor((age <= np.array(self.lengths)[:, None]).astype(np.float32))  # (K_u, L)
        self.parts = self.K_u
        self.views = vars(type(self.encoder)).get("views", False)  # not inherited: a subclass may read masks otherwise

    def vectors_by_token(self, embeddings, mask, noise, every):
        if self.views:
            masks = mask.expand_dims(1) * self.windows  # (B, K_u, L)
            return self.encoder(embeddings, masks, noise).reshape(-1, self.K_u, embeddings.shape[2]).swapaxes(0, 1)
        vectors = []
        for k, length in enumerate(self.lengths):
            part = None if noise is None else (self._rows(noise[0], k, mask.shape), noise[1])
            vectors.append(self.user_vectors(embeddings[:, -length:], mask[:, -length:], part, False))
        return ops.stack(vectors, 0)  # (K_u, B, E)

    def _rows(self, rows, k, shape):
        """The part of the noise for window k: rows of its own, or for causal encoders those of its positions."""
        if self.encoder.causal:
            return rows.reshape(shape)[:, -self.lengths[k] :].reshape(-1)
        return rows.reshape(self.K_u, -1)[k]

    def onnx(self, graph, embeddings, mask, length):
        vectors = []
        for window in self.lengths:
            newest = [graph("Slice", each, [-window], [length], [1]) for each in (embeddings, mask)]
            vectors.append(graph("Unsqueeze", self.encoder.onnx(graph, *newest, window), [0]))
        return self.onnx_heads(graph, graph("Concat", *vectors, axis=0))


TOKENISERS = {"whole": Whole, "heads": Heads, "segments": Segments, "windows": Windows}
