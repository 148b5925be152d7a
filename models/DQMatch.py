"""SparCode's model: AllToAll whose user tokens are quantised, so that scores can be looked up instead of computed."""

import mindspore as ms
from threadpoolctl import threadpool_limits

from models.AllToAll import AllToAll
from models.vq.score_features import WIDTH
from retrieval import CodeScorer


class DQMatch(AllToAll):
    """AllToAll with quantised tokens.

    Until `start_quantiser` is called the tokens pass unchanged (the release's `pretrain_epoch`).

    Args:
        quantiser: one of `models.vq`.
        beta: weight of the commitment loss, see `TokenQuantiser`.
        The others are those of `BaseModel`.

    Raises:
        ValueError: a score_bias beside a quantiser that takes no part in training.
    """

    has_quantiser = True

    def __init__(self, *, quantiser, beta, **base):
        super().__init__(**base)
        if not (quantiser.trains or self.linear):
            if self.score_bias is not None:
                raise ValueError(
                    "the quantiser pursuit knows no ReLU of a score; leave out --score_bias, or choose --quantiser "
                    "residual"
                )
            quantiser.linearise(self._scores_of, self.items.n_items)
        self.quantiser, self.beta = quantiser, beta
        # A parameter, so that checkpoints hold it.
        self.quantised = ms.Parameter(ms.Tensor(0.0, ms.float32), name="quantised", requires_grad=False)

    def quantise(self, tokens, real):
        codewords, commitment = self.quantiser(tokens, real)
        return codewords, self.beta * commitment

    def start_quantiser(self, tokens, targets, seed, judge=None):
        """Switches the codebooks on and starts them with some tokens; see `BaseModel`."""
        self.quantised.set_data(ms.Tensor(1.0, ms.float32))
        with threadpool_limits(1):  # threads add up in other orders, and codewords would depend on how many there are
            self.quantiser.start(tokens, targets * self.coded_tokens, seed, judge)

    @property
    def codes_per_user(self):
        """How many codes a user looks up, C."""
        return self.quantiser.codes_per_user(self.K_u)

    @property
    def coded_tokens(self):
        """How many vectors of a user have codes of their own: K_u tokens, or 1 where it is their sum."""
        return self.codes_per_user // self.quantiser.lookups

    @property
    def is_quantised(self):
        return bool(self.quantised.asnumpy())

    def scorer(self):
        """The scorer of codes and items, see `BaseModel`. Where the quantiser has score features, codes score by their
        inner product once there are codewords; until then tokens alone have a score, by the interaction."""
        features = self.quantiser.features
        if features is None:
            return self.interaction.scorer(self.items.vectors(), self.score_bias, self.quantiser.tables())
        if not self.is_quantised:
            return self.token_scorer()
        sizes = {"embedding_size": WIDTH, "token_embedding_size": WIDTH}  # the features are both
        return CodeScorer("dot", sizes, {}, features.items.asnumpy(), codewords=self.quantiser.tables())

    def token_scorer(self):
        """Scores of tokens that have no codes."""
        return super().scorer()

    def landmark_scorer(self):
        """Scores of tokens and the landmark items of the quantiser's features."""
        return self.interaction.scorer(self.items.vectors()[self.quantiser.features.landmarks.asnumpy()])

    def _scores_of(self, tokens, items):
        """Scores of tokens (T, D) and items, their rows or None for all, (T, items) float32."""
        vectors = self.items.vectors()
        return self.interaction.scorer(vectors if items is None else vectors[items]).token_scores(tokens)
