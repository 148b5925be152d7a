"""SparCode's model: AllToAll whose user tokens are quantised, so that scores can be looked up instead of computed."""

import mindspore as ms

from models.AllToAll import AllToAll
from models.vq import QUANTISERS


class DQMatch(AllToAll):
    """AllToAll with quantised tokens.

    Until `start_quantiser` is called the tokens pass unchanged (the release's `pretrain_epoch`).

    Args:
        quantiser: name of a quantiser in `models.vq`.
        num_codebooks: M; codewords (K_c): N per codebook; see `TokenQuantiser`.
        ema_decay, restart_below: see `VectorQuantiser`.
        beta: weight of the commitment loss, see `TokenQuantiser`.
        The others are those of `AllToAll`.
    """

    has_quantiser = True

    def __init__(self, *, quantiser, num_codebooks, codewords, ema_decay, restart_below, beta, rng, **all_to_all):
        super().__init__(rng=rng, **all_to_all)
        self.beta = beta
        self.quantiser = QUANTISERS[quantiser](num_codebooks, codewords, self.token_size, ema_decay, restart_below, rng)
        # A parameter, so that checkpoints hold it.
        self.quantised = ms.Parameter(ms.Tensor(0.0, ms.float32), name="quantised", requires_grad=False)

    def quantise(self, tokens):
        codewords, commitment = self.quantiser(tokens)
        return codewords, self.beta * commitment

    def token_indices(self, history):
        """Code tuples of the user tokens, (B, L) int32 -> (B, K_u, M) int32."""
        return self.quantiser.indices(self.tokens(history))

    def start_quantiser(self, tokens, batch_size, seed):
        """Puts the codebooks on the k-means centres of some tokens and switches them on; see `BaseModel`."""
        self.quantiser.start(tokens.reshape(-1, self.token_size), batch_size * self.k_u, seed)
        self.quantised.set_data(ms.Tensor(1.0, ms.float32))

    @property
    def is_quantised(self):
        return bool(self.quantised.asnumpy())

    def scorer(self):
        return super().scorer(self.quantiser.tables())
