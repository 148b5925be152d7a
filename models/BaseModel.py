"""What every model shares: the item table, the user encoder, the training loss and the query side."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from models.encoders import ENCODERS
from models.losses import sampled_softmax


class BaseModel(nn.Cell):
    """Base of TwoTower, AllToAll and DQMatch.

    A subclass gives `tokens`, `score` and `scorer`; one that quantises its tokens gives `quantise` as well. One
    `construct` trains them all, so their comparison compares the models and nothing else.

    Args:
        n_items: items are 1 .. n_items, 0 is padding.
        embedding_size: D.
        embedding_std: standard deviation of the item table at the start.
        encoder: name of a user encoder in `models.encoders`.
        hidden: widths of its hidden layers.
        dropout, history_dropout: shares of hidden activations and of the pooled history zeroed in training.
        l2: weight of the mean squared norm of the history's item embeddings.
        seq_len: length of a history.
        rng: NumPy generator of the starting values.
    """

    score_bias = None  # set where the score is a sum of ReLUs
    has_quantiser = False

    def __init__(
        self, *, n_items, embedding_size, embedding_std, encoder, hidden, dropout, history_dropout, l2, seq_len, rng
    ):
        super().__init__()
        self.n_items, self.embedding_size, self.seq_len, self.l2 = n_items, embedding_size, seq_len, l2
        table = rng.normal(0, embedding_std, (n_items + 1, embedding_size)).astype(np.float32)
        table[0] = 0
        self.item_table = ms.Parameter(ms.Tensor(table), name="item_table")  # (n_items + 1, D)
        self.encoder = ENCODERS[encoder](embedding_size, hidden, dropout, history_dropout)
        self.noise_width = self.encoder.noise_width

    def embed_history(self, history):
        """(B, L) int32 -> embeddings (B, L, D) with zeros at padding, mask (B, L) float32.

        Padding is masked in the value and so in the gradient: row 0 of the table stays zero.
        """
        mask = (history > 0).astype(ms.float32)
        return ops.gather(self.item_table, history, 0) * mask.expand_dims(2), mask

    def user_vector(self, history, noise):
        """(B, L) int32 -> (B, D) float32."""
        embeddings, mask = self.embed_history(history)
        return self.encoder(embeddings, mask, noise)

    def tokens(self, history, noise=None):
        """User tokens before quantisation, (B, L) int32 -> (B, K_u, D) float32; noise as in `construct`."""
        raise NotImplementedError

    def score(self, tokens, items):
        """Scores of items, (B, K_u, D) x ids (C,) or (B, C) int32 -> (B, C) float32."""
        raise NotImplementedError

    def scorer(self):
        """The same scores outside the graph: a `retrieval.CodeScorer` over all items."""
        raise NotImplementedError

    def quantise(self, tokens):
        """Tokens as the score sees them once quantised, and a penalty that joins the loss."""
        raise NotImplementedError

    def construct(self, history, positive, negative, log_expected, noise, quantised):
        """Training loss.

        Args:
            history: (B, L) int32, left-padded with 0.
            positive: (B,) int32.
            negative: (N,) int32 shared by the batch, or (B, N) int32.
            log_expected: float32 of the shape of `negative`; see `losses.sampled_softmax`.
            noise: (B, noise_width) float32 uniform in [0, 1), from which dropout is made.
            quantised: bool, `is_quantised`; not a tensor, so either value gets a graph of its own.

        Returns:
            Two float32 scalars: the loss to minimise, and its softmax part alone.
        """
        tokens, penalty = self.tokens(history, noise), 0.0
        if quantised:
            tokens, penalty = self.quantise(tokens)
        collision = ops.equal(positive.expand_dims(1), negative)  # (B, N)
        softmax = sampled_softmax(
            self.score(tokens, positive.expand_dims(1)), self.score(tokens, negative), log_expected, collision
        )
        embeddings, mask = self.embed_history(history)
        norm = ops.square(embeddings).sum() / ops.clamp(mask.sum(), min=1.0)
        return softmax + penalty + self.l2 * norm, softmax

    def start_quantiser(self, tokens, batch_size, seed):
        """Switches the quantiser on; called by the training loop after `pretrain_epoch` where `has_quantiser`.

        Args:
            tokens: (U, K_u, D) float32 array, tokens of training histories.
            batch_size: histories per training batch.
            seed: of whatever is random.
        """
        raise NotImplementedError

    @property
    def is_quantised(self):
        """Whether scores see codewords in place of tokens."""
        return False
