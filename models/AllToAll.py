"""K_u user tokens, each scored with every item by an interaction: SparCode's upper bound without a quantiser."""

from models.BaseModel import BaseModel


class AllToAll(BaseModel):
    """See `BaseModel`: the interaction may be any of `retrieval.interactions`."""

    own_wide = True
