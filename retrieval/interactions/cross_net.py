"""Cross layers over the token and the item."""

from __future__ import annotations

from retrieval.interactions.base import Interaction, dense_weights


class CrossNet(Interaction):
    """Cross layers x_{l+1} = x_0 * (W_l x_l + b_l) + x_l over x_0 = [token; item], and a linear layer (DCN-v2, Wang et
    al., "DCN V2: Improved Deep & Cross Network", 2021).

    Two layers, the usual number, are an inner product of 3 (D + E) + 2 numbers of the token with as many of the item,
    so a pair costs little more than by a dot product. The linear layer v and the second one give, rearranged,

        v . x_2 = (W_1^T (v * x_0) + v) . x_1 + (v * b_1) . x_0,    x_1 = x_0 * (W_0 x_0 + b_0 + 1),

    that is sum((P + Q) * (A + B) * x_0) and biases, with P and A of the token alone, Q and B of the item; of every
    factor x_0 one half is the token's and the other the item's, and multiplied out each term is a number of the token
    times one of the item. Of other numbers of layers every pair passes through them; the first product with W is split
    as in `DNN`.

    Args:
        interaction_layers: cross layers, at least one.
        interaction_dot: see `DNN`.
        The others are those of `Interaction`.

    Raises:
        ValueError: there is no cross layer.
    """

    def __init__(self, embedding_size, token_embedding_size, interaction_layers=2, interaction_dot=True):
        super().__init__(embedding_size, token_embedding_size)
        if interaction_layers < 1:
            raise ValueError(f"a CrossNet needs a cross layer, not interaction_layers {interaction_layers}")
        self.n_layers, self.starts_at_zero = interaction_layers, interaction_dot
        if interaction_layers != 2:
            self.pair_floats = 4 * (embedding_size + token_embedding_size)  # x_0, x_l, the next one and a product

    def weights(self, rng):
        width, weights = self.token_embedding_size + self.embedding_size, {}
        for layer in range(self.n_layers):
            weights |= dense_weights(rng, f"cross.{layer}", width, width)
        return weights | dense_weights(rng, "out", width, 1, at_zero=self.starts_at_zero)

    def token_side(self, xp, w, tokens):
        size, out = self.token_embedding_size, w["out.weight"][0]
        first = xp.dense(tokens, w["cross.0.weight"][:, :size], w["cross.0.bias"]) + 1  # A (..., T, D + E)
        if self.n_layers != 2:
            return tokens, first
        second = xp.dense(tokens * out[:size], w["cross.1.weight"][:size].swapaxes(0, 1), out)  # P
        a, a_item, p, p_item = first[..., :size], first[..., size:], second[..., :size], second[..., size:]
        bias = (tokens * (p * a + (out * w["cross.1.bias"])[:size])).sum(-1)[..., None] + w["out.bias"]
        parts = tokens * a, tokens * p, tokens, p_item * a_item, p_item, a_item, bias, bias * 0 + 1
        return (xp.concat(parts),)

    def item_side(self, xp, w, items):
        size, out = self.token_embedding_size, w["out.weight"][0]
        first = xp.dense(items, w["cross.0.weight"][:, size:])  # B (..., C, D + E)
        if self.n_layers != 2:
            return items, first
        second = xp.dense(items * out[size:], w["cross.1.weight"][size:].swapaxes(0, 1))  # Q
        b_token, b, q_token, q = first[..., :size], first[..., size:], second[..., :size], second[..., size:]
        bias = (items * (q * b + (out * w["cross.1.bias"])[size:])).sum(-1)[..., None]
        parts = q_token, b_token, q_token * b_token, items, items * b, items * q, bias * 0 + 1, bias
        return (xp.concat(parts),)

    def pairs(self, xp, w, tokens, items):
        if self.n_layers == 2:
            return xp.inner(tokens[0], items[0])
        shape = tokens[0].shape[:-1] + (items[0].shape[-2],)  # (..., T, C)
        token = xp.broadcast(tokens[0][..., :, None, :], shape + (self.token_embedding_size,))
        item = xp.broadcast(items[0][..., None, :, :], shape + (self.embedding_size,))
        start = xp.concat((token, item))  # x_0 (..., T, C, D + E)
        x = start * (tokens[1][..., :, None, :] + items[1][..., None, :, :])
        for layer in range(1, self.n_layers):
            x = start * self.dense(xp, w, f"cross.{layer}", x) + x
        return self.dense(xp, w, "out", x)[..., 0]
