"""Product quantiser: a token is cut in M parts and each part has its own codebook."""

import numpy as np
from mindspore import nn, ops

from models.vq.vq import VectorQuantiser


class ProductQuantiser(nn.Cell):
    """M codebooks of N codewords, shared by all tokens (SparCode, overview figure), with error feedback.

    The code of a token is one integer, sum_m index_m * N^(M-1-m), so that the index needs one key per token.

    Error feedback: the first token of a user is quantised as it is; each later one is asked to hold, beside itself,
    what quantisation lost of those before it (error diffusion, as in half-toning: Floyd and Steinberg, 1976). Scores
    add up over tokens, so as far as a score is linear in the token, errors cancel where they would add up.

    Args:
        num_codebooks: M.
        codewords: N, per codebook.
        width: size of a token; M must divide it.
        decay, restart_below, rng: see `VectorQuantiser`.

    Raises:
        ValueError: M does not divide the width, or codes do not fit in 63 bits.
    """

    def __init__(self, num_codebooks, codewords, width, decay, restart_below, rng):
        super().__init__()
        if width % num_codebooks:
            raise ValueError(f"token width {width} is not divisible by {num_codebooks} codebooks")
        if float(codewords) ** num_codebooks >= 2**63:
            raise ValueError(f"{codewords}^{num_codebooks} codes do not fit in a 64-bit integer")
        self.num_codebooks, self.n_codewords = num_codebooks, codewords
        self.part_width = width // num_codebooks
        self.codebooks = nn.CellList(
            [VectorQuantiser(codewords, self.part_width, decay, restart_below, rng) for _ in range(num_codebooks)]
        )

    def indices(self, tokens):
        """Codewords of tokens, (B, K, D) float32 -> (B, K, M) int32."""
        return ops.stack(self._quantise(tokens)[1], 1)

    def construct(self, tokens):
        """Quantises tokens; in training the codebooks also move (after the look-up).

        Args:
            tokens: (B, K, D) float32.

        Returns:
            quantised (B, K, D): in value the codewords, in gradient the tokens themselves (straight-through), and
            commitment, the mean squared distance between a token with what it was asked to hold and its codewords;
            its gradient moves the token only.
        """
        wanted, indices, codewords = self._quantise(ops.stop_gradient(tokens))
        rows = ops.concat(wanted, 0)                                                 # (K * B, D)
        codewords = ops.stack(codewords, 1)                                          # (B, K, D)
        lost = ops.stack(wanted, 1) - codewords
        if self.training:
            codewords = ops.depend(codewords, self._update(ops.depend(rows, codewords), ops.concat(indices, 0)))
        codewords = ops.stop_gradient(codewords)
        straight = tokens - ops.stop_gradient(tokens)                                # zero, with the gradient of tokens
        return codewords + straight, ops.square(ops.stop_gradient(lost) + straight).mean()

    def _quantise(self, tokens):
        """K-long lists: what each token is asked to hold (B, D), its indices (B, M) and its codewords (B, D)."""
        wanted, indices, codewords = [], [], []
        lost = ops.zeros_like(tokens[:, 0])
        for k in range(tokens.shape[1]):
            asked = tokens[:, k] + lost
            parts = self._parts(asked)
            nearest = [book.nearest(part) for book, part in zip(self.codebooks, parts)]
            found = ops.concat([book.look_up(i) for book, i in zip(self.codebooks, nearest)], 1)
            lost = asked - found
            wanted.append(asked)
            indices.append(ops.stack(nearest, 1))
            codewords.append(found)
        return wanted, indices, codewords

    def _update(self, rows, indices):
        """Moves every codebook by a batch, rows (R, D) and indices (R, M); returns tensors to depend on."""
        moved = []
        for m, (book, part) in enumerate(zip(self.codebooks, self._parts(rows))):
            moved.append(book.update(part, indices[:, m]))
        return moved

    def _parts(self, rows):
        return ops.split(rows, self.part_width, 1)                                   # M x (R, D/M)

    def start(self, tokens, batch_rows, seed):
        """K-means start of every codebook from (R, D) tokens as they are, without feedback; see `VectorQuantiser`."""
        for book, part in zip(self.codebooks, np.split(tokens, self.num_codebooks, axis=1)):
            book.start(np.ascontiguousarray(part), batch_rows, seed)

    def tables(self):
        """The codebooks as one array, (M, N, D/M) float32."""
        return np.stack([book.table.asnumpy() for book in self.codebooks])

    def look_up(self, indices):
        """Quantised tokens of code tuples outside the graph, (..., M) int -> (..., D) float32."""
        parts = [book[indices[..., m]] for m, book in enumerate(self.tables())]
        return np.concatenate(parts, axis=-1)

    def encode(self, indices):
        """Code tuples to integers, (..., M) -> (...) int64."""
        code = np.zeros(indices.shape[:-1], np.int64)
        for m in range(self.num_codebooks):
            code = code * self.n_codewords + indices[..., m]
        return code

    def decode(self, codes):
        """Integers to code tuples, (...) int64 -> (..., M) int32.

        Raises:
            ValueError: a code outside 0 .. N^M - 1.
        """
        codes = np.asarray(codes, np.int64)
        if codes.size and (codes.min() < 0 or codes.max() >= self.n_codewords**self.num_codebooks):
            raise ValueError(f"codes must lie in 0 .. {self.n_codewords**self.num_codebooks - 1}")
        powers = self.n_codewords ** np.arange(self.num_codebooks - 1, -1, -1, dtype=np.int64)
        return (codes[..., None] // powers % self.n_codewords).astype(np.int32)
