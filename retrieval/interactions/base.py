"""What every interaction is: a formula on arrays of tokens and items, and its weights."""

from __future__ import annotations

import math

import numpy as np


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
    linear = False  # whether scores of tokens add up to those of the tokens' sum
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


def inner_of_parts(xp, tokens, items, n_token: int, n_item: int):
    """Inner products of the parts of tokens and of items, as many for each pair as the two have together.

    Args:
        tokens: (..., T, n_token * d).
        items: (..., C, n_item * d).

    Returns:
        (..., T, C, n_token * n_item), the item's parts fastest.
    """
    (n_tokens, width), (n_items, _) = tokens.shape[-2:], items.shape[-2:]
    width //= n_token
    tokens = tokens.reshape(tokens.shape[:-2] + (n_tokens * n_token, width))
    items = items.reshape(items.shape[:-2] + (n_items * n_item, width))
    products = xp.inner(tokens, items)  # (..., T * n_token, C * n_item)
    leading = products.shape[:-2]
    products = products.reshape(leading + (n_tokens, n_token, n_items, n_item)).swapaxes(-2, -3)
    return products.reshape(leading + (n_tokens, n_items, n_token * n_item))


def dense_weights(rng, name: str, width_in: int, width_out: int, has_bias: bool = True, at_zero: bool = False) -> dict:
    """Starting values of a Dense layer: its weight (width_out, width_in) uniform in +-1/sqrt(width_in), its bias 0.

    With at_zero the weight starts at zero as well.
    """
    scale = 0 if at_zero else 1 / math.sqrt(width_in)
    weights = {f"{name}.weight": rng.uniform(-scale, scale, (width_out, width_in)).astype(np.float32)}
    return weights | {f"{name}.bias": np.zeros(width_out, np.float32)} if has_bias else weights
