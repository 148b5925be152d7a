"""Cut histories into training sequences and held-out queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.queries import Queries
from data.ragged import Ragged
from errors import UserError

LIKED = 2  # last-3: an interaction rated above this counts as one to be found


@dataclass(frozen=True)
class Split:
    """What is trained on, and what is asked.

    Attributes:
        users, valid_users, test_users: (n,) int64, the history that each training sequence or query was cut from.
        sequences: the training sequences.
        valid, test: the queries.
        left_out: users too short to be cut.
        note: what one must know of this data to compare results, or "".
    """

    users: np.ndarray
    sequences: Ragged
    valid_users: np.ndarray
    valid: Queries
    test_users: np.ndarray
    test: Queries
    left_out: int
    note: str = ""


def user_split(histories: Ragged, seed: int, ratings: np.ndarray | None = None) -> Split:
    """Strong generalisation, after ComiRec: users are shuffled and cut 80/10/10.

    A training user gives the whole history; of a held-out user the first 80% are the query and the rest are the
    targets. Ratings change nothing.
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

    return Split(train, histories.take(train), valid, part(valid), test, part(test), len(lengths) - n)


def leave_one_out(histories: Ragged, seed: int, ratings: np.ndarray | None = None) -> Split:
    """Of every user the last item is the test target and the one before it the validation target.

    What stands before both is the training sequence. Nothing is drawn, so seed changes nothing; nor do ratings.
    """
    rows = _long_enough(histories, 4, "leave-one-out")
    length = histories.lengths()[rows]
    valid = _cut(histories, rows, length - 2, length - 1)
    test = _cut(histories, rows, length - 1, length)
    return Split(rows, valid.histories, rows, valid, rows, test, len(histories) - len(rows))


def last_three(histories: Ragged, seed: int, ratings: np.ndarray | None = None) -> Split:
    """The protocol behind the published MovieLens-1M table of two-tower models.

    Of every user the three latest items are test targets, one query each: what stands before the target, earlier test
    items too, is its history. The three items before those are the validation targets in the same way, and what
    stands before all six is the training sequence. Where the source has ratings, only targets rated above 2 are asked
    for; nothing else is filtered by rating. Nothing is drawn, so seed changes nothing.

    Args:
        histories: a row per user.
        seed: not used.
        ratings: one per value of the histories, or None.
    """
    rows = _long_enough(histories, 8, "last-3")
    length = histories.lengths()[rows]
    liked = np.ones(len(histories.values), bool) if ratings is None else ratings > LIKED

    def part(first: int) -> tuple[np.ndarray, Queries]:
        """The queries for the items that stand `first`, first - 1 and first - 2 places from the end."""
        users, back = np.repeat(rows, 3), np.tile(np.arange(first, first - 3, -1), len(rows))
        at = np.repeat(length, 3) - back
        asked = liked[histories.offsets[users] + at]
        users, at = users[asked], at[asked]
        if not len(users):
            raise UserError(f"no target of last-3 is rated above {LIKED}; split leave-one-out.")
        return users, _cut(histories, users, at, at + 1)

    start = histories.offsets[rows]
    sequences = histories.slices(rows, start, start + length - 6)
    valid, test = part(6), part(3)
    note = f"{len(test[1]):,} of {3 * len(rows):,} test targets are asked for, those rated above {LIKED}"
    if ratings is None:
        note = "no ratings, or not all of them numbers: targets of last-3 are of any rating"
    return Split(rows, sequences, *valid, *test, len(histories) - len(rows), note)


SPLITS = {"user": user_split, "leave-one-out": leave_one_out, "last-3": last_three}


def _long_enough(histories: Ragged, least: int, split: str) -> np.ndarray:
    """The users with at least so many items, two of them to train on: a history and a target."""
    rows = np.flatnonzero(histories.lengths() >= least)
    if not len(rows):
        raise UserError(f"no user has the {least} items that {split} needs; give more data.")
    return rows


def _cut(histories: Ragged, rows: np.ndarray, cut: np.ndarray, stop: np.ndarray) -> Queries:
    """Items before `cut` against those from `cut` to `stop`, counted within each row."""
    start = histories.offsets[rows]
    return Queries(
        histories.slices(rows, start, start + cut),
        histories.slices(rows, start + cut, start + stop),
    )
