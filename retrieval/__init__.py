"""The sparse inverted index: codes -> items with precomputed scores; NumPy and numba only."""

from retrieval.build import build_index
from retrieval.compact import CompactIndex, overlap
from retrieval.frontier import frontier, frontier_table
from retrieval.index import SparseInvertedIndex, bytes_of, load_index
from retrieval.pruning import Pruning
from retrieval.recommender import IndexRecommender
from retrieval.scorer import PairScorer
from retrieval.sharding import ShardedIndex, merge_results
from retrieval.storage import IndexFileError
from retrieval.streaming import build_to_disk

__all__ = [
    "CompactIndex",
    "IndexFileError",
    "IndexRecommender",
    "PairScorer",
    "Pruning",
    "ShardedIndex",
    "SparseInvertedIndex",
    "build_index",
    "build_to_disk",
    "bytes_of",
    "frontier",
    "frontier_table",
    "load_index",
    "merge_results",
    "overlap",
]
