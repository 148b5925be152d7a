"""GRU4Rec: a recurrent network over the history."""

import mindspore as ms
from mindspore import nn, ops

from models.layers import dropout


class GRU4Rec(nn.Cell):
    """One GRU layer over the item embeddings; its states are the user vectors (Hidasi et al., "Session-based
    Recommendations with Recurrent Neural Networks", 2016; one layer as ComiRec's GRU4REC).

    Args:
        embedding_size: E, also of the state.
        history_dropout: share of the input's activations zeroed in training.
    """

    causal = True
    parallel = False  # one position after the other: few long windows take seven times as long as many short ones

    def __init__(self, embedding_size, history_dropout):
        super().__init__()
        self.share = history_dropout
        self.gru = nn.GRU(embedding_size, embedding_size, batch_first=True)
        self.noise_width = embedding_size

    def construct(self, embeddings, mask, noise, every):
        """embeddings (B, L, E), mask (B, L), noise (B * L,) and (noise_width,) or None -> (B, L, E) float32, whether
        `every` is asked for or the last position."""
        length = embeddings.shape[1]
        x = dropout(embeddings.reshape(-1, embeddings.shape[2]), noise, self.share).reshape(embeddings.shape)
        # The first item comes first: padding before it would move the state that meets it.
        padding = length - mask.sum(1, keepdims=True).astype(ms.int32)  # (B, 1)
        states = self.gru(_rolled(x, padding))[0]
        return _rolled(states, length - padding) * mask.expand_dims(2)


def _rolled(x, places):
    """(B, L, E) with every row of L moved to the front by so many places (B, 1), what falls off put behind."""
    rows, length, width = x.shape
    place = (ops.arange(length) + places) % length + length * ops.arange(rows).expand_dims(1)  # (B, L)
    return ops.gather(x.reshape(-1, width), place.reshape(-1).astype(ms.int32), 0).reshape(x.shape)
