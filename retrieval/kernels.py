"""Interactions of which the numba path is measured to be faster than array operations (benchmarks/build_index.py)."""

from __future__ import annotations

import numba
import numpy as np

from retrieval.interactions.dnn import DNN

ITEMS_PER_BLOCK = 1024  # 1 MB of activations at width 256


class KernelDNN(DNN):
    """`DNN` on NumPy: one code and a block of items that stays in the cache at a time.

    A hidden layer is a matrix product of the BLAS, then bias and ReLU in one pass; the last one's ride along with the
    output weights.
    """

    pair_floats = 1  # it makes blocks of its own

    def pairs(self, xp, w, tokens, items):
        tokens, items = tokens[0], items[0]  # (T, H), (C, H)
        out = np.full((len(tokens), len(items)), w["out.bias"])
        weights = [w[f"deeper.{depth}.weight"].T for depth in range(len(self.hidden) - 1)]
        # The first layer's bias is in the tokens' side.
        biases = [np.zeros(self.hidden[0], np.float32)]
        biases += [w[f"deeper.{depth}.bias"] for depth in range(len(self.hidden) - 1)]
        rows = min(ITEMS_PER_BLOCK, len(items))
        buffers = [np.empty((rows, width), np.float32) for width in self.hidden]
        for start in range(0, len(items), rows):
            part = items[start : start + rows]
            blocks = [buffer[: len(part)] for buffer in buffers]
            for token, token_half in enumerate(tokens):
                _add_relu(part, token_half, blocks[0])
                for depth, weight in enumerate(weights):
                    if depth:
                        _add_relu(blocks[depth], biases[depth], blocks[depth])
                    np.matmul(blocks[depth], weight, out=blocks[depth + 1])
                _add_output(blocks[-1], biases[-1], w["out.weight"][0], out[token, start : start + rows])
        return out


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


KERNELS = {"DNN": KernelDNN}
