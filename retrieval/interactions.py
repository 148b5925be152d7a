"""Interactions: how a token of a user and an item become a score. Each formula is written once.

An interaction is a plain class on array operations. Its methods get those that array libraries spell differently as
`xp` (`Operations` for NumPy, torch and CuPy; `models.interactions` has MindSpore's) and its weights as a dictionary
`w`, so that one formula trains in MindSpore's graph, fills an index on NumPy and does so on a GPU.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping

import numpy as np

TINY = 1e-12  # keeps the length of a zero vector from dividing by zero


class Operations:
    """What the formulas need beside operators, indexing, reshape and swapaxes.

    Args:
        xp: the namespace of NumPy, torch or CuPy.
    """

    def __init__(self, xp):
        self.xp = xp

    def dense(self, x, weight, bias=None):
        """Affine map of the last axis, (..., a) with weight (b, a) and bias (b,) -> (..., b)."""
        rows = x.reshape(-1, x.shape[-1])  # one product, not one for each leading index
        out = (rows @ weight.T).reshape(x.shape[:-1] + (len(weight),))
        return out if bias is None else out + bias

    def inner(self, a, b):
        """Inner products of all rows, (..., T, d) x (..., C, d) -> (..., T, C)."""
        return a @ b.swapaxes(-1, -2)

    def relu(self, x):
        """The larger of x and 0; NaN stays NaN."""
        return self.xp.clip(x, 0, None)

    def silu(self, x):
        """x * sigmoid(x)."""
        return x * (0.5 + 0.5 * self.xp.tanh(0.5 * x))

    def softmax(self, x):
        """Softmax of the last axis."""
        powers = self.xp.exp(x - self.xp.amax(x, axis=-1, keepdims=True))
        return powers / self.xp.sum(powers, axis=-1, keepdims=True)

    def normalise(self, x):
        """Vectors of the last axis over their length."""
        return x / self.xp.sqrt(self.xp.sum(x * x, axis=-1, keepdims=True) + TINY)

    def broadcast(self, x, shape):
        """x repeated along axes of size 1 until it has this shape."""
        return self.xp.broadcast_to(x, shape)

    def concat(self, parts, axis=-1):
        """Arrays joined along an axis."""
        return self.xp.concatenate(parts, axis)


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
                f"{token_embedding_size} and embedding_size {embedding_size}; make them equal or use bilinear"
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


INTERACTIONS = {
    "dot": Dot,
    "GMF": GMF,
    "cosine": Cosine,
    "tower": Tower,
    "bilinear": Bilinear,
    "DNN": DNN,
    "DNNProduct": DNNProduct,
    "CrossNet": CrossNet,
    "SA": SelfAttention,
    "MoL": MoL,
}


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
