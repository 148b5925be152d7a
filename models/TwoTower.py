"""One vector per user, one per item, inner product ("TTM" in the paper's tables)."""

from models.BaseModel import BaseModel


class TwoTower(BaseModel):
    """score(user, item) = encoder(history) . item embedding.

    With more tokens than one their inner products are added, which is the inner product with their sum: the fair
    control of an interaction on the same tokens.
    """

    own_tokeniser = "whole"
    prescribed = {"interaction": "dot", "score_bias": None}
