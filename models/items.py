"""Items as vectors: the one place that holds and reads the item table."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from models.features import ValueTable


class ItemTable(nn.Cell):
    """Ids of items to embeddings: one of each id, to which the mean of those of its features' values is added.

    Args:
        n_items: items are 1 .. n_items, 0 is padding.
        embedding_size: E.
        embedding_std: standard deviation of the embeddings at the start.
        rng: NumPy generator of the starting values.
        item_features: `data.features.FeatureTable` of the items, or None.
    """

    def __init__(self, n_items, embedding_size, embedding_std, rng, item_features=None):
        super().__init__()
        self.n_items, self.embedding_size = n_items, embedding_size
        table = rng.normal(0, embedding_std, (n_items + 1, embedding_size)).astype(np.float32)
        table[0] = 0
        self.table = ms.Parameter(ms.Tensor(table), name="table")  # (n_items + 1, E)
        self.features = None
        if item_features is not None:
            self.features = ValueTable(item_features.n_values, embedding_size, embedding_std, rng)
            self.values = ms.Tensor(item_features.values)  # (n_items + 1, W)

    def construct(self, ids):
        """Embeddings of items, (...) int32 -> (..., E) float32."""
        embeddings = ops.gather(self.table, ids, 0)
        if self.features is not None:
            embeddings = embeddings + self.features(ops.gather(self.values, ids, 0))
        return embeddings

    def history(self, history):
        """(B, L) int32 -> embeddings (B, L, E) with zeros at padding, mask (B, L) float32.

        Padding is masked in the value and so in the gradient: row 0 of the table stays zero.
        """
        mask = (history > 0).astype(ms.float32)
        return self.construct(history) * mask.expand_dims(2), mask

    def vectors(self):
        """Embeddings of all items outside the graph, (n_items, E) float32; row j is item j + 1."""
        return self._rows()[1:]

    def _rows(self):
        """Embeddings of all ids outside the graph, (n_items + 1, E); row 0 is zero."""
        rows = self.table.asnumpy()
        return rows if self.features is None else rows + self.features.means(self.values.asnumpy())

    def onnx(self, graph, history):
        """`history` as nodes of an ONNX graph: names of the embeddings and of the mask; see `models.onnx_export`."""
        mask = graph("Cast", graph("Greater", history, 0), to=graph.onnx.TensorProto.FLOAT)  # (B, L)
        # Gather counts a negative id from the end of the table; sent beyond the end it is an error, like one too large.
        ids = graph("Where", graph("Less", history, 0), self.n_items + 1, history)
        return graph("Gather", self._rows(), ids), mask  # (B, L, E)
