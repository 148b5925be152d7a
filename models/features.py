"""Values of features as vectors: of items beside their ids, of a user beside the items of the history."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class ValueTable(nn.Cell):
    """Feature values to the mean of their embeddings; 0 is no value and does not count, the mean of none is zero.

    Args:
        n_values: values are 1 .. n_values.
        embedding_size: E.
        embedding_std: standard deviation of the embeddings at the start.
        rng: NumPy generator of the starting values.
    """

    def __init__(self, n_values, embedding_size, embedding_std, rng):
        super().__init__()
        table = rng.normal(0, embedding_std, (n_values + 1, embedding_size)).astype(np.float32)
        table[0] = 0
        self.table = ms.Parameter(ms.Tensor(table), name="table")  # (n_values + 1, E)

    def construct(self, values):
        """(..., W) int32 -> (..., E) float32. Row 0 of the table is masked in the value and so in the gradient."""
        mask = (values > 0).astype(ms.float32).expand_dims(-1)  # (..., W, 1)
        return (ops.gather(self.table, values, 0) * mask).sum(-2) / ops.clamp(mask.sum(-2), min=1.0)

    def means(self, values):
        """The same outside the graph, (N, W) int32 array -> (N, E) float32 array."""
        table, columns = self.table.asnumpy(), values.T
        total = np.zeros((len(values), table.shape[1]), np.float32)
        for column in columns:  # one by one: W times the result would be large for a large catalogue
            total += table[column]
        return total / np.maximum((values > 0).sum(1, keepdims=True), 1).astype(np.float32)

    def onnx(self, graph, values):
        """`construct` as nodes of an ONNX graph, (B, W) -> (B, E); see `models.onnx_export`."""
        table = self.table.asnumpy()
        mask = graph("Cast", graph("Greater", values, 0), to=graph.onnx.TensorProto.FLOAT)  # (B, W)
        # Gather counts a negative id from the end of the table; sent beyond the end it is an error.
        ids = graph("Where", graph("Less", values, 0), len(table), values)
        total = graph("ReduceSum", graph("Gather", table, ids), [1], keepdims=0)  # (B, E), row 0 of the table is 0
        return graph("Div", total, graph("Max", graph("ReduceSum", mask, [1], keepdims=1), np.float32(1)))


class UserFeatures(nn.Cell):
    """Adds what is known of a user to the items of the history, so that every encoder and tokeniser sees it.

    Args:
        user_features: `data.features.FeatureTable` of the users.
        embedding_size, embedding_std, rng: see `ValueTable`.

    Attributes:
        names: what the values mean, such as "gender=F"; entry 0 is "".
    """

    def __init__(self, user_features, embedding_size, embedding_std, rng):
        super().__init__()
        self.names = user_features.names
        self.values = ValueTable(user_features.n_values, embedding_size, embedding_std, rng)

    def construct(self, embeddings, mask, user):
        """Embeddings (B, L, E), mask (B, L), values of the users (B, W) int32 -> (B, L, E), zeros at padding."""
        return embeddings + self.values(user).expand_dims(1) * mask.expand_dims(2)

    def onnx(self, graph, embeddings, mask, user):
        """`construct` as nodes of an ONNX graph; see `models.onnx_export`."""
        known = graph("Unsqueeze", self.values.onnx(graph, user), [1])  # (B, 1, E)
        return graph("Add", embeddings, graph("Mul", known, graph("Unsqueeze", mask, [2])))
