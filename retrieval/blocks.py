"""Codes x items in blocks: what a scorer owes, and the checks that its scores have to pass."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from retrieval.postings import LARGEST_SCORE

BLOCK_BYTES = 64 << 20  # of float32 scores asked for at once
QUIET, EVERY = 1.0, 10.0  # seconds before the first line of a log on how far it is, and between two


class Scorer(Protocol):
    """What can score every item for some codes."""

    def scores(self, codes: np.ndarray) -> np.ndarray:
        """Scores of all items: codes int64 (c,) -> float32 (c, n_items); column j is item j + 1."""


def codes_per_block(n_items: int, block_bytes: int | None = None) -> int:
    """How many rows of n_items float32 scores fit block_bytes (64 MiB unless told); at least one."""
    return max(1, (block_bytes or BLOCK_BYTES) // (4 * n_items))


def checked_codes(codes: ArrayLike) -> np.ndarray:
    """Codes as int64, ascending, each once.

    Raises:
        ValueError: they are not integers from 0 on.
    """
    codes = np.asarray(codes)
    if codes.size and (codes.dtype.kind not in "iu" or not np.can_cast(codes.dtype, np.int64) or codes.min() < 0):
        raise ValueError(f"Codes must be non-negative integers (int64), not such {codes.dtype} values.")
    return np.unique(codes.astype(np.int64))


def checked_scores(scores: np.ndarray, codes: np.ndarray, n_items: int, relu: bool, first_item: int = 1) -> np.ndarray:
    """One block of scores, checked.

    Args:
        scores: what a scorer returned for `codes`, int64 (c,).
        codes: named in errors.
        n_items: columns that there must be.
        relu: no score may be below 0.
        first_item: the item of column 0.

    Returns:
        float32 (c, n_items), contiguous.

    Raises:
        ValueError: the shape or type is another, or a score is not finite, too large, or negative in spite of relu.
    """
    scores = np.asarray(scores)
    if scores.shape != (len(codes), n_items) or scores.dtype.kind != "f":
        raise ValueError(
            f"The scorer returned {scores.dtype} of shape {scores.shape} for {len(codes)} codes and {n_items} items; "
            f"expected float32 {(len(codes), n_items)}."
        )
    scores = np.ascontiguousarray(scores, np.float32)
    lowest, highest = scores.min(), scores.max()  # NaN if any is
    if not (lowest >= -LARGEST_SCORE and highest <= LARGEST_SCORE):
        row, item = np.argwhere(~(np.abs(scores) <= LARGEST_SCORE))[0]
        raise ValueError(
            f"The score of code {codes[row]} and item {item + first_item} is {scores[row, item]}; "
            f"scores must be finite numbers of at most {LARGEST_SCORE:g} in size."
        )
    if relu and lowest < 0:
        raise ValueError(f"With relu=True the scorer must return ReLU(score + bias), yet a score of it is {lowest}.")
    return scores


def with_progress(starts: range, n_codes: int, block: int) -> Iterable[int]:
    """The starts of blocks, with a bar on a terminal where tqdm is installed, else with a line at times."""
    try:
        from tqdm import tqdm
    except ImportError:
        tqdm = None
    if tqdm is None or not sys.stderr.isatty():
        yield from _plain_progress(starts, n_codes)
        return
    with tqdm(total=n_codes, initial=starts.start, desc="index", unit="code", leave=False) as bar:
        for start in starts:
            yield start
            bar.update(min(block, n_codes - start))


def _plain_progress(starts: range, n_codes: int) -> Iterator[int]:
    due = time.monotonic() + QUIET
    for start in starts:
        if time.monotonic() > due:
            due = time.monotonic() + EVERY
            print(f"index: {start:,} of {n_codes:,} codes", file=sys.stderr, flush=True)
        yield start
