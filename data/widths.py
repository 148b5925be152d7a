"""Short sequences together: a batch of them is narrower and has more rows, so that less of it is padding."""

from __future__ import annotations

import numpy as np

PARTS = 2, 4  # of the longest window: the widths of narrow batches
WORTH = 2 / 3  # of an epoch's places, at most, that narrow batches must leave: each width is compiled apart, in seconds
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
    places = windows.sum() * seq_len
    if places < LONG or (windows * width).sum() > WORTH * places:
        width[:] = seq_len
    return width


def steps(width: np.ndarray, batch_size: int) -> int:
    """How many batches windows of these widths fill; arguments as those of `batches`."""
    return sum(count for count, _, _ in _cut(width, batch_size))


def batches(rng: np.random.Generator, width: np.ndarray, batch_size: int) -> list[tuple[np.ndarray, int]]:
    """The windows of each batch and its width: about as many places in each, and on average batch_size windows.

    What the last batch of a width has left over is filled with narrower windows, and what the narrowest have left over
    is spread over their batches, as numbers from W on.

    Args:
        rng: gives the order.
        width: (W,) of each window.
        batch_size: how many are in a batch on average, so that there are as many batches as of one width.
    """
    kinds = _cut(width, batch_size)
    rest = sum(count * rows for count, rows, _ in kinds) - len(width)
    shuffled = rng.permutation(len(width) + rest)
    width = np.pad(width, (0, rest), constant_values=width.min())
    places = np.argsort(-width[shuffled], kind="stable")  # widest first, otherwise as they come
    found, done = [], 0
    for count, rows, each in kinds:
        found += [(part, each) for part in places[done : done + count * rows].reshape(count, rows)]
        done += count * rows
    found.sort(key=lambda batch: batch[0][0])  # wide and narrow ones by turns
    return [(shuffled[part], each) for part, each in found]


def _cut(width: np.ndarray, batch_size: int) -> list[tuple[int, int, int]]:
    """So many batches of so many windows of a width, widest first."""
    found, spare, places = [], 0, batch_size * float(width.mean())
    for each in np.unique(width)[::-1].tolist():
        rows, windows = max(round(places / each), 1), int(np.count_nonzero(width == each))
        count = max(-(-(windows - spare) // rows), 0)
        spare += count * rows - windows
        if count:
            found.append((count, rows, each))
    return found
