"""K_u user tokens, each scored with every item by an interaction: SparCode's upper bound without a quantiser."""

import mindspore as ms
import numpy as np
from mindspore import ops

from models.BaseModel import BaseModel
from models.interactions import INTERACTIONS
from models.layers import Dense
from models.losses import token_correlation


class AllToAll(BaseModel):
    """score(user, item) = sum_k ReLU(s(token_k, item) + bias), or the plain sum without a bias.

    Args:
        k_u, k_i: tokens per user and per item, each from a Dense layer of its own.
        token_size: width of a token.
        interaction: name of a scorer in `models.interactions`.
        interaction_hidden: widths of its hidden layers.
        score_bias: the bias, or None for the plain sum. More negative means sparser scores.
        decorrelation: weight of the penalty on tokens of a user that point the same way.
        The others are those of `BaseModel`.
    """

    def __init__(
        self, *, k_u, k_i, token_size, interaction, interaction_hidden, score_bias, decorrelation, rng, **base
    ):
        super().__init__(rng=rng, **base)
        self.k_u, self.k_i, self.token_size = k_u, k_i, token_size
        self.score_bias, self.decorrelation = score_bias, decorrelation
        self.user_heads = Dense(self.embedding_size, k_u * token_size)
        self.user_heads.weight.set_data(ms.Tensor(_slices(self.embedding_size, k_u, token_size, rng)))
        self.item_heads = Dense(self.embedding_size, k_i * token_size)
        self.interaction = INTERACTIONS[interaction](token_size, k_i * token_size, interaction_hidden)

    def tokens(self, history, noise=None):
        return self.user_heads(self.user_vector(history, noise)).reshape(-1, self.k_u, self.token_size)

    def score(self, tokens, items):
        scores = self.interaction(tokens, self.item_tokens(items))                   # (B, K_u, C)
        if self.score_bias is not None:
            scores = ops.relu(scores + self.score_bias)
        return scores.sum(1)

    def item_tokens(self, items):
        """K_i tokens of each item side by side, ids (C,) or (B, C) -> (C, K_i * D) or (B, C, K_i * D)."""
        return self.item_heads(ops.gather(self.item_table, items, 0))

    def quantise(self, tokens):
        return tokens, self.decorrelation * token_correlation(tokens)

    def scorer(self):
        items = self.item_table.asnumpy()[1:]
        tokens = items @ self.item_heads.weight.asnumpy().T + self.item_heads.bias.asnumpy()
        return self.interaction.scorer(tokens, self.score_bias)


def _slices(embedding_size, k_u, token_size, rng):
    """Start of the user heads, (k_u * token_size, embedding_size): head k copies every k_u-th coordinate, from k on.

    Tokens that start as copies of one vector stay alike: all heads get the same gradient. These start apart, and
    together they hold the whole user vector.
    """
    weight = rng.normal(0, 0.01, (k_u, token_size, embedding_size))
    for place in range(min(token_size, embedding_size)):
        weight[place % k_u, place, place] += 1
    return weight.reshape(-1, embedding_size).astype(np.float32)
