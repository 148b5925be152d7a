"""Scores of codes x items from plain weight arrays, near the speed of the matrix product.

The first layer is split: W [z; v] = W_z z + W_v v, so the item half is computed once for all codes
(given as `item_hidden`) and the code half once per code; a pair then costs an addition there
instead of a product. The remaining layers run on blocks of items that stay in the cache: a matrix
product of the BLAS, then bias and ReLU in one pass.
"""

from __future__ import annotations

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from retrieval.search import available_cores

ITEMS_PER_BLOCK = 1024  # 1 MB of activations at width 256


class PairScorer:
    """Scores a code c and an item i by ReLU(s + score_bias), or by s where score_bias is None:

        s = dot + e_i + hidden + b
        dot = (W_d z_c + b_d) . d_i
        hidden = w . relu(W_L ... relu(W_2 relu(W_1 z_c + b_1 + h_i) + b_2) ... + b_L)

    z_c is the token of the code: codeword c_1 of the first codebook plus c_2 of the second ...
    All arrays are float32:

        codewords            [M, N, D]; without them tokens can be scored, codes can't
        token_hidden_weight  W_1 [H1, D], token_hidden_bias b_1 [H1], item_hidden h [n_items, H1]
        layers               (W [H_out, H_in], b [H_out]) of the hidden layers from the second on
        out_weight           w [H_last], out_bias b: a number
        token_dot            (W_d [P, D], b_d [P]), item_dot d [n_items, P]
        item_bias            e [n_items]

    They are kept under these names, token_dot as dot_weight and dot_bias. layers may be empty; the
    hidden part, the dot part and item_bias may each be left out, but not both parts. Raises
    ValueError for arrays that don't fit together or are not finite.
    """

    def __init__(
        self,
        codewords=None,
        token_hidden_weight=None,
        token_hidden_bias=None,
        item_hidden=None,
        layers=(),
        out_weight=None,
        out_bias: float = 0.0,
        *,
        token_dot=None,
        item_dot=None,
        item_bias=None,
        score_bias: float | None = None,
        threads: int | None = None,
    ):
        self.codewords = None if codewords is None else _codebooks(codewords)
        self.score_bias = None if score_bias is None else _number("score_bias", score_bias)
        self.out_bias = _number("out_bias", out_bias)
        self._threads = threads or available_cores()

        hidden = (token_hidden_weight, token_hidden_bias, item_hidden, out_weight)
        self.has_hidden = all(part is not None for part in hidden)
        if not self.has_hidden and (layers or any(part is not None for part in hidden)):
            raise ValueError("The hidden part of a scorer needs its first layer, item_hidden and out_weight together.")
        if (token_dot is None) != (item_dot is None):
            raise ValueError("The dot part of a scorer needs token_dot and item_dot together.")
        if not self.has_hidden and token_dot is None:
            raise ValueError("A scorer needs a hidden part, a dot part, or both.")

        n_items = len(item_hidden if self.has_hidden else item_dot)
        if self.codewords is not None:
            self.token_width = self.codewords.shape[2]
        else:
            self.token_width = np.shape(token_hidden_weight if self.has_hidden else token_dot[0])[-1]
        if self.has_hidden:
            self.item_hidden = _finite("item_hidden", item_hidden, (n_items, None))
            last = self.item_hidden.shape[1]
            self.token_hidden_weight = _finite("token_hidden_weight", token_hidden_weight, (last, self.token_width))
            self.token_hidden_bias = _finite("token_hidden_bias", token_hidden_bias, (last,))
            self.layers = []
            for depth, (weight, bias) in enumerate(layers, start=2):
                weight = _finite(f"weight of hidden layer {depth}", weight, (None, last))
                last = len(weight)
                self.layers.append((weight, _finite(f"bias of hidden layer {depth}", bias, (last,))))
            self.out_weight = _finite("out_weight", out_weight, (last,))
        self.has_dot = token_dot is not None
        if self.has_dot:
            self.item_dot = _finite("item_dot", item_dot, (n_items, None))
            rank = self.item_dot.shape[1]
            self.dot_weight = _finite("weight of token_dot", token_dot[0], (rank, self.token_width))
            self.dot_bias = _finite("bias of token_dot", token_dot[1], (rank,))
        self.item_bias = None if item_bias is None else _finite("item_bias", item_bias, (n_items,))
        self.n_items = n_items

    @property
    def flops_per_pair(self) -> int:
        """Multiplications and additions of the matrix products that one (code, item) pair costs."""
        flops = 2 * self.item_dot.shape[1] if self.has_dot else 0
        if self.has_hidden:
            flops += sum(2 * weight.size for weight, _ in self.layers) + 2 * len(self.out_weight)
        return flops

    def tokens(self, codes) -> np.ndarray:
        """Quantised tokens of codes: int64 [c] -> float32 [c, D].

        Raises ValueError for a code out of range, or when the scorer has no codewords.
        """
        if self.codewords is None:
            raise ValueError("This scorer has no codewords; give it some, or score tokens.")
        codes = np.asarray(codes)
        if codes.ndim != 1 or codes.dtype.kind not in "iu":
            raise ValueError(f"Codes must be one row of integers, not {codes.dtype} of shape {codes.shape}.")
        n_books, n_codewords, _ = self.codewords.shape
        n_codes = n_codewords**n_books
        outside = (codes < 0) | (codes >= n_codes)
        if outside.any():
            raise ValueError(f"Code {codes[outside][0]} is outside 0..{n_codes - 1}, the codes of these codebooks.")
        words = np.empty((len(codes), n_books), np.int64)
        for book in range(n_books - 1, -1, -1):  # the last codebook is the lowest digit
            codes, words[:, book] = np.divmod(codes, n_codewords)
        return self.codewords[np.arange(n_books), words].sum(1)

    def scores(self, codes) -> np.ndarray:
        """Scores of all items: codes int64 [c] -> float32 [c, n_items], column j is item j + 1."""
        return self.token_scores(self.tokens(codes))

    def token_scores(self, tokens) -> np.ndarray:
        """Scores of all items for any tokens: float32 [c, D] -> float32 [c, n_items]."""
        out = np.empty((len(tokens), self.n_items), np.float32)
        offset = np.float32(self.out_bias) if self.item_bias is None else self.item_bias + np.float32(self.out_bias)
        if self.has_hidden:
            firsts = tokens @ self.token_hidden_weight.T + self.token_hidden_bias  # (c, H1)
        if self.has_dot:
            dots = tokens @ self.dot_weight.T + self.dot_bias  # (c, P)

        def score(rows: slice) -> None:
            part = out[rows]
            if self.has_dot:
                np.matmul(dots[rows], self.item_dot.T, out=part)
                part += offset
            else:
                part[:] = offset
            if self.has_hidden:
                self._add_hidden(firsts[rows], part)
            if self.score_bias is not None:
                part += np.float32(self.score_bias)
                np.maximum(part, np.float32(0), out=part)

        n_tasks = min(len(tokens), 8 * self._threads) if self._threads > 1 else 1
        cuts = np.linspace(0, len(tokens), n_tasks + 1).astype(np.int64)
        parts = [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if b > a]
        with _one_blas_thread() as limited:
            # Where the BLAS can't be told to keep to one thread, it has the cores and we keep to
            # one.
            if not limited or self._threads == 1 or len(parts) < 2:
                for rows in parts:
                    score(rows)
            else:
                with ThreadPoolExecutor(self._threads) as pool:
                    list(pool.map(score, parts))
        return out

    def _add_hidden(self, firsts: np.ndarray, out: np.ndarray) -> None:
        """Add the hidden part of the score of codes, firsts [c, H1], to out [c, n_items]."""
        widths = [self.item_hidden.shape[1], *(len(bias) for _, bias in self.layers)]
        rows = min(ITEMS_PER_BLOCK, self.n_items)
        buffers = [np.empty((rows, width), np.float32) for width in widths]
        transposed = [weight.T for weight, _ in self.layers]
        no_bias = np.zeros(widths[-1], np.float32)
        for start in range(0, self.n_items, rows):
            items = self.item_hidden[start : start + rows]
            blocks = [buffer[: len(items)] for buffer in buffers]
            for code, first in enumerate(firsts):
                _add_relu(items, first, blocks[0])
                for depth, weight in enumerate(transposed):
                    np.matmul(blocks[depth], weight, out=blocks[depth + 1])
                    if depth + 1 < len(transposed):
                        _add_relu(blocks[depth + 1], self.layers[depth][1], blocks[depth + 1])
                # The last layer's bias and ReLU ride along with the output weights; without layers
                # both are done above.
                bias = self.layers[-1][1] if self.layers else no_bias
                _add_output(blocks[-1], bias, self.out_weight, out[code, start : start + rows])


