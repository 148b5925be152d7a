"""One vector per user, one per item, inner product ("TTM" in the paper's tables)."""

import numpy as np
from mindspore import ops

from models.BaseModel import BaseModel
from models.interactions import dot
from retrieval import PairScorer


class TwoTower(BaseModel):
    """score(user, item) = encoder(history) . item embedding; see `BaseModel` for the arguments."""

    def tokens(self, history, noise=None):
        return self.user_vector(history, noise).expand_dims(1)  # (B, 1, D)

    def score(self, tokens, items):
        return dot(tokens, ops.gather(self.item_table, items, 0)).squeeze(1)

    def scorer(self):
        identity = np.eye(self.embedding_size, dtype=np.float32)
        no_bias = np.zeros(self.embedding_size, np.float32)
        return PairScorer(token_dot=(identity, no_bias), item_dot=self.item_table.asnumpy()[1:])
