"""User encoders: a history of item embeddings becomes a user vector.

An encoder says how many numbers its dropouts take (`noise_width`, one for each column of what they see; see
`layers.dropout`) and whether it is `causal`: then it gives the user vector of every position, made of what stands up to
it, trains on all positions of a sequence in one pass, and is told whether `every` one is wanted or the last alone; it
takes histories of any length up to `seq_len`, as short ones stand in batches of their own; where it is not `parallel`,
it trains on short sequences unless told otherwise. One whose own class says `views` also takes V masks of every
history, (B, V, L), and gives the vectors of all these views of it, (B * V, E).
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from models.gru4rec import GRU4Rec
from models.layers import MLP, Dense, MaskedMean, dropout
from models.ligr import LiGR
from models.sasrec import SASRec


class DNN(nn.Cell):
    """Mean of the history, then an MLP, beside a shortcut where asked for: user = mean + MLP(mean).

    The release has the MLP alone. With the shortcut the user vector starts as the mean of the item embeddings, which
    already ranks related items first, so training leaves the popularity plateau in half the epochs.

    Args:
        embedding_size: E.
        hidden: widths of the hidden layers.
        encoder_shortcut: whether the mean is added to the MLP's output.
        dropout: share of hidden activations zeroed in training.
        history_dropout: share of the mean's coordinates zeroed in training.
    """

    causal, views = False, True

    def __init__(self, embedding_size, hidden, encoder_shortcut, dropout, history_dropout):
        super().__init__()
        self.mean = MaskedMean()
        self.width, self.shortcut, self.history_dropout = embedding_size, encoder_shortcut, history_dropout
        self.mlp = MLP([embedding_size, *hidden], dropout)
        self.out = Dense(hidden[-1] if hidden else embedding_size, embedding_size)
        self.noise_width = embedding_size + self.mlp.noise_width

    def construct(self, embeddings, mask, noise):
        """Embeddings (B, L, E), mask (B, L) or masks (B, V, L), 1 at items, noise (B * V,) and (noise_width,) or None
        -> (B * V, E) float32."""
        masks = mask if mask.ndim == 3 else mask.expand_dims(1)
        mean = self.mean(embeddings, masks).reshape(-1, self.width)  # (B * V, E)
        rest = None
        if noise is not None:
            rows, columns = noise
            mean = dropout(mean, (rows, columns[: self.width]), self.history_dropout)
            rest = rows, columns[self.width :]
        user = self.out(self.mlp(mean, rest))
        return mean + user if self.shortcut else user

    def onnx(self, graph, embeddings, mask, length):
        """`construct` without dropout as nodes of an ONNX graph; see `models.onnx_export`."""
        mean = self.mean.onnx(graph, embeddings, mask)
        user = self.out.onnx(graph, self.mlp.onnx(graph, mean))
        return graph("Add", mean, user) if self.shortcut else user


class YoutubeDNN(DNN):
    """Mean of the history, then an MLP without a shortcut (Covington et al., "Deep Neural Networks for YouTube
    Recommendations", 2016, without its side features); arguments as those of `DNN`."""

    views = True

    def __init__(self, embedding_size, hidden, dropout, history_dropout):
        super().__init__(embedding_size, hidden, False, dropout, history_dropout)


class DSSM(nn.Cell):
    """The last item and the mean of the history side by side, then an MLP: the user tower of MetaSpore's DSSM
    (demo/twotower/dssm), without the id of the user, which a new user has not got.

    Args:
        embedding_size: E, of an item and of the user vector.
        hidden: widths of the hidden layers.
        dropout: share of hidden activations zeroed in training.
    """

    causal = False

    def __init__(self, embedding_size, hidden, dropout):
        super().__init__()
        self.mean = MaskedMean()
        self.mlp = MLP([2 * embedding_size, *hidden], dropout)
        self.out = Dense(hidden[-1] if hidden else 2 * embedding_size, embedding_size)
        self.noise_width = self.mlp.noise_width

    def construct(self, embeddings, mask, noise):
        """Embeddings (B, L, E), mask (B, L), noise (B,) and (noise_width,) or None -> (B, E) float32."""
        mean = self.mean(embeddings, mask.expand_dims(1)).squeeze(1)
        return self.out(self.mlp(ops.concat((embeddings[:, -1], mean), 1), noise))

    def onnx(self, graph, embeddings, mask, length):
        """`construct` without dropout as nodes of an ONNX graph; see `models.onnx_export`."""
        last = graph("Gather", embeddings, np.int64(-1), axis=1)  # (B, E)
        x = graph("Concat", last, self.mean.onnx(graph, embeddings, mask), axis=1)
        return self.out.onnx(graph, self.mlp.onnx(graph, x))


class SimpleX(nn.Cell):
    """The mean of the history through a matrix V that starts as the identity (Mao et al., "SimpleX: A Simple and Strong
    Baseline for Collaborative Filtering", 2021), without the vector of the user's id, which a new user has not got. Its
    loss is CCL, its score the cosine.

    Args:
        embedding_size: E.
        history_dropout: share of the mean's coordinates zeroed in training.
    """

    causal = False

    def __init__(self, embedding_size, history_dropout):
        super().__init__()
        self.mean, self.share, self.noise_width = MaskedMean(), history_dropout, embedding_size
        self.project = Dense(embedding_size, embedding_size, has_bias=False)
        self.project.weight.set_data(ms.Tensor(np.eye(embedding_size, dtype=np.float32)))

    def construct(self, embeddings, mask, noise):
        """Embeddings (B, L, E), mask (B, L), noise (B,) and (E,) or None -> (B, E) float32."""
        mean = self.mean(embeddings, mask.expand_dims(1)).squeeze(1)
        return self.project(dropout(mean, noise, self.share))

    def onnx(self, graph, embeddings, mask, length):
        """`construct` without dropout as nodes of an ONNX graph; see `models.onnx_export`."""
        return self.project.onnx(graph, self.mean.onnx(graph, embeddings, mask))


ENCODERS = {
    "DNN": DNN,
    "YoutubeDNN": YoutubeDNN,
    "GRU4Rec": GRU4Rec,
    "SASRec": SASRec,
    "LiGR": LiGR,
    "DSSM": DSSM,
    "SimpleX": SimpleX,
}
