"""What every model is made of: items, a tokeniser, an interaction and a loss; one `construct` trains them all."""

import functools

import mindspore as ms
from mindspore import nn, ops

from models.layers import SquaredNorm, summed


class BaseModel(nn.Cell):
    """score(user, item) = sum_k ReLU(s(token_k, item) + bias), or the plain sum without a bias.

    One `construct` trains all models, so their comparison compares the models and nothing else. A subclass chooses the
    interaction s, and may quantise the tokens.

    Args:
        items: `models.items.ItemTable`.
        tokeniser: one of `models.tokenisers`.
        interaction: `models.interactions.InteractionCell`, the scores s of tokens and items.
        loss: a function of `models.losses`.
        score_bias: the bias, or None for the plain sum. More negative means sparser scores.
        l2: weight of the mean squared norm of the history's item embeddings.
        seq_len: length of a history.
        users: `models.features.UserFeatures`, or None where the model reads no features of users.
    """

    has_quantiser = False  # whether it has codes, and so an index
    own_tokeniser = "windows"  # unless the settings name one, or the encoder is causal: then `whole`
    own_wide = False  # whether a wide table stands beside it, unless the settings say

    @classmethod
    def prescribes(cls, interaction):
        """Settings that are what the model is, whatever a preset says; `interaction` is the class that it names."""
        return {}

    def __init__(self, *, items, tokeniser, interaction, loss, score_bias, l2, seq_len, users=None):
        super().__init__()
        self.items, self.tokeniser, self.interaction, self.loss = items, tokeniser, interaction, loss
        self.users, self.squared_norm = users, SquaredNorm()
        self.score_bias, self.l2, self.seq_len = score_bias, l2, seq_len
        # Whether scores add up to those of the tokens' sum.
        self.linear = interaction.formula.linear and score_bias is None
        self.K_u = tokeniser.K_u
        self.noise_width = tokeniser.encoder.noise_width
        # Whether a training row is a sequence with a target at every position, or a history with one target.
        self.every_position = tokeniser.encoder.causal and tokeniser.every_position

    def noise_size(self, shapes):
        """How many random numbers `construct` takes for histories of these (rows, width)."""
        return sum(rows * self._noise_rows(width) for rows, width in shapes) + self.noise_width

    def _noise_rows(self, width):
        return width if self.tokeniser.encoder.causal else self.tokeniser.parts

    def tokens(self, history, user=None, noise=None, every=False):
        """User tokens before quantisation, (B, K_u, D) float32; see `tokenisers.Tokeniser`.

        Args:
            history: (B, L) int32.
            user: (B, W) int32, values of the users' features; only a model with `users` looks at them.
        """
        return self._tokens_of(*self.items.history(history), user, noise, every)

    @functools.cached_property
    def encoding(self):
        """`tokens` as a cell of its own, a graph apart from training's: one for all that ask, as it takes seconds to
        compile."""
        return _Tokens(self)

    def _tokens_of(self, embeddings, mask, user, noise, every):
        if self.users is not None:
            embeddings = self.users(embeddings, mask, user)
        return self.tokeniser(embeddings, mask, noise, every)

    def score(self, tokens, items):
        """Scores of items, (B, K_u, D) x ids (C,) or (B, C) int32 -> (B, C) float32."""
        if self.linear:
            tokens = summed(tokens).expand_dims(1)  # one score in place of K_u
        scores = self.interaction(tokens, self.items(items))  # (B, K_u or 1, C)
        if self.score_bias is not None:
            scores = ops.relu(scores + self.score_bias)
        return summed(scores)

    def scorer(self):
        """The same scores outside the graph: a `retrieval.CodeScorer` over all items."""
        return self.interaction.scorer(self.items.vectors(), self.score_bias)

    def quantise(self, tokens, real):
        """Tokens as the score sees them once quantised, and a penalty that joins the loss.

        Args:
            tokens: (R, K_u, D). real: (R,) float32, 1, or 0 where a row is padding.
        """
        raise NotImplementedError

    def construct(self, history, positive, negative, log_expected, noise, quantised, shapes, user=None):
        """Training loss.

        Args:
            history: (B, L) int32, left-padded with 0.
            positive: (B,) int32, or (B, L) of `every_position`, 0 where a position has no target.
            negative: (N,) int32 shared by the batch, or (R, N) int32, R as of `_read`.
            log_expected: float32 of the shape of `negative`; see `losses`.
            noise: (noise_size(shapes),) float32 uniform in [0, 1), from which dropout is made.
            quantised: bool, `is_quantised`; not a tensor, so either value gets a graph of its own.
            shapes: (rows, width) of each part of the batch, see `data.batches.Batch`; no tensor either.
            user: (B, W) int32, or None; see `tokens`.

        Returns:
            Two float32 scalars: the loss to minimise, and its ranking part alone.
        """
        tokens, target, items, norm = self._read(history, positive, noise, shapes, user)
        penalty = 0.0
        has_target = (target.squeeze(1) > 0).astype(ms.float32)  # (R,)
        if quantised:
            tokens, penalty = self.quantise(tokens, has_target)
        scores = self.score(tokens, target), self.score(tokens, negative)  # (R, 1), (R, N)
        losses = self.loss(*scores, log_expected, target, negative)  # (R,)
        if self.every_position:
            ranking = (losses * has_target).sum() / ops.clamp(has_target.sum(), min=1.0)
        else:
            ranking = losses.mean()
        return ranking + penalty + self.l2 * norm / ops.clamp(items, min=1.0), ranking

    def _read(self, history, positive, noise, shapes, user):
        """Of a batch its tokens (R, K_u, D), targets (R, 1), number of items and squared norm of their embeddings; the
        rows of each width are encoded by themselves. R is B, or the number of places."""
        columns = noise[noise.shape[0] - self.noise_width :]
        tokens, targets, items, norm = (), (), 0.0, 0.0
        row, drawn = 0, 0
        for rows, width in shapes:
            part, numbers = slice(row, row + rows), rows * self._noise_rows(width)
            embeddings, mask = self.items.history(history[part, -width:])
            known = None if user is None else user[part]
            here = noise[drawn : drawn + numbers], columns
            tokens += (self._tokens_of(embeddings, mask, known, here, self.every_position),)
            targets += ((positive[part, -width:] if self.every_position else positive[part]).reshape(-1, 1),)
            items, norm = items + mask.sum(), norm + self.squared_norm(embeddings)
            row, drawn = row + rows, drawn + numbers
        return ops.concat(tokens, 0), ops.concat(targets, 0), items, norm

    def start_quantiser(self, tokens, targets, seed, judge=None):
        """Switches the quantiser on; called by the training loop after `pretrain_epoch` where `has_quantiser`.

        Args:
            tokens: (U, K_u, D) float32 array, tokens of training histories.
            targets: how many a training batch has, and so rows of tokens that count.
            seed: of whatever is random.
            judge: see `Quantiser.start`; it may ask the model for its scores.
        """
        raise NotImplementedError

    @property
    def is_quantised(self):
        """Whether scores see codewords in place of tokens."""
        return False


class _Tokens(nn.Cell):
    """The tokens of a model, without its parameters as its own."""

    def __init__(self, model):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, history, user=None):
        return self.model.tokens(history, user)
