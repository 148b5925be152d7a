"""Interactions: how a token of a user and an item become a score. Each formula is written once.

An interaction is a plain class on array operations. Its methods get those that array libraries spell differently as
`xp` (`Operations` for NumPy, torch and CuPy; `models.interactions` has MindSpore's) and its weights as a dictionary
`w`, so that one formula trains in MindSpore's graph, fills an index on NumPy and does so on a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np


class Operations:
    """What the formulas need beside operators, indexing, reshape and swapaxes.

    Args:
        xp: the namespace of NumPy, torch or CuPy.
    """

    def __init__(self, xp):
        self.xp = xp

    def dense(self, x, weight, bias=None):
        """Affine map of the last axis, (..., a) with weight (b, a) and bias (b,) -> (..., b)."""
        out = x @ weight.T
        return out if bias is None else out + bias

    def inner(self, a, b):
        """Inner products of all rows, (..., T, d) x (..., C, d) -> (..., T, C)."""
        return a @ b.swapaxes(-1, -2)

    def relu(self, x):
        """The larger of x and 0; NaN stays NaN."""
        return self.xp.clip(x, 0, None)


class Interaction:
    """Base of all interactions: score(token, item) = pairs(token_side(token), item_side(item)).

    A subclass gives these three, `weights` where it has any, and its sizes. Both sides are tuples of arrays with the
    rows of tokens or items at axis -2; what can be computed once per item or once per token belongs there. Leading
    axes are those of a batch and broadcast: tokens (..., T, d) meet items that the batch shares (C, e) or items of
    each row (..., C, e).

    Constructor arguments are named like the flags of `work.py`; `interaction` passes those that a class takes.

    Args:
        embedding_size: E, width of an item embedding.
        token_embedding_size: D, width of a token.
    """

    takes_dot = True  # whether interaction_dot puts a dot product beside it; False where it is one, or its rival
    pair_floats = 3  # numbers that `pairs` holds at once for one pair; from it follows the size of a block

    def __init__(self, embedding_size: int, token_embedding_size: int):
        self.embedding_size, self.token_embedding_size = embedding_size, token_embedding_size

    def weights(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Starting values of the weights by name, float32."""
        return {}

    def token_side(self, xp, w, tokens) -> tuple:
        """What `pairs` needs of tokens, (..., T, D) -> arrays (..., T, *)."""
        return (tokens,)

    def item_side(self, xp, w, items) -> tuple:
        """What `pairs` needs of items, (..., C, E) -> arrays (..., C, *)."""
        return (items,)

    def pairs(self, xp, w, tokens, items):
        """Scores of all pairs of two sides -> (..., T, C)."""
        raise NotImplementedError

    def dense(self, xp, w, name, x):
        """The Dense layer `name` of the weights; see `dense_weights`."""
        return xp.dense(x, w[name + ".weight"], w.get(name + ".bias"))


class Dot(Interaction):
    """The inner product of token and item embedding; has no weights.

    Raises:
        ValueError: the two differ in width.
    """

    takes_dot = False

    def __init__(self, embedding_size, token_embedding_size):
        super().__init__(embedding_size, token_embedding_size)
        if embedding_size != token_embedding_size:
            raise ValueError(
                f"a dot product needs tokens as wide as item embeddings, not token_embedding_size "
                f"{token_embedding_size} and embedding_size {embedding_size}; make them equal or use bilinear"
            )

    def pairs(self, xp, w, tokens, items):
        return xp.inner(tokens[0], items[0])


class Bilinear(Interaction):
    """token . P item with a trained matrix P (D, E), which starts as the identity."""

    takes_dot = False

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
        self.pair_floats = 3 * max(self.hidden)  # a layer, the next one and a sum

    def weights(self, rng):
        token, heads, hidden = self.token_embedding_size, self.K_i * self.token_embedding_size, self.hidden
        weights = (
            dense_weights(rng, "item_heads", self.embedding_size, heads)
            | dense_weights(rng, "token_half", token, hidden[0])
            | dense_weights(rng, "item_half", heads, hidden[0], has_bias=False)
        )
        for depth in range(len(hidden) - 1):
            weights |= dense_weights(rng, f"deeper.{depth}", hidden[depth], hidden[depth + 1])
        weights |= dense_weights(rng, "out", hidden[-1], 1)
        if self.starts_at_zero:
            weights["out.weight"][:] = 0
        return weights

    def token_side(self, xp, w, tokens):
        return (self.dense(xp, w, "token_half", tokens),)  # (..., T, H)

    def item_side(self, xp, w, items):
        return (self.dense(xp, w, "item_half", self.dense(xp, w, "item_heads", items)),)  # (..., C, H)

    def pairs(self, xp, w, tokens, items):
        hidden = xp.relu(tokens[0][..., :, None, :] + items[0][..., None, :, :])  # (..., T, C, H)
        for depth in range(len(self.hidden) - 1):
            hidden = xp.relu(self.dense(xp, w, f"deeper.{depth}", hidden))
        return self.dense(xp, w, "out", hidden)[..., 0]


def dense_weights(rng, name: str, width_in: int, width_out: int, has_bias: bool = True) -> dict[str, np.ndarray]:
    """Starting values of a Dense layer: its weight (width_out, width_in) uniform in +-1/sqrt(width_in), its bias 0."""
    scale = 1 / np.sqrt(width_in)
    weights = {f"{name}.weight": rng.uniform(-scale, scale, (width_out, width_in)).astype(np.float32)}
    return weights | {f"{name}.bias": np.zeros(width_out, np.float32)} if has_bias else weights


INTERACTIONS = {"dot": Dot, "bilinear": Bilinear, "DNN": DNN}


def interaction(name: str, settings: Mapping, faster: Mapping | None = None) -> Interaction:
    """The interaction of this name, with a dot product beside it where interaction_dot says so.

    Args:
        name: a key of INTERACTIONS.
        settings: flags and their values; each class takes those that its constructor names.
        faster: classes that compute the same as those of INTERACTIONS, by the same names; taken in their place.

    Raises:
        ValueError: an unknown name, a flag that is missing, or sizes that don't fit.
    """
    if name not in INTERACTIONS:
        raise ValueError(f"unknown interaction {name!r}; choose one of {', '.join(INTERACTIONS)}")
    kind = (faster or {}).get(name, INTERACTIONS[name])
    formula = kind(**settings_of(name, settings, beside=False))
    return DotBeside(formula) if kind.takes_dot and settings.get("interaction_dot", True) else formula


def settings_of(name: str, settings: Mapping, beside: bool = True) -> dict:
    """Those of the settings that the interaction of this name reads.

    Raises:
        ValueError: one that its constructor needs is missing.
    """
    parameters = inspect.signature(INTERACTIONS[name]).parameters
    missing = [key for key, each in parameters.items() if each.default is each.empty and key not in settings]
    if missing:
        raise ValueError(f"the interaction {name} needs {', '.join(missing)}")
    extra = {"interaction_dot"} if beside and INTERACTIONS[name].takes_dot else set()
    return {key: value for key, value in settings.items() if key in parameters or key in extra}
