"""Self-attention among the token and the tokens of an item."""

from __future__ import annotations

import math

from retrieval.interactions.base import Interaction, dense_weights, inner_of_parts


class SelfAttention(Interaction):
    """Self-attention over the token and K_i item tokens, and a linear layer over its 1 + K_i outputs.

    One head of Vaswani et al., "Attention Is All You Need", 2017, used on features as in AutoInt (Song et al., 2019)
    but without its ReLU: then score = sum_jk softmax_k(q_j . k_k / sqrt(D)) (o_j . v_k), and all inner products but
    those of a token with an item are taken once per token or once per item.

    Args:
        K_i: item tokens, each from a Dense layer of its own.
        interaction_dot: see `DNN`.
        The others are those of `Interaction`.
    """

    def __init__(self, embedding_size, token_embedding_size, K_i, interaction_dot=True):
        super().__init__(embedding_size, token_embedding_size)
        self.K_i, self.starts_at_zero = K_i, interaction_dot
        self.scale = 1 / math.sqrt(token_embedding_size)
        self.pair_floats = 5 * (1 + K_i) ** 2  # logits, weights, values ...

    def weights(self, rng):
        width = self.token_embedding_size
        weights = dense_weights(rng, "item_heads", self.embedding_size, self.K_i * width)
        for name in ("query", "key", "value"):
            weights |= dense_weights(rng, name, width, width, has_bias=False)
        at_zero = self.starts_at_zero
        return weights | dense_weights(rng, "out", width, 1 + self.K_i, has_bias=False, at_zero=at_zero)  # o_j

    def token_side(self, xp, w, tokens):
        query, key = self.dense(xp, w, "query", tokens) * self.scale, self.dense(xp, w, "key", tokens)
        values = self.dense(xp, w, "out", self.dense(xp, w, "value", tokens))  # (..., T, 1 + K), one per output
        return (query, key, (query * key).sum(-1)[..., None], values)

    def item_side(self, xp, w, items):
        heads = self.dense(xp, w, "item_heads", items)  # (..., C, K * D)
        rows = heads.reshape(heads.shape[:-1] + (self.K_i, self.token_embedding_size))
        query, key = self.dense(xp, w, "query", rows) * self.scale, self.dense(xp, w, "key", rows)  # (..., C, K, D)
        logits = xp.inner(query, key)  # (..., C, K, K)
        values = self.dense(xp, w, "out", self.dense(xp, w, "value", rows)).swapaxes(-1, -2)  # (..., C, 1 + K, K)
        flat = heads.shape[:-1] + (-1,)
        return (query.reshape(flat), key.reshape(flat), logits.reshape(flat), values.reshape(flat))

    def pairs(self, xp, w, tokens, items):
        n = self.K_i
        shape = tokens[0].shape[:-1] + (items[0].shape[-2],)  # (..., T, C)
        ours = xp.broadcast(tokens[2][..., :, None, :], shape + (1,))
        of_token = xp.concat((ours, self._inner(xp, tokens[0], items[1])))  # (..., T, C, 1 + K)
        theirs = items[2].reshape(items[2].shape[:-1] + (n, n))[..., None, :, :, :]
        of_items = (self._inner(xp, tokens[1], items[0])[..., None], xp.broadcast(theirs, shape + (n, n)))
        # Rows are outputs j, columns what they attend to: the token and the item tokens.
        logits = xp.concat((of_token[..., None, :], xp.concat(of_items)), -2)  # (..., T, C, 1 + K, 1 + K)
        of_token = xp.broadcast(tokens[3][..., :, None, :, None], shape + (1 + n, 1))
        theirs = items[3].reshape(items[3].shape[:-1] + (1 + n, n))[..., None, :, :, :]
        values = xp.concat((of_token, xp.broadcast(theirs, shape + (1 + n, n))))
        return (xp.softmax(logits) * values).sum(-1).sum(-1)

    def _inner(self, xp, tokens, items):
        """Tokens (..., T, D) with the K vectors of each item (..., C, K * D) -> (..., T, C, K)."""
        return inner_of_parts(xp, tokens, items, 1, self.K_i)
