"""The mixture of logits: cosines of components, weighted pair by pair."""

from __future__ import annotations

from retrieval.interactions.base import Interaction, dense_weights, inner_of_parts


class MoL(Interaction):
    """Mixture of logits: sum_p pi_p <t_p, i_p> / temperature over pairs p of a token's and an item's components.

    Components are L2-normalised; pi is a softmax of g * sigmoid(g), g = (gate of the token) * (gate of the item) +
    (gate of the logits), each gate a small MLP with SiLU (Zhai et al., "Revisiting Neural Retrieval on Accelerators",
    2023; Ding and Zhai, "Retrieval with Learned Similarities", 2024). The softmax stays inside one (token, item), so
    scores of tokens add up. Its dropout of the gates and its loss for balance are left out.

    Args:
        K_i: components of an item, each from a Dense layer of its own and as wide as a token.
        interaction_components: components of a token, likewise.
        interaction_hidden: width of the hidden layer of each gate; exactly one.
        interaction_temperature: the cosines are divided by it.
        The others are those of `Interaction`.

    Raises:
        ValueError: more or less than one hidden layer.
    """

    def __init__(
        self,
        embedding_size,
        token_embedding_size,
        K_i,
        interaction_hidden,
        interaction_components=4,
        interaction_temperature=0.05,
    ):
        super().__init__(embedding_size, token_embedding_size)
        if len(interaction_hidden) != 1:
            raise ValueError(f"the gates of MoL have one hidden layer, not interaction_hidden {interaction_hidden}")
        self.K_i, self.K_t, self.hidden = K_i, interaction_components, interaction_hidden[0]
        self.temperature = interaction_temperature
        self.pair_floats = 5 * self.K_t * K_i + 3 * self.hidden

    def weights(self, rng):
        width, pairs = self.token_embedding_size, self.K_t * self.K_i
        weights = dense_weights(rng, "token_heads", width, self.K_t * width)
        weights |= dense_weights(rng, "item_heads", self.embedding_size, self.K_i * width)
        for gate, width_in in (("token_gate", width), ("item_gate", self.embedding_size), ("logit_gate", pairs)):
            weights |= dense_weights(rng, f"{gate}.hidden", width_in, self.hidden)
            weights |= dense_weights(rng, f"{gate}.out", self.hidden, pairs, has_bias=gate == "logit_gate")
        return weights

    def token_side(self, xp, w, tokens):
        return (self._components(xp, w, "token_heads", tokens), self._gate(xp, w, "token_gate", tokens))

    def item_side(self, xp, w, items):
        components = self._components(xp, w, "item_heads", items) / self.temperature
        return (components, self._gate(xp, w, "item_gate", items))

    def pairs(self, xp, w, tokens, items):
        logits = inner_of_parts(xp, tokens[0], items[0], self.K_t, self.K_i)  # (..., T, C, K_t * K_i)
        gate = tokens[1][..., :, None, :] * items[1][..., None, :, :] + self._gate(xp, w, "logit_gate", logits)
        return (xp.softmax(xp.silu(gate)) * logits).sum(-1)

    def _components(self, xp, w, name, x):
        heads = self.dense(xp, w, name, x)
        parts = heads.reshape(x.shape[:-1] + (-1, self.token_embedding_size))
        return xp.normalise(parts).reshape(heads.shape)

    def _gate(self, xp, w, name, x):
        return self.dense(xp, w, name + ".out", xp.silu(self.dense(xp, w, name + ".hidden", x)))
