"""Networks of the token and the item side by side, the paper's interaction, and of their product too."""

from __future__ import annotations

from retrieval.interactions.base import Interaction, dense_weights, inner_of_parts


class DNN(Interaction):
    """An MLP over [token; K_i item tokens] (SparCode; "NeuMF" without its second table).

    The first layer is split, W [u; v] = W_u u + W_v v, so that each half is computed once per token and once per item
    and not once per pair. This is exact.

    Args:
        K_i: item tokens, each from a Dense layer of its own.
        interaction_hidden: widths of the hidden layers, at least one.
        interaction_dot: whether a dot product stands beside it; then the last layer starts at zero, so that training
            starts from the dot product.
        The others are those of `Interaction`.

    Raises:
        ValueError: there is no hidden layer.
    """

    def __init__(self, embedding_size, token_embedding_size, K_i, interaction_hidden, interaction_dot=True):
        super().__init__(embedding_size, token_embedding_size)
        if not interaction_hidden:
            raise ValueError("an MLP needs a hidden layer; give interaction_hidden a width, or use dot or bilinear")
        self.K_i, self.hidden, self.starts_at_zero = K_i, tuple(interaction_hidden), interaction_dot

    @property
    def pair_floats(self):
        return 3 * max(self.hidden)  # a layer, the next one and a sum

    def weights(self, rng):
        token, heads, hidden = self.token_embedding_size, self.K_i * self.token_embedding_size, self.hidden
        weights = (
            dense_weights(rng, "item_heads", self.embedding_size, heads)
            | dense_weights(rng, "token_half", token, hidden[0])
            | dense_weights(rng, "item_half", heads, hidden[0], has_bias=False)
        )
        for depth in range(len(hidden) - 1):
            weights |= dense_weights(rng, f"deeper.{depth}", hidden[depth], hidden[depth + 1])
        return weights | dense_weights(rng, "out", hidden[-1], 1, at_zero=self.starts_at_zero)

    def token_side(self, xp, w, tokens):
        return (self.dense(xp, w, "token_half", tokens),)  # (..., T, H)

    def item_side(self, xp, w, items):
        return (self.dense(xp, w, "item_half", self.dense(xp, w, "item_heads", items)),)  # (..., C, H)

    def pairs(self, xp, w, tokens, items):
        hidden = xp.relu(self.first(xp, w, tokens, items))
        for depth in range(len(self.hidden) - 1):
            hidden = xp.relu(self.dense(xp, w, f"deeper.{depth}", hidden))
        return self.dense(xp, w, "out", hidden)[..., 0]

    def first(self, xp, w, tokens, items):
        """The first layer before its ReLU, (..., T, C, H)."""
        return tokens[0][..., :, None, :] + items[0][..., None, :, :]


class DNNProduct(DNN):
    """`DNN` over [token; item tokens; token * P item]: the products that an MLP is slow to learn are given to it.

    (The inputs of NeuMF's two halves, He et al., "Neural Collaborative Filtering", 2017, in one MLP.) P is a Dense
    layer of its own. The weights of a hidden unit for the products, times the token, meet the item in an inner
    product, so no pair needs the products themselves.
    """

    def weights(self, rng):
        width = self.token_embedding_size
        weights = dense_weights(rng, "product_item", self.embedding_size, width, has_bias=False)
        weights |= dense_weights(rng, "product_half", width, self.hidden[0], has_bias=False)
        return weights | super().weights(rng)

    def token_side(self, xp, w, tokens):
        weighted = tokens[..., None, :] * w["product_half.weight"]  # (..., T, H, D)
        return (self.dense(xp, w, "token_half", tokens), weighted.reshape(tokens.shape[:-1] + (-1,)))

    def item_side(self, xp, w, items):
        item_half = self.dense(xp, w, "item_half", self.dense(xp, w, "item_heads", items))
        return (item_half, self.dense(xp, w, "product_item", items))

    def first(self, xp, w, tokens, items):
        return super().first(xp, w, tokens, items) + inner_of_parts(xp, tokens[1], items[1], self.hidden[0], 1)
