"""The sparse inverted index: keys (codes, items ...) -> items with precomputed scores; NumPy and numba only.

To read it: index.py says what an index is, pruning.py and build.py how lists are made of scores, search.py how a query
is answered, storage.py how an index is kept; postings.py holds what the exact and the compact index share, changes.py
what makes a new index of an old one. engines/, gpu/ and scale/ are the same index elsewhere.
"""

from retrieval.build import build_index
from retrieval.compact import CompactIndex, overlap
from retrieval.engines.export import export_index, import_index
from retrieval.engines.milvus import MilvusIndex, load_into_milvus
from retrieval.gpu.build import build_array_index
from retrieval.gpu.index import ArrayIndex
from retrieval.gpu.library import ArrayLibrary, NoGpuError, gpu_library
from retrieval.index import SparseInvertedIndex
from retrieval.postings import load_index
from retrieval.pruning import Pruning
from retrieval.recommender import IndexRecommender
from retrieval.reranked import Reranked
from retrieval.rows import SparseRows, index_of_rows
from retrieval.scale.frontier import frontier
from retrieval.scale.sharding import ShardedIndex, merge_results
from retrieval.scale.streaming import build_to_disk
from retrieval.scorer import CodeScorer, load_scorer, save_scorer
from retrieval.sizes import bytes_of
from retrieval.storage import IndexFileError

__all__ = [
    "ArrayIndex",
    "ArrayLibrary",
    "CodeScorer",
    "CompactIndex",
    "IndexFileError",
    "IndexRecommender",
    "MilvusIndex",
    "NoGpuError",
    "Pruning",
    "Reranked",
    "ShardedIndex",
    "SparseInvertedIndex",
    "SparseRows",
    "build_array_index",
    "build_index",
    "build_to_disk",
    "bytes_of",
    "export_index",
    "frontier",
    "gpu_library",
    "import_index",
    "index_of_rows",
    "load_index",
    "load_into_milvus",
    "load_scorer",
    "merge_results",
    "overlap",
    "save_scorer",
]
