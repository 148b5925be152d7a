"""Short sequences as narrow rows: a batch has rows of several widths, so that less of it is padding."""

from __future__ import annotations

import numpy as np

PARTS = 2, 4  # of the longest window: the widths of narrow rows
WORTH = 2 / 3  # of an epoch's places, at most, that narrow rows must leave: each width is an encoder more to compile
LONG = 2**17  # places of an epoch, at least


def widths(targets: np.ndarray, windows: np.ndarray, seq_len: int) -> np.ndarray:
    """The width of the windows of each user, (U,): seq_len, or its half or quarter where that holds all targets.

    Args:
        targets: (U,) how many each user has. windows: (U,) how many windows in an epoch.
        seq_len: the longest window.
    """
    width = np.full(len(targets), seq_len)
    for part in PARTS:
        narrower = -(-seq_len // part)
        width[targets <= narrower] = narrower
    whole = windows.sum() * seq_len
    if whole < LONG or (windows * width).sum() > WORTH * whole:
        width[:] = seq_len
    return width


def shapes(width: np.ndarray, batch_size: int) -> tuple[tuple[int, int], ...]:
    """Of windows of these widths (W,), how many a batch of about batch_size has of each: (rows, width), widest first.

    No more than there are: a batch larger than an epoch would be padding.

    Every batch has its share of each width: batches of one width alone took as long, and models trained on them were
    worse where negatives are few (recall@50 on Toys .157 for .163).
    """
    found = zip(*np.unique(width, return_counts=True), strict=True)
    batch_size = min(batch_size, len(width))
    return tuple((-(-batch_size * int(count) // len(width)), int(each)) for each, count in reversed(list(found)))


def places(values: np.ndarray, shapes: tuple[tuple[int, int], ...]) -> np.ndarray:
    """What stands at the places of a batch that are read, part after part: (B, L) -> (R, 1)."""
    widest = np.repeat([width for _, width in shapes], [rows for rows, _ in shapes])  # (B,)
    return values[np.arange(values.shape[1], 0, -1) <= widest[:, None]][:, None]


def batches(rng: np.random.Generator, width: np.ndarray, batch_size: int) -> np.ndarray:
    """The windows of each batch, (steps, B), in the order of `shapes`; W is a row of padding, the last of its width.

    Args:
        rng: gives the order.
        width: (W,) of each window.
        batch_size: see `shapes`.
    """
    steps = -(-len(width) // batch_size)
    found = []
    for rows, each in shapes(width, batch_size):
        windows = np.flatnonzero(width == each)
        windows = np.append(windows, np.full(steps * rows - len(windows), len(width)))
        part = windows[rng.permutation(len(windows))].reshape(steps, rows)
        found.append(np.take_along_axis(part, np.argsort(part == len(width), 1, kind="stable"), 1))  # padding last
    return np.concatenate(found, 1)
