"""What every quantiser of tokens is: codewords, the codes they are known by, and what a user looks up."""

import numpy as np
from mindspore import nn


class Quantiser(nn.Cell):
    """M codebooks of N codewords. A code tuple is one integer, sum_m index_m * N^(M-1-m), so an index needs one key.

    Args:
        num_codebooks: M.
        K_c: N, codewords per codebook.

    Attributes:
        lookups: P, codes of what has codes of its own: a token, or a user.
        times: how many tokens those codes make together: one, whose parts they are, or P, each being all of it.

    Raises:
        ValueError: codes do not fit in 63 bits.
    """

    times = 1
    trains = True  # whether it may take part in training, by `construct`

    def __init__(self, num_codebooks, K_c):
        super().__init__()
        if float(K_c) ** num_codebooks >= 2**63:
            raise ValueError(f"{K_c}^{num_codebooks} codes do not fit in a 64-bit integer")
        self.num_codebooks, self.n_codewords = num_codebooks, K_c
        self.features = None  # `ScoreFeatures` where they take the place of tokens

    def start(self, tokens, batch_rows, seed, judge=None):
        """Chooses the codewords.

        Args:
            tokens: (U, K, D) float32 array, of training histories.
            batch_rows: tokens per training batch.
            seed: of k-means.
            judge: function of a number of look-ups: how well they rank as the codewords now stand, the more the
                better, and whether that is enough; None: none asks.
        """
        raise NotImplementedError

    def tables(self):
        """The codebooks as one array of full width, (M, N, D) float32: a token is the sum of M codewords."""
        raise NotImplementedError

    def codes_per_user(self, n_tokens):
        """How many codes a user of so many tokens looks up, C."""
        raise NotImplementedError

    def keys(self, tokens):
        """What users look up, outside the graph.

        Args:
            tokens: (B, K, D) float32 array.

        Returns:
            Codewords (B, C, M) int32 and the weights of their lists (B, C) float32, none below 0.
        """
        raise NotImplementedError

    def onnx(self, graph, tokens, n_tokens):
        """`keys` as nodes of an ONNX graph, tokens (K, B, D) -> codes (B, C) int64 and weights (B, C) float32; see
        `models.onnx_export`."""
        raise NotImplementedError

    @property
    def n_codes(self):
        """How many code tuples there are: codes are 0 .. n_codes - 1."""
        return self.n_codewords**self.num_codebooks

    def look_up(self, indices):
        """Quantised tokens of code tuples outside the graph, (..., M) int -> (..., D) float32."""
        return sum(table[indices[..., m]] for m, table in enumerate(self.tables()))

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
        if codes.size and (codes.min() < 0 or codes.max() >= self.n_codes):
            raise ValueError(f"codes must lie in 0 .. {self.n_codes - 1}")
        powers = self.n_codewords ** np.arange(self.num_codebooks - 1, -1, -1, dtype=np.int64)
        return (codes[..., None] // powers % self.n_codewords).astype(np.int32)
