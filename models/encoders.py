"""User encoders: a history of item embeddings becomes one user vector.

An encoder says how much noise its dropout takes (`noise_width`) and maps (embeddings, mask, noise) to user vectors.
"""

from mindspore import nn

from models.layers import MLP, Dense, MaskedMean, dropout


class DNN(nn.Cell):
    """Mean of the history, then an MLP beside a shortcut: user = mean + MLP(mean).

    The release has the MLP alone. With the shortcut the user vector starts as the mean of the item embeddings, which
    already ranks related items first, so training leaves the popularity plateau in half the epochs.

    Args:
        width: embedding size D.
        hidden: widths of the hidden layers.
        dropout: share of hidden activations zeroed in training.
        history_dropout: share of the mean's coordinates zeroed in training.
    """

    def __init__(self, width, hidden, dropout, history_dropout):
        super().__init__()
        self.mean = MaskedMean()
        self.width, self.history_dropout = width, history_dropout
        self.mlp = MLP([width, *hidden], dropout)
        self.out = Dense(hidden[-1] if hidden else width, width)
        self.noise_width = width + self.mlp.noise_width

    def construct(self, embeddings, mask, noise):
        """embeddings (B, L, D), mask (B, L) with 1 at items, noise (B, noise_width) or None -> (B, D) float32."""
        mean = self.mean(embeddings, mask)  # (B, D)
        rest = None
        if noise is not None:
            mean, rest = dropout(mean, noise[:, : self.width], self.history_dropout), noise[:, self.width :]
        return mean + self.out(self.mlp(mean, rest))


ENCODERS = {"DNN": DNN}
