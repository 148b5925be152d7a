"""The query side of a model outside training: histories to tokens and codes."""

import mindspore as ms
import numpy as np
from mindspore import nn


class QuerySide:
    """Encodes any number of histories with a trained model, in evaluation mode and few batch shapes.

    Args:
        model: a model of this package; later changes of its weights do show.
        batch_size: histories encoded at once; the last batch is padded with empty ones.
    """

    def __init__(self, model, batch_size):
        self.model, self.batch_size = model, batch_size
        self._compiled = {}

    def tokens(self, histories):
        """Tokens as the score sees them, `Ragged` of U histories -> (U, K_u, D) float32."""
        if self.model.is_quantised:
            return self.model.quantiser.look_up(self._run("token_indices", histories))
        return self.raw_tokens(histories)

    def raw_tokens(self, histories):
        """Tokens before quantisation, `Ragged` of U histories -> (U, K_u, D) float32."""
        return self._run("tokens", histories)

    def codes(self, histories):
        """Codes of a quantised model, `Ragged` of U histories -> (U, K_u) int64."""
        return self.model.quantiser.encode(self._run("token_indices", histories))

    def _run(self, method, histories):
        cell = self._compiled.setdefault(method, _Method(self.model, method))
        cell.set_train(False)
        rows = histories.tail(self.model.seq_len)  # (U, L)
        # A few queries need no full batch; a power of two keeps the number of compiled shapes small.
        size = min(self.batch_size, 1 << max(len(rows) - 1, 0).bit_length())
        parts = []
        for first in range(0, len(rows), size):
            part = rows[first : first + size]
            padded = np.zeros((size, rows.shape[1]), np.int32)
            padded[: len(part)] = part
            parts.append(cell(ms.Tensor(padded)).asnumpy()[: len(part)])
        return np.concatenate(parts)


class _Method(nn.Cell):
    """A cell of its own for one method of the model, so that it compiles apart from training."""

    def __init__(self, model, method):
        super().__init__(auto_prefix=False)
        self.model, self.method = model, method

    def construct(self, history):
        if self.method == "tokens":
            return self.model.tokens(history)
        return self.model.token_indices(history)
