"""An index straight from given scores: rows of a table (keys x items), dense or sparse, without a scorer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from retrieval.blocks import checked_codes, checked_scores
from retrieval.build import not_empty
from retrieval.index import SparseInvertedIndex
from retrieval.postings import LARGEST_SCORE
from retrieval.pruning import Pruning
from retrieval.sizes import offsets_of


class SparseRows(NamedTuple):
    """Rows of a table that hold few items; a pair that is absent scores exactly 0.

    Attributes:
        offsets: int64 (c + 1,): row r is items[offsets[r] : offsets[r + 1]].
        items: integers (nnz,): ids 1..n_items, ascending within a row (of a SciPy CSR matrix, indices + 1).
        scores: float32 (nnz,), of any sign.
    """

    offsets: np.ndarray
    items: np.ndarray
    scores: np.ndarray


def index_of_rows(
    keys: ArrayLike, rows: np.ndarray | Iterable[np.ndarray] | SparseRows, n_items: int, pruning: Pruning
) -> SparseInvertedIndex:
    """The index whose key keys[r] has the scores of row r.

    Dense rows are cut as a build cuts the same scores. So are sparse rows, with a threshold of at least 0: an item
    enters a list by a score above 0. Every other item, be it absent (0), negative, or cut by the cap, counts as the
    floor, the mean of all that the list leaves out: the constant nearest to what it replaces. Negative scores so lower
    the floor and are not kept one by one; with pruning.relu they count as 0, in dense rows too.

    Args:
        keys: integers (c,), ascending, each once.
        rows: float (c, n_items), column j being item j + 1; or blocks of such rows in the order of keys, one in memory
            at a time; or SparseRows.
        n_items: the items are 1..n_items.
        pruning: how lists are cut, such as Pruning(relu=False, max_postings=400).

    Returns:
        The index, with the pruning that cut it.

    Raises:
        ValueError: keys or rows are no such, a score is not finite, or no list would have an item.
    """
    given, keys = np.asarray(keys), checked_codes(keys)
    if not np.array_equal(given, keys):
        raise ValueError("The keys of rows must ascend, each only once.")
    if isinstance(rows, SparseRows):
        offsets, items, scores = _checked(rows, len(keys), n_items)
        if not pruning.relu:
            pruning = replace(pruning, threshold=max(0.0, pruning.threshold or 0.0))
        lengths, floors, cuts, items, stored = pruning.compact_sparse(offsets, items, scores, n_items)
    else:
        columns, done = [pruning.compact(np.zeros((0, n_items), np.float32))], 0
        for block in [rows] if isinstance(rows, np.ndarray) else rows:
            block = np.maximum(block, np.float32(0)) if pruning.relu else block
            part = keys[done : done + len(block)]
            columns.append(pruning.compact(checked_scores(block, part, n_items, pruning.relu)))
            done += len(block)
        if done != len(keys):
            raise ValueError(f"There are {done} rows for {len(keys)} keys.")
        lengths, floors, cuts, items, stored = map(np.concatenate, zip(*columns, strict=True))
    return not_empty(SparseInvertedIndex(keys, offsets_of(lengths), items, stored, floors, n_items, pruning, cuts))


def _checked(rows: SparseRows, n_rows: int, n_items: int) -> SparseRows:
    """The rows in the types of an index, their meaning checked."""
    offsets, items = np.asarray(rows.offsets), np.asarray(rows.items)
    scores = np.ascontiguousarray(rows.scores, np.float32)
    if len(offsets) != n_rows + 1 or len(items) != len(scores):
        raise ValueError(
            f"Sparse rows of {len(offsets) - 1} offsets, {len(items)} items and {len(scores)} scores "
            f"are not {n_rows} rows."
        )
    if offsets[0] != 0 or offsets[-1] != len(items) or np.any(offsets[1:] < offsets[:-1]):
        raise ValueError("Offsets of sparse rows must rise from 0 to the number of their items.")
    if len(items):
        if items.dtype.kind not in "iu" or items.min() < 1 or items.max() > n_items:
            raise ValueError(f"Items of sparse rows must be ids in 1..{n_items}.")
        first = np.zeros(len(items) + 1, bool)  # of a row
        first[offsets] = True
        if not np.all((items[1:] > items[:-1]) | first[1:-1]):
            raise ValueError("Items of a sparse row must ascend, each only once.")
        if not np.all(np.abs(scores) <= LARGEST_SCORE):
            raise ValueError(f"Scores of sparse rows must be finite numbers of at most {LARGEST_SCORE:g} in size.")
    return SparseRows(offsets.astype(np.int64), items.astype(np.uint32), scores)
