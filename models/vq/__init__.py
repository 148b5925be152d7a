"""Quantisers of tokens: product and residual with codebooks that follow the data, and pursuit for what is trained."""

from models.vq.pursuit import PursuitQuantiser
from models.vq.quantiser import Quantiser
from models.vq.vq import VectorQuantiser
from models.vq.vq_embedding import ProductQuantiser, ResidualQuantiser

__all__ = ["QUANTISERS", "ProductQuantiser", "PursuitQuantiser", "Quantiser", "ResidualQuantiser", "VectorQuantiser"]

QUANTISERS = {"product": ProductQuantiser, "residual": ResidualQuantiser, "pursuit": PursuitQuantiser}
