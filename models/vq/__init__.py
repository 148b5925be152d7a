"""Vector, product and residual quantisation with codebooks that follow the data by exponential moving averages."""

from models.vq.vq import VectorQuantiser
from models.vq.vq_embedding import QUANTISERS, ProductQuantiser, ResidualQuantiser

__all__ = ["QUANTISERS", "ProductQuantiser", "ResidualQuantiser", "VectorQuantiser"]
