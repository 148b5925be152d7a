"""The query side of a model outside training: queries to tokens and codes."""

import mindspore as ms
import numpy as np

from data import widths


class QuerySide:
    """Encodes any number of queries with a trained model, in evaluation mode and few batch shapes.

    Its methods take `data.queries.Queries` and read their histories, and of a model with features of users the values
    of their users.

    Args:
        model: a model of this package; later changes of its weights do show.
        batch_size: queries encoded at once, more where they are short; the last batch is padded with empty ones.
    """

    def __init__(self, model, batch_size):
        self.model, self.batch_size = model, batch_size

    def tokens(self, queries):
        """Tokens as the score sees them, U queries -> (U, K_u, D) float32; of a quantised model all it looks up, (U, C,
        D)."""
        tokens = self.raw_tokens(queries)
        return self.looked_up(*self.model.quantiser.keys(tokens)) if self.model.is_quantised else tokens

    def looked_up(self, indices, weights):
        """The weighted codewords of a quantiser's keys, (U, C, M) and (U, C) -> (U, C, D) float32."""
        return self.model.quantiser.look_up(indices) * weights[..., None]

    def keys(self, queries):
        """What a quantised model looks up of U queries: codes (U, C) int64 and their weights (U, C) float32."""
        return self.keys_of(self.raw_tokens(queries))

    def keys_of(self, tokens):
        """The keys of `raw_tokens`."""
        indices, weights = self.model.quantiser.keys(tokens)  # (U, C, M) and (U, C)
        return self.model.quantiser.encode(indices), weights

    def codes(self, queries):
        """The codes of `keys` alone."""
        return self.keys(queries)[0]

    def raw_tokens(self, queries):
        """Tokens before quantisation, U queries -> (U, K_u, D) float32."""
        self.model.encoding.set_train(False)
        values, n_items = queries.histories.values, self.model.items.n_items
        if len(values) and not 1 <= values.min() <= values.max() <= n_items:
            wrong = values[(values < 1) | (values > n_items)][0]
            raise ValueError(f"a history holds item {wrong}, and the model knows the items 1..{n_items}.")
        if self.model.users is not None and queries.users is None:
            raise ValueError("the model reads features of users, and these queries hold none; load them with both.")
        width = self._widths(queries)
        if (width == self.model.seq_len).all():
            return self._encoded(queries, self.model.seq_len)
        rows = [np.flatnonzero(width == each) for each in np.unique(width)]
        found = [self._encoded(queries.take(some), int(width[some[0]])) for some in rows]
        return np.concatenate(found)[np.argsort(np.concatenate(rows))]

    def _widths(self, queries):
        """How many places the history of each query takes, (U,): short ones fewer where that saves much."""
        lengths, longest = queries.histories.lengths(), self.model.seq_len
        if not self.model.every_position:  # others are cut at fixed places
            return np.full(len(lengths), longest)
        # An empty history attends to all of its padding, so how much of it there is must not change.
        return widths.widths(np.where(lengths, lengths, longest), np.ones(len(lengths), np.int64), longest)

    def _encoded(self, queries, width):
        """`raw_tokens` of the last `width` items of each history."""
        inputs = [queries.histories.tail(width)]  # (U, L)
        if self.model.users is not None:
            inputs.append(queries.users)  # (U, W)
        # A few queries need no full batch; a power of two keeps the number of compiled shapes small.
        size = min(self.batch_size * self.model.seq_len // width, 1 << max(len(queries) - 1, 0).bit_length())
        parts = []
        for first in range(0, max(len(queries), 1), size):  # no query at all still has a shape
            batch = [rows[first : first + size] for rows in inputs]
            short = size - len(batch[0])
            padded = [ms.Tensor(np.pad(rows, ((0, short), (0, 0)))) for rows in batch]
            parts.append(self.model.encoding(*padded).asnumpy()[: size - short])
        return np.concatenate(parts)
