"""The sparse inverted index: codes -> items with precomputed scores; NumPy and numba only."""

from retrieval.array_build import build_array_index
from retrieval.array_index import ArrayIndex
from retrieval.array_scorer import ArrayScorer
from retrieval.arrays import ArrayLibrary, NoGpuError, gpu_library
from retrieval.build import build_index
from retrieval.compact import CompactIndex, overlap
from retrieval.export import export_index, import_index
from retrieval.frontier import frontier, frontier_table
from retrieval.index import SparseInvertedIndex, bytes_of, load_index
from retrieval.milvus import MilvusIndex, load_into_milvus
from retrieval.pruning import Pruning
from retrieval.recommender import IndexRecommender
from retrieval.scorer import PairScorer
from retrieval.scorer_file import load_scorer, save_scorer
from retrieval.sharding import ShardedIndex, merge_results
from retrieval.storage import IndexFileError
from retrieval.streaming import build_to_disk

__all__ = [
    "ArrayIndex",
    "ArrayLibrary",
    "ArrayScorer",
    "CompactIndex",
    "IndexFileError",
    "IndexRecommender",
    "MilvusIndex",
    "NoGpuError",
    "PairScorer",
    "Pruning",
    "ShardedIndex",
    "SparseInvertedIndex",
    "build_array_index",
    "build_index",
    "build_to_disk",
    "bytes_of",
    "export_index",
    "frontier",
    "frontier_table",
    "gpu_library",
    "import_index",
    "load_index",
    "load_into_milvus",
    "load_scorer",
    "merge_results",
    "overlap",
    "save_scorer",
]
