"""Make an index on an array library: score, cut and compact there; only postings come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from retrieval.blocks import checked_codes, checked_scores, codes_per_block, with_progress
from retrieval.build import choose_pruning, not_empty
from retrieval.gpu.library import ArrayLibrary
from retrieval.index import SparseInvertedIndex
from retrieval.postings import LARGEST_SCORE
from retrieval.pruning import Pruning
from retrieval.scorer import CodeScorer
from retrieval.sizes import offsets_of


def build_array_index(
    scorer: CodeScorer,
    codes: ArrayLike,
    *,
    relu: bool,
    max_postings: int | None = None,
    keep_share: float | None = None,
    progress: bool = True,
) -> SparseInvertedIndex:
    """`build_index` with every pair handled by scorer.library.

    Scores agree to float32 rounding, so the lists are the same but for items whose scores are that close to a cut.

    Args:
        scorer: scores codes x items on an array library.
        codes, relu, max_postings, keep_share, progress: as of build_index.

    Returns:
        An ordinary index.

    Raises:
        ValueError: as build_index.
    """
    codes, n_items, library = checked_codes(codes), scorer.n_items, scorer.library
    pruning = choose_pruning(scorer, codes, n_items, relu, max_postings, keep_share)
    block = codes_per_block(n_items, library.work_bytes // 4)  # scores, a mask, two copies
    starts = range(0, len(codes), block)
    columns = [pruning.compact(np.zeros((0, n_items), np.float32))]
    for start in with_progress(starts, len(codes), block) if progress else starts:
        part = codes[start : start + block]
        scores = scorer.array_scores(part)
        if not _passes(library, scores, relu):
            checked_scores(library.get(scores), part, n_items, relu)  # says which score is wrong, and why
        columns.append(compact(library, scores, pruning))
    lengths, floors, cuts, items, scores = map(np.concatenate, zip(*columns, strict=True))
    offsets = offsets_of(lengths)
    return not_empty(SparseInvertedIndex(codes, offsets, items, scores, floors, n_items, pruning, cuts))


def compact(library: ArrayLibrary, scores, pruning: Pruning) -> tuple[np.ndarray, ...]:
    """`pruning.compact(scores)` on the device: the same five NumPy arrays for the same scores (c, n_items)."""
    xp, get, put = library.xp, library.get, library.put
    n_codes, n_items = scores.shape
    cap = pruning.max_postings
    cuts = replace(pruning, max_postings=None).cuts(np.empty((n_codes, 0)))
    if cap is not None and cap < n_items:
        cuts = np.maximum(cuts, get(library.best(scores, cap + 1)[:, cap]))
    kept = scores > put(cuts)[:, None]  # (c, n_items)
    lengths = get(xp.sum(kept, axis=1, dtype=xp.int64))
    left_out = get(xp.sum(xp.where(kept, 0.0, scores), axis=1, dtype=xp.float64))
    lowest, highest = get(xp.amin(scores, axis=1)), get(xp.amax(scores, axis=1))

    # The floors of Pruning: the mean of what is left out, or just under the lowest of a plain sum.
    spread = np.maximum(np.abs(lowest), highest - lowest).astype(np.float64)
    whole = np.zeros(n_codes) if pruning.relu else lowest - 1e-6 * np.maximum(spread, 1e-6)
    mean = left_out / np.maximum(n_items - lengths, 1)
    floors = np.where(lengths < n_items, np.minimum(mean, cuts), whole).astype(np.float32)

    ids = xp.broadcast_to(library.range(n_items) + 1, scores.shape)
    items = get(ids[kept]).astype(np.uint32)
    stored = get((scores - put(floors)[:, None])[kept])
    return lengths, floors, cuts - floors, items, stored


def _passes(library: ArrayLibrary, scores, relu: bool) -> bool:
    """Whether scores (c, n_items) are what an index takes; NaN passes neither comparison."""
    lowest, highest = float(library.xp.amin(scores)), float(library.xp.amax(scores))
    return lowest >= (0 if relu else -LARGEST_SCORE) and highest <= LARGEST_SCORE
