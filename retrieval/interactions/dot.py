"""Inner products of a token and an item: plain, weighted, of directions, through a matrix, beside another formula."""

from __future__ import annotations

import numpy as np

from retrieval.interactions.base import Interaction, dense_weights


class Dot(Interaction):
    """The inner product of token and item embedding; has no weights.

    Raises:
        ValueError: the two differ in width.
    """

    takes_dot, linear = False, True

    def __init__(self, embedding_size, token_embedding_size):
        super().__init__(embedding_size, token_embedding_size)
        if embedding_size != token_embedding_size:
            raise ValueError(
                f"a dot product needs tokens as wide as item embeddings, not token_embedding_size "
                f"{token_embedding_size} and embedding_size {embedding_size}; make them equal, or use bilinear and the "
                "tokeniser heads"
            )

    def pairs(self, xp, w, tokens, items):
        return xp.inner(tokens[0], items[0])


class GMF(Dot):
    """Generalised matrix factorisation: sum_d h_d token_d item_d, h trained (He et al., "Neural Collaborative
    Filtering", 2017). It starts as the dot product, h = 1.
    """

    def weights(self, rng):
        return {"out.weight": np.ones((1, self.token_embedding_size), np.float32)}

    def token_side(self, xp, w, tokens):
        return (tokens * w["out.weight"],)


class Cosine(Dot):
    """The cosine of token and item over a temperature, as in contrastive learning; the control of formulas that
    normalise.

    Args:
        interaction_temperature: the cosine is divided by it.
        The others are those of `Dot`.
    """

    linear = False

    def __init__(self, embedding_size, token_embedding_size, interaction_temperature=0.05):
        super().__init__(embedding_size, token_embedding_size)
        self.temperature = interaction_temperature

    def token_side(self, xp, w, tokens):
        return (xp.normalise(tokens),)

    def item_side(self, xp, w, items):
        return (xp.normalise(items) / self.temperature,)


class Tower(Cosine):
    """The cosine of the token and an MLP of the item, over a temperature: the item's tower of DSSM, whose other one is
    the encoder (Huang et al., "Learning Deep Structured Semantic Models for Web Search", 2013).

    Args:
        interaction_hidden: widths of the hidden layers of the item's tower.
        The others are those of `Cosine`.
    """

    def __init__(self, embedding_size, token_embedding_size, interaction_hidden, interaction_temperature=0.05):
        super().__init__(embedding_size, token_embedding_size, interaction_temperature)
        self.widths = (embedding_size, *interaction_hidden, token_embedding_size)

    def weights(self, rng):
        weights = {}
        for depth, (before, after) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            weights |= dense_weights(rng, f"tower.{depth}", before, after)
        return weights

    def item_side(self, xp, w, items):
        for depth in range(len(self.widths) - 2):
            items = xp.relu(self.dense(xp, w, f"tower.{depth}", items))
        return super().item_side(xp, w, self.dense(xp, w, f"tower.{len(self.widths) - 2}", items))


class Bilinear(Interaction):
    """token . P item with a trained matrix P (D, E), which starts as the identity."""

    takes_dot, linear = False, True

    def weights(self, rng):
        return {"project.weight": np.eye(self.token_embedding_size, self.embedding_size, dtype=np.float32)}

    def item_side(self, xp, w, items):
        return (self.dense(xp, w, "project", items),)

    def pairs(self, xp, w, tokens, items):
        return xp.inner(tokens[0], items[0])


class DotBeside(Interaction):
    """A dot product beside another formula: token . P item + formula(token, item), P as in `Bilinear`.

    An MLP needs very long to learn an inner product (Rendle et al., "Neural Collaborative Filtering vs. Matrix
    Factorization Revisited", 2020), hence the shortcut. The release scores without it.

    Args:
        formula: the interaction that it stands beside.
    """

    def __init__(self, formula: Interaction):
        super().__init__(formula.embedding_size, formula.token_embedding_size)
        self.dot, self.formula = Bilinear(formula.embedding_size, formula.token_embedding_size), formula
        self.pair_floats = formula.pair_floats + 1

    def weights(self, rng):
        return self.dot.weights(rng) | self.formula.weights(rng)

    def token_side(self, xp, w, tokens):
        return self.dot.token_side(xp, w, tokens) + self.formula.token_side(xp, w, tokens)

    def item_side(self, xp, w, items):
        return self.dot.item_side(xp, w, items) + self.formula.item_side(xp, w, items)

    def pairs(self, xp, w, tokens, items):
        return self.dot.pairs(xp, w, tokens[:1], items[:1]) + self.formula.pairs(xp, w, tokens[1:], items[1:])
