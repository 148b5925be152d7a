"""One vector per user, one per item, inner product ("TTM" in the paper's tables)."""

from models.BaseModel import BaseModel


class TwoTower(BaseModel):
    """score(user, item) = encoder(history) . item embedding, or another product of one vector of each: GMF, bilinear, a
    cosine, a tower of the item.

    With more tokens than one their inner products are added, which is the inner product with their sum: the fair
    control of an interaction on the same tokens.
    """

    own_tokeniser = "whole"

    @classmethod
    def prescribes(cls, interaction):
        return {"score_bias": None} | ({"interaction": "dot"} if interaction.takes_dot else {})
