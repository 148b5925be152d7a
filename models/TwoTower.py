"""One vector per user, one per item, inner product ("TTM" in the paper's tables)."""

from mindspore import ops

from models.BaseModel import BaseModel
from models.interactions import InteractionCell


class TwoTower(BaseModel):
    """score(user, item) = encoder(history) . item embedding; see `BaseModel` for the arguments."""

    def __init__(self, *, rng, **base):
        super().__init__(rng=rng, **base)
        sizes = {"embedding_size": self.embedding_size, "token_embedding_size": self.embedding_size}
        self.interaction = InteractionCell("dot", sizes, rng)

    def tokens(self, history, noise=None):
        return self.user_vector(history, noise).expand_dims(1)  # (B, 1, D)

    def score(self, tokens, items):
        return self.interaction(tokens, ops.gather(self.item_table, items, 0)).squeeze(1)

    def scorer(self):
        return self.interaction.scorer(self.item_table.asnumpy()[1:])
