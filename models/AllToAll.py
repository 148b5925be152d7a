"""K_u user tokens, each scored with every item by an interaction: SparCode's upper bound without a quantiser."""

import mindspore as ms
import numpy as np
from mindspore import ops

from models.BaseModel import BaseModel
from models.interactions import InteractionCell


class AllToAll(BaseModel):
    """score(user, item) = sum_k ReLU(s(token_k, item) + bias), or the plain sum without a bias.

    The history is cut in K_u segments of equal length, oldest first. The user encoder reads each of them, and a Dense
    layer of its own makes token k of segment k. So tokens hold different things, and recent items may count for more
    than old ones. (Tokens that are K_u Dense layers of one pooled vector, as in the release, become copies of each
    other: as long as scores add up, all of them get the same gradient.)

    Args:
        k_u, k_i: tokens per user and per item; k_u must divide the length of a history.
        token_size: width of a token.
        interaction: name of a formula in `retrieval.interactions`.
        interaction_hidden, interaction_dot: see there.
        score_bias: the bias, or None for the plain sum. More negative means sparser scores.
        The others are those of `BaseModel`.

    Raises:
        ValueError: k_u does not divide seq_len.
    """

    def __init__(
        self, *, k_u, k_i, token_size, interaction, interaction_hidden, interaction_dot, score_bias, rng, **base
    ):
        super().__init__(rng=rng, **base)
        if self.seq_len % k_u:
            raise ValueError(f"seq_len {self.seq_len} cannot be cut in K_u = {k_u} equal segments")
        self.k_u, self.token_size, self.score_bias = k_u, token_size, score_bias
        self.noise_width = k_u * self.encoder.noise_width
        # Every head starts as the identity and a little noise.
        heads = np.eye(self.embedding_size, token_size) + rng.normal(0, 0.01, (k_u, self.embedding_size, token_size))
        self.user_heads = ms.Parameter(ms.Tensor(heads.astype(np.float32)), name="user_heads")  # (K_u, E, D)
        self.user_bias = ms.Parameter(ms.Tensor(np.zeros((k_u, 1, token_size), np.float32)), name="user_bias")
        flags = {"embedding_size": self.embedding_size, "token_embedding_size": token_size, "K_i": k_i}
        flags |= {"interaction_hidden": interaction_hidden, "interaction_dot": interaction_dot}
        self.interaction = InteractionCell(interaction, flags, rng)

    def tokens(self, history, noise=None):
        segments = history.reshape(-1, self.seq_len // self.k_u)  # (B * K_u, L / K_u)
        if noise is not None:
            noise = noise.reshape(segments.shape[0], -1)
        vectors = self.user_vector(segments, noise).reshape(-1, self.k_u, self.embedding_size)
        tokens = ops.BatchMatMul()(vectors.swapaxes(0, 1), self.user_heads) + self.user_bias  # (K_u, B, D)
        return tokens.swapaxes(0, 1)

    def score(self, tokens, items):
        scores = self.interaction(tokens, ops.gather(self.item_table, items, 0))  # (B, K_u, C)
        if self.score_bias is not None:
            scores = ops.relu(scores + self.score_bias)
        return scores.sum(1)

    def scorer(self, codewords=None):
        return self.interaction.scorer(self.item_table.asnumpy()[1:], self.score_bias, codewords)
