"""SparCode's model: AllToAll whose user tokens are quantised, so that scores can be looked up instead of computed."""

import mindspore as ms

from models.AllToAll import AllToAll


class DQMatch(AllToAll):
    """AllToAll with quantised tokens.

    Until `start_quantiser` is called the tokens pass unchanged (the release's `pretrain_epoch`).

    Args:
        quantiser: one of `models.vq`.
        beta: weight of the commitment loss, see `TokenQuantiser`.
        The others are those of `BaseModel`.
    """

    has_quantiser = True

    def __init__(self, *, quantiser, beta, **base):
        super().__init__(**base)
        self.quantiser, self.beta = quantiser, beta
        # A parameter, so that checkpoints hold it.
        self.quantised = ms.Parameter(ms.Tensor(0.0, ms.float32), name="quantised", requires_grad=False)

    def quantise(self, tokens, real):
        codewords, commitment = self.quantiser(tokens, real)
        return codewords, self.beta * commitment

    def start_quantiser(self, tokens, batch_size, seed):
        """Puts the codebooks on the k-means centres of some tokens and switches them on; see `BaseModel`."""
        self.quantiser.start(tokens.reshape(-1, tokens.shape[2]), batch_size * self.K_u, seed)
        self.quantised.set_data(ms.Tensor(1.0, ms.float32))

    @property
    def codes_per_user(self):
        """How many codes a user looks up, K_u * P."""
        return self.K_u * self.quantiser.lookups

    @property
    def is_quantised(self):
        return bool(self.quantised.asnumpy())

    def scorer(self):
        return self.interaction.scorer(self.items.vectors(), self.score_bias, self.quantiser.tables())
