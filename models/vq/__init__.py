"""Vector and product quantisation with codebooks that follow the data by exponential moving averages."""

from models.vq.vq import VectorQuantiser
from models.vq.vq_embedding import ProductQuantiser

__all__ = ["ProductQuantiser", "VectorQuantiser"]
