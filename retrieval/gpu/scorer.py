"""Scores of codes x items on an array library, from the weights of a PairScorer."""

from __future__ import annotations

import numpy as np

from retrieval.gpu.library import ArrayLibrary
from retrieval.scorer import PairScorer


class ArrayScorer:
    """Scores as `scorer` does, computed by `library`; equal to float32 rounding.

    It can stand wherever a PairScorer that has codewords can. Hidden layers see so many pairs at
    once as fit into library.work_bytes.
    """

    def __init__(self, scorer: PairScorer, library: ArrayLibrary):
        self.library, self.n_items = library, scorer.n_items
        self._scorer, put = scorer, library.put
        offset = np.float32(scorer.out_bias)
        self._offset = put(np.zeros(1, np.float32) + offset)
        if scorer.item_bias is not None:
            self._offset = put(scorer.item_bias + offset)
        if scorer.has_dot:
            self._dot_weight, self._dot_bias = put(scorer.dot_weight.T), put(scorer.dot_bias)
            self._item_dot = put(scorer.item_dot.T)
        if scorer.has_hidden:
            self._token_weight = put(scorer.token_hidden_weight.T)
            self._token_bias = put(scorer.token_hidden_bias)
            self._item_hidden = put(scorer.item_hidden)
            self._layers = [(put(weight.T), put(bias)) for weight, bias in scorer.layers]
            self._out_weight = put(scorer.out_weight)
            widest = max(len(scorer.token_hidden_bias), *(len(bias) for _, bias in scorer.layers), 0)
            self._pairs = max(1, library.work_bytes // (3 * 4 * widest))  # layer, next one, its sum

    def scores(self, codes) -> np.ndarray:
        """Scores of all items: codes int64 [c] -> float32 [c, n_items], column j is item j + 1."""
        return self.library.get(self.array_scores(codes))

    def array_scores(self, codes):
        """`scores`, left on the device as an array of the library."""
        tokens = self.library.put(self._scorer.tokens(codes))  # (c, D)
        scores = self.library.zeros((len(codes), self.n_items))
        with self.library.full_precision():
            if self._scorer.has_dot:
                scores += (tokens @ self._dot_weight + self._dot_bias) @ self._item_dot
            scores += self._offset
            if self._scorer.has_hidden:
                self._add_hidden(tokens @ self._token_weight + self._token_bias, scores)
        if self._scorer.score_bias is not None:
            scores += self._scorer.score_bias
            self._relu(scores)
        return scores

    def _add_hidden(self, firsts, scores) -> None:
        """Add the hidden part of the score of codes, firsts (c, H1), to scores (c, n_items)."""
        n_items = min(self.n_items, self._pairs)
        n_codes = max(1, self._pairs // n_items)
        for code in range(0, len(firsts), n_codes):
            for item in range(0, self.n_items, n_items):
                codes, items = slice(code, code + n_codes), slice(item, item + n_items)
                block = scores[codes, items]  # a view
                hidden = firsts[codes, None] + self._item_hidden[items]
                hidden = hidden.reshape(-1, hidden.shape[-1])  # (pairs, H1)
                self._relu(hidden)
                for weight, bias in self._layers:
                    hidden = hidden @ weight
                    hidden += bias
                    self._relu(hidden)
                block += (hidden @ self._out_weight).reshape(block.shape)

    def _relu(self, values) -> None:
        self.library.xp.clip(values, 0, None, out=values)
