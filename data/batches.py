"""Training data as batches: whole sequences, or ready-made rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data import widths
from data.negatives import NEGATIVES
from data.queries import Queries
from data.ragged import Ragged
from errors import UserError


class Batch(NamedTuple):
    """What one optimiser step sees: B rows, histories of L items, N negatives.

    Attributes:
        history: (B, L) int32, oldest first, left-padded with 0.
        positive: (B,) int32, the item that followed; or (B, L), what followed each place of the history, 0 where
            that is no target.
        negative: (N,) int32, one set for all rows; or (R, N), of each row or place that is read its own.
        log_expected: float32, shaped like negative: the log of how often each was expected to be drawn.
        user: (B, W) int32, the feature values of each row's user, or None.
        shapes: how many rows there are of each width, widest first; what stands before the last `width` places of a row
            is padding. The same in all batches of an epoch.
    """

    history: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    log_expected: np.ndarray
    user: np.ndarray | None
    shapes: tuple[tuple[int, int], ...]


class TrainingSequences:
    """Whole sequences, one per user: targets and negatives are drawn anew every epoch.

    Frozen negatives cost accuracy. The numbers come from the caller's generator.

    Args:
        sequences: a row of item ids per user, oldest first.
        n_items: the catalogue is 1 .. n_items.
        users: (users, W) int32, the feature values of each sequence's user; None without features.

    Raises:
        UserError: the catalogue has fewer than two items; also of settings that give no batch.
    """

    def __init__(self, sequences: Ragged, n_items: int, users: np.ndarray | None = None):
        if n_items < 2:
            raise UserError(f"the catalogue has {n_items} items; drawing a negative needs two.")
        self.sequences, self.n_items, self.users = sequences, n_items, users

    def steps(self, batch_size: int, positions_per_user: int, all_positions: bool = False, seq_len: int = 0) -> int:
        """Batches in an epoch; seq_len matters with all_positions only. See `epoch`."""
        _require_positive(batch_size=batch_size, positions_per_user=positions_per_user)
        if all_positions:
            _require_positive(seq_len=seq_len)
            drawn, _ = self._drawn(seq_len, positions_per_user)
            if not drawn.any():
                raise UserError("no training sequence has two items, a history and a target; give more data.")
            return -(-int(drawn.sum()) // batch_size)
        return _whole_steps(int(np.minimum(self._targets_per_user(), positions_per_user).sum()), batch_size)

    def targets_per_batch(
        self, batch_size: int, positions_per_user: int, all_positions: bool = False, seq_len: int = 0
    ) -> float:
        """How many targets a batch has on average; arguments as of `steps`."""
        if not all_positions:
            return batch_size
        steps = self.steps(batch_size, positions_per_user, all_positions, seq_len)
        return float(self._target_frequencies(seq_len, positions_per_user, all_positions).sum() / steps)

    def epoch(
        self,
        rng: np.random.Generator,
        batch_size: int,
        seq_len: int,
        neg_num: int,
        positions_per_user: int,
        neg_power: float,
        negatives: str = "popular",
        all_positions: bool = False,
        next_items: int = 1,
    ) -> Iterator[Batch]:
        """The batches of one epoch, in random order, with negatives shared by the rows of a batch.

        A place of a sequence behind its first item is to be told from what stands before it: the target is the item
        there, or one of the next_items from there on, drawn anew for each place and epoch (as many as the sequence has;
        uniformly, as "dense all-action" targets are by PinnerFormer, Pancha et al., KDD 2022).

        One target per row (all_positions false): of each user positions_per_user targets are drawn without
        replacement (all if there are fewer); positive is (B,). What does not fill a batch is dropped, so that
        the shape never changes.

        All of them (all_positions true), for causal encoders: a row is a window of a sequence, and positive (B, L)
        holds what follows each place. A longer sequence is cut at places that differ from epoch to epoch, and a window
        that has fewer than L targets is filled with the items before them (target 0). Of a user with more windows than
        hold positions_per_user places, as many are drawn; of others every target is visited exactly once. Where that
        saves much padding, short sequences are rows of half or a quarter of the width, a share of every batch of about
        B rows, see `data.widths`. The rows that are missing are spread over all batches, as rows of 0.

        Args:
            rng: gives every random number.
            batch_size: B. seq_len: L. neg_num: N.
            positions_per_user: targets per user in an epoch; with all_positions whole windows of them.
            neg_power: negatives are drawn by popularity ** neg_power.
            negatives: their kind, a key of `data.negatives.NEGATIVES`.
            all_positions: whether every place of a row has a target.
            next_items: how many items a target is drawn from.
        """
        _require_positive(batch_size=batch_size, seq_len=seq_len, neg_num=neg_num, next_items=next_items)
        steps = self.steps(batch_size, positions_per_user, all_positions, seq_len)  # refuses what gives no batch
        popularity = np.bincount(self.sequences.values, minlength=self.n_items + 1)[1:]
        targets = self._target_frequencies(seq_len, positions_per_user, all_positions, next_items)
        sampler = NEGATIVES[negatives](popularity, neg_num, neg_power, targets)
        targets = self._later(rng, next_items)
        if all_positions:
            return self._windows(rng, batch_size, seq_len, positions_per_user, targets, sampler)
        return self._targets(rng, steps, batch_size, seq_len, positions_per_user, targets, sampler)

    def queries(
        self, rng: np.random.Generator, positions_per_user: int, seq_len: int, most: int | None = None
    ) -> Queries:
        """The targets of one epoch (one per row) and the last seq_len items before them, unshuffled.

        At most `most` of them, evenly over users: fewer are drawn of each, and of what is left over a part at random.
        """
        if most is not None:
            positions_per_user = min(positions_per_user, -(-most // max(len(self.sequences), 1)))
        start, target = self._draw(rng, positions_per_user)
        if most is not None and len(target) > most:
            kept = _some(rng, len(target), most)
            start, target = start[kept], target[kept]
        start = np.maximum(start, target - seq_len)
        histories = self.sequences.slices(self.sequences.row_of_value()[target], start, target)
        return _queries(histories, self.sequences.values[target], self._users_at(target))

    def _later(self, rng: np.random.Generator, next_items: int) -> Ragged:
        """The sequences with one of the next_items from each place on in that place."""
        if next_items == 1:
            return self.sequences
        values, room = self.sequences.values, self._room(next_items)
        return Ragged(self.sequences.offsets, values[np.arange(len(values)) + rng.integers(0, room)])

    def _room(self, next_items: int) -> np.ndarray:
        """How many items a target is drawn from at each place, (nnz,): next_items, or fewer where a sequence ends."""
        ends = np.repeat(self.sequences.offsets[1:], self.sequences.lengths())
        return np.minimum(ends - np.arange(len(ends)), next_items)

    def _targets(
        self, rng, steps, batch_size, seq_len, positions_per_user, targets: Ragged, sampler
    ) -> Iterator[Batch]:
        start, target = self._draw(rng, positions_per_user)
        shuffled = rng.permutation(len(target))
        for step in range(steps):
            rows = shuffled[step * batch_size : (step + 1) * batch_size]
            history = self.sequences.windows(start[rows], target[rows], seq_len)  # (B, L)
            positive = targets.values[target[rows]]  # (B,)
            users = self._users_at(target[rows])
            yield Batch(history, positive, *sampler.draw(rng, positive), users, (history.shape,))

    def _draw(self, rng: np.random.Generator, positions_per_user: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in `values`: where each history starts and where its target stands."""
        user, rank = _ranks(self._targets_per_user())
        start = self.sequences.offsets[user]
        # random keys, sorted within each user: the first few are a draw without replacement
        chosen = np.argsort(user + rng.random(len(user)))[rank < positions_per_user]
        return start[chosen], start[chosen] + 1 + rank[chosen]

    def _windows(self, rng, batch_size, seq_len, positions_per_user, targets: Ragged, sampler) -> Iterator[Batch]:
        user, first, last = self._cut(rng, seq_len, positions_per_user)
        width = self._drawn(seq_len, positions_per_user)[1][user]
        shapes = widths.shapes(width, batch_size)
        for row in widths.batches(rng, width, batch_size):
            history, positive = np.zeros((2, len(row), seq_len), np.int32)
            there = np.flatnonzero(row < len(user))
            row = row[there]
            start = self.sequences.offsets[user[row]]
            history[there] = self.sequences.windows(start, last[row], seq_len)
            positive[there] = targets.windows(first[row], last[row] + 1, seq_len)  # one place further
            features = None
            if self.users is not None:
                features = np.zeros((len(history), self.users.shape[1]), np.int32)  # (B, W)
                features[there] = self.users[user[row]]
            negatives = sampler.draw(rng, widths.places(positive, shapes))
            yield Batch(history, positive, *negatives, features, shapes)

    def _cut(self, rng: np.random.Generator, seq_len: int, positions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each window: its user, and the places in `values` of the first and the last target.

        As few windows as there can be, of each user at most what holds `positions`, at random; what they have to spare
        is drawn as the first window's missing part.
        """
        targets, windows = self._targets_per_user(), self._windows_per_user(seq_len)
        missing = rng.integers(0, windows * seq_len - targets + 1)  # (U,), below seq_len
        user, rank = _ranks(windows)
        stop = np.minimum((rank + 1) * seq_len - missing[user], targets[user])  # targets up to here are visited
        done = np.maximum(rank * seq_len - missing[user], 0)
        start = self.sequences.offsets[user]
        # random keys, sorted within each user
        drawn = np.argsort(user + rng.random(len(user)))[rank < _most_windows(positions, seq_len)]
        return user[drawn], (start + 1 + done)[drawn], (start + stop)[drawn]

    def _drawn(self, seq_len: int, positions_per_user: int) -> tuple[np.ndarray, np.ndarray]:
        """How many windows each user has in an epoch, and of what width, (U,) each."""
        drawn = np.minimum(self._windows_per_user(seq_len), _most_windows(positions_per_user, seq_len))
        return drawn, widths.widths(self._targets_per_user(), drawn, seq_len)

    def _target_frequencies(
        self, seq_len: int, positions_per_user: int, all_positions: bool, next_items: int = 1
    ) -> np.ndarray:
        """How often each item 1 .. n_items is expected to be a target of an epoch, (n_items,) float64."""
        most, there = positions_per_user, self._targets_per_user()
        if all_positions:
            most, there = _most_windows(positions_per_user, seq_len), self._windows_per_user(seq_len)
        share = np.minimum(1, most / np.maximum(there, 1))  # of a user's targets
        weights = np.repeat(share, self.sequences.lengths())
        weights[self.sequences.offsets[:-1][self.sequences.lengths() > 0]] = 0  # the first item has no history
        room = self._room(next_items)
        weights, each = np.zeros(len(weights)), weights / room
        for ahead in range(room.max(initial=0)):
            weights[ahead:] += np.where(room > ahead, each, 0)[: len(weights) - ahead]
        return np.bincount(self.sequences.values, weights, self.n_items + 1)[1:]

    def _users_at(self, places: np.ndarray) -> np.ndarray | None:
        """The feature values of the users whose sequences hold these places of `values`, (B, W)."""
        if self.users is None:
            return None
        return self.users[np.searchsorted(self.sequences.offsets, places, side="right") - 1]

    def _targets_per_user(self) -> np.ndarray:
        return np.maximum(self.sequences.lengths() - 1, 0)  # the first item has no history

    def _windows_per_user(self, seq_len: int) -> np.ndarray:
        return -(-self._targets_per_user() // seq_len)


class TrainingRows:
    """Ready-made rows: a history, one positive and its given negatives (the release's format).

    Args:
        histories: R rows of item ids, oldest first.
        positives: (R,) int32.
        negatives: (R, n) int32.
        users: (R, W) int32, the feature values of each row's user; None without features.
    """

    def __init__(
        self, histories: Ragged, positives: np.ndarray, negatives: np.ndarray, users: np.ndarray | None = None
    ):
        self._histories, self.positives, self.negatives, self.users = histories, positives, negatives, users

    def steps(self, batch_size: int, positions_per_user: int, all_positions: bool = False, seq_len: int = 0) -> int:
        """Batches in an epoch; a row is one target, so only batch_size matters."""
        _require_positive(batch_size=batch_size)
        return _whole_steps(len(self.positives), batch_size)

    def targets_per_batch(
        self, batch_size: int, positions_per_user: int, all_positions: bool = False, seq_len: int = 0
    ) -> float:
        """How many targets a batch has: one of each row."""
        return batch_size

    def epoch(
        self,
        rng: np.random.Generator,
        batch_size: int,
        seq_len: int,
        neg_num: int,
        positions_per_user: int,
        neg_power: float,
        negatives: str = "popular",
        all_positions: bool = False,
        next_items: int = 1,
    ) -> Iterator[Batch]:
        """As TrainingSequences.epoch; rows are shuffled, the first neg_num negatives (B, N) are used.

        How these were drawn is not known, so they count as they are: log_expected is 0; another kind is refused, and so
        are targets drawn from several items. With all_positions the target stands in the last column of positive
        (B, L): no other target is given.
        """
        _require_positive(batch_size=batch_size, seq_len=seq_len, neg_num=neg_num)
        if negatives != "popular":
            raise UserError(f"negatives is {negatives!r}, but the training rows hold their own; leave it out.")
        if next_items != 1:
            raise UserError(f"next_items is {next_items}, but a training row holds one target; leave it out.")
        given = self.negatives.shape[1]
        if neg_num > given:
            raise UserError(
                f"neg_num is {neg_num}, but the training rows hold {given} negatives each; "
                f"ask for at most {given}, or train on whole sequences (user_id,items)."
            )
        steps = self.steps(batch_size, positions_per_user)
        return self._batches(rng, steps, batch_size, seq_len, neg_num, all_positions)

    def queries(
        self, rng: np.random.Generator, positions_per_user: int, seq_len: int, most: int | None = None
    ) -> Queries:
        """All rows, or `most` of them at random: the last seq_len items before each target."""
        rows, ends = np.arange(len(self.positives)), self._histories.offsets
        starts = np.maximum(ends[:-1], ends[1:] - seq_len)
        found = _queries(self._histories.slices(rows, starts, ends[1:]), self.positives, self.users)
        return found if most is None or len(found) <= most else found.take(_some(rng, len(found), most))

    def _batches(self, rng, steps, batch_size, seq_len, neg_num, all_positions) -> Iterator[Batch]:
        offsets = self._histories.offsets
        log_expected = np.zeros((batch_size * (seq_len if all_positions else 1), neg_num), np.float32)
        shuffled = rng.permutation(len(self.positives))
        for step in range(steps):
            rows = shuffled[step * batch_size : (step + 1) * batch_size]
            history = self._histories.windows(offsets[rows], offsets[rows + 1], seq_len)  # (B, L)
            positive = self.positives[rows]  # (B,)
            negatives = self.negatives[rows, :neg_num]  # (B, N)
            if all_positions:
                positive = np.pad(positive[:, None], ((0, 0), (seq_len - 1, 0)))  # (B, L)
                negatives = np.repeat(negatives, seq_len, 0)  # (B * L, N), of each place its own
            user = None if self.users is None else self.users[rows]  # (B, W)
            yield Batch(history, positive, negatives, log_expected, user, (history.shape,))


def _queries(histories: Ragged, positives: np.ndarray, users: np.ndarray | None) -> Queries:
    return Queries(histories, Ragged.from_lengths(np.ones(len(positives), np.int64), positives), users)


def _some(rng: np.random.Generator, count: int, most: int) -> np.ndarray:
    """`most` of the numbers below `count`, ascending."""
    return np.sort(rng.choice(count, most, replace=False))


def _most_windows(positions_per_user: int, seq_len: int) -> int:
    """How many windows of seq_len hold so many places, at least one."""
    return -(-positions_per_user // seq_len)


def _ranks(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For `counts` things of each user: the user of every thing, and its rank 0, 1, .. among that user's."""
    user = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    return user, np.arange(len(user)) - first[user]


def _whole_steps(samples: int, batch_size: int) -> int:
    if samples < batch_size:
        raise UserError(
            f"an epoch has {samples} training samples, less than one batch of {batch_size}; "
            "lower batch_size or give more data."
        )
    return samples // batch_size


def _require_positive(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise UserError(f"{name} is {value}; it must be at least 1.")