@numba.njit(nogil=True, cache=True)
def _add_relu(rows, bias, out):
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            value = rows[i, j] + bias[j]
            out[i, j] = np.float32(0) if value < 0 else value  # in this order NaN stays NaN


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _add_output(rows, bias, weight, out):
    """out += relu(rows + bias) @ weight; reassociation lets the sum use vector registers."""
    for i in range(rows.shape[0]):
        total = np.float32(0)
        for j in range(rows.shape[1]):
            value = rows[i, j] + bias[j]
            total += weight[j] * (np.float32(0) if value < 0 else value)
        out[i] += total


@contextlib.contextmanager
def _one_blas_thread():
    """Hold the BLAS to one thread per call; yields whether that could be done."""
    blas = _blas()
    if blas is None:
        yield False
        return
    with blas.limit(limits=1):
        yield True


@functools.cache
def _blas():
    """The BLAS that is loaded, to be held back; None without threadpoolctl. Looking for it takes milliseconds."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def _number(name: str, value) -> float:
    if not np.isfinite(value):
        raise ValueError(f"Scorer: {name} must be a finite number, not {value}.")
    return float(value)


def _codebooks(codewords) -> np.ndarray:
    codewords = _finite("codewords", codewords, (None, None, None))
    n_books, n_codewords, _ = codewords.shape
    if n_codewords**n_books > 2**63 - 1:
        raise ValueError(f"{n_books} codebooks of {n_codewords} codewords give more codes than 64 bits can count.")
    return codewords


def _finite(name: str, array, shape: tuple) -> np.ndarray:
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=False)):
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"Scorer: {name} has shape {array.shape}, expected {wanted}.")
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Scorer: {name} is empty or holds numbers that are not finite.")
    return array
