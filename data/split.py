"""Cut histories into training sequences and held-out queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.queries import Queries
from data.ragged import Ragged
from errors import UserError


@dataclass(frozen=True)
class Split:
    """users: the row that each training sequence had among the histories, int64 [n]."""

    users: np.ndarray
    sequences: Ragged
    valid: Queries
    test: Queries
    left_out: int  # users too short to be cut


def user_split(histories: Ragged, seed: int) -> Split:
    """Strong generalisation, after ComiRec: users are shuffled and cut 80/10/10.

    A training user gives the whole history; of a held-out user the first 80% are the query and the
    rest are the targets.
    """
    lengths = histories.lengths()
    rows = np.flatnonzero(lengths >= 2)
    n = len(rows)
    if n < 10:
        raise UserError(
            f"{n} users are left after filtering, a user split needs 10; give more data, or split leave-one-out."
        )
    shuffled = rows[np.random.default_rng(seed).permutation(n)]
    # the order of users carries nothing, and that of the source reads better
    train, valid, test = map(np.sort, np.split(shuffled, [int(0.8 * n), int(0.9 * n)]))

    def part(users: np.ndarray) -> Queries:
        cut = np.maximum((0.8 * lengths[users]).astype(np.int64), 1)
        return _cut(histories, users, cut, lengths[users])

    left_out = len(lengths) - n
    return Split(train, histories.take(train), part(valid), part(test), left_out)


def leave_one_out(histories: Ragged, seed: int) -> Split:
    """Of every user the last item is the test target and the one before it the validation target;
    what stands before both is the training sequence. Nothing is drawn, so seed changes nothing."""
    lengths = histories.lengths()
    rows = np.flatnonzero(lengths >= 4)  # two items to train on: a history and a target
    if not len(rows):
        raise UserError("no user has the four items that leave-one-out needs; give more data.")
    length = lengths[rows]
    valid = _cut(histories, rows, length - 2, length - 1)
    test = _cut(histories, rows, length - 1, length)
    return Split(rows, valid.histories, valid, test, len(lengths) - len(rows))


SPLITS = {"user": user_split, "leave-one-out": leave_one_out}


def _cut(histories: Ragged, rows: np.ndarray, cut: np.ndarray, stop: np.ndarray) -> Queries:
    """Items before `cut` against those from `cut` to `stop`, counted within each row."""
    start = histories.offsets[rows]
    return Queries(
        histories.slices(rows, start, start + cut),
        histories.slices(rows, start + cut, start + stop),
    )
