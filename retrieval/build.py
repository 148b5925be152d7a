"""Make an index: score codes x items in blocks, cut each row, keep what is left."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from retrieval.blocks import Scorer, checked_codes, checked_scores, codes_per_block, with_progress
from retrieval.index import SparseInvertedIndex
from retrieval.pruning import Pruning
from retrieval.sizes import offsets_of

SAMPLE_PAIRS = 16 << 20  # (code, item) pairs whose scores choose a threshold
SAMPLE_CODES = 1024


def build_index(
    scorer: Scorer,
    codes: ArrayLike,
    n_items: int,
    *,
    relu: bool,
    max_postings: int | None = None,
    keep_share: float | None = None,
    block: int | None = None,
    progress: bool = True,
) -> SparseInvertedIndex:
    """The index of some codes, each scored against all items.

    Args:
        scorer: scores codes x items (see Scorer).
        codes: integers in any order; repeats are dropped.
        n_items: the items are 1..n_items.
        relu: the scorer returns ReLU(score + bias), and only what is above 0 is stored; otherwise its scores are plain
            and every pair is stored.
        max_postings: at most so many per posting list.
        keep_share: the share of all (code, item) pairs to keep, by one threshold for all codes, taken from the scores
            of an even sample of them.
        block: codes scored at once; as many as fit 64 MiB unless told.
        progress: show a bar on standard error.

    Returns:
        The index.

    Raises:
        ValueError: scores are NaN, infinite, or negative where relu says there are none; options are bad; or the index
            would be empty.
    """
    codes = checked_codes(codes)
    pruning = choose_pruning(scorer, codes, n_items, relu, max_postings, keep_share)
    return not_empty(build_pruned(scorer, codes, n_items, pruning, block=block, progress=progress))


def not_empty(index: SparseInvertedIndex) -> SparseInvertedIndex:
    """The index itself.

    Raises:
        ValueError: it has no posting, so it would recommend nothing to anyone.
    """
    if len(index.items) == 0:
        raise ValueError(why_empty(len(index), index.pruning))
    return index


def why_empty(n_codes: int, pruning: Pruning) -> str:
    """The sentence that refuses an index of n_codes without postings."""
    if n_codes == 0:
        return "There are no codes to build an index of."
    if pruning.threshold is not None:
        above = f"No score is above the threshold {pruning.threshold:g}"
        return f"{above}, so the index would be empty; lower it, or raise keep_share."
    if pruning.relu:
        return "Every score is 0: the score_bias silences all items, so the index would be empty; raise it."
    return "Under every code all items score alike, so the index would be empty; train the model or drop the cap."


def choose_pruning(
    scorer: Scorer, codes: ArrayLike, n_items: int, relu: bool, max_postings: int | None, keep_share: float | None
) -> Pruning:
    """The options of build_index as a Pruning; scores a sample of the codes where one is needed."""
    if n_items < 1:
        raise ValueError(f"An index needs items, 1..n_items; n_items is {n_items}.")
    threshold = None
    if keep_share is not None:
        if not 0 < keep_share <= 1:
            raise ValueError(f"keep_share is a share of all pairs, above 0 and at most 1, not {keep_share}.")
        threshold = choose_threshold(scorer, codes, n_items, relu, keep_share)
    return Pruning(relu=relu, threshold=threshold, max_postings=max_postings)


def build_pruned(
    scorer: Scorer,
    codes: ArrayLike,
    n_items: int,
    pruning: Pruning,
    *,
    block: int | None = None,
    progress: bool = False,
) -> SparseInvertedIndex:
    """The index of `codes` with the cut already decided, as for codes that join an index later."""
    codes = checked_codes(codes)
    block = block or codes_per_block(n_items)
    starts = range(0, len(codes), block)
    if progress:
        starts = with_progress(starts, len(codes), block)
    blocks = []
    for start in starts:
        part = codes[start : start + block]
        blocks.append(pruning.compact(checked_scores(scorer.scores(part), part, n_items, pruning.relu)))
    if not blocks:
        blocks.append(pruning.compact(np.zeros((0, n_items), np.float32)))
    lengths, floors, cuts, items, scores = (np.concatenate(column) for column in zip(*blocks, strict=True))
    offsets = offsets_of(lengths)
    return SparseInvertedIndex(codes, offsets, items, scores, floors, n_items, pruning, cuts)


def choose_threshold(scorer: Scorer, codes: ArrayLike, n_items: int, relu: bool, keep_share: float) -> float | None:
    """The score that `keep_share` of all pairs exceed, judged by codes spread evenly over `codes`.

    Returns:
        The threshold; None where nothing need be cut: everything is to be kept, or (relu) no more than that share is
        above 0 anyway.
    """
    codes = checked_codes(codes)
    if keep_share == 1 or len(codes) == 0:
        return None
    n_sample = min(len(codes), SAMPLE_CODES, max(16, SAMPLE_PAIRS // n_items))
    sample = codes[np.linspace(0, len(codes) - 1, n_sample).astype(np.int64)]
    block = codes_per_block(n_items)
    parts = [sample[at : at + block] for at in range(0, n_sample, block)]
    scores = np.concatenate([checked_scores(scorer.scores(part), part, n_items, relu).ravel() for part in parts])
    cut = len(scores) - 1 - round(keep_share * len(scores))  # as many scores stand above this position
    if cut < 0:
        return None
    threshold = float(np.partition(scores, cut)[cut])
    return None if relu and threshold <= 0 else threshold
