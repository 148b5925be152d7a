"""GRU4Rec: a recurrent network over the history."""

from mindspore import nn

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
        x = dropout(embeddings.reshape(-1, embeddings.shape[2]), noise, self.share).reshape(embeddings.shape)
        return self.gru(x)[0]
