"""The CSV contract: a prepared folder -> a catalogue, training batches and evaluation queries.

Ids are 1..n_items, 0 is padding, and histories are oldest first. A cell that holds several ids is a
JSON list, "[5, 17, 3]". Every refusal names file, line and column.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.negatives import NegativeSampler
from data.queries import Queries
from data.ragged import Ragged
from data.sourcefile import SourceFile
from errors import UserError

SEQUENCE_COLUMNS = ["user_id", "items"]
ROW_COLUMNS = ["hist_items", "pos_items", "neg_items"]  # those of the published release
QUERY_COLUMNS = ["hist_items", "target_items"]
ITEM_COLUMNS = ["id", "original_id", "title", "categories"]

# history int32 [B, seq_len]; positive int32 [B]; negative int32 [N], one set per batch, or [B, N];
# log_expected float32, shaped like negative: the log of how often each was expected to be drawn
Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Catalogue:
    """The items 1..n_items. Each list has n_items + 1 entries; entry 0 is padding and "".

    categories: "Action|Comedy", "" where unknown.
    """

    n_items: int
    original_ids: list[str]
    titles: list[str]
    categories: list[str]


class TrainingSequences:
    """Whole sequences: positions and negatives are drawn anew every epoch.

    Frozen negatives cost accuracy. The numbers come from the caller's generator. Settings that give
    no batch raise UserError.
    """

    def __init__(self, sequences: Ragged, n_items: int):
        if n_items < 2:
            raise UserError(f"the catalogue has {n_items} items; drawing a negative needs two.")
        self.sequences, self.n_items = sequences, n_items

    def steps(self, batch_size: int, positions_per_user: int) -> int:
        """Batches in an epoch; the remainder is dropped so that the batch shape never changes."""
        _require_positive(positions_per_user=positions_per_user)
        samples = int(np.clip(self.sequences.lengths() - 1, 0, positions_per_user).sum())
        return _steps(samples, batch_size)

    def epoch(
        self,
        rng: np.random.Generator,
        batch_size: int,
        seq_len: int,
        neg_num: int,
        positions_per_user: int,
        neg_power: float,
    ) -> Iterator[Batch]:
        """Batches as `Batch` says, with neg_num negatives shared by the rows of a batch.

        Of each user positions_per_user target positions are drawn without replacement (all if there
        are fewer), never the first item. The history is what stands before the target: its last
        seq_len items, left-padded with 0. Negatives are drawn by popularity ** neg_power.
        """
        _require_positive(batch_size=batch_size, seq_len=seq_len, neg_num=neg_num)
        steps = self.steps(batch_size, positions_per_user)
        popularity = np.bincount(self.sequences.values, minlength=self.n_items + 1)[1:]
        sampler = NegativeSampler(popularity, neg_power)
        return self._batches(rng, steps, batch_size, seq_len, neg_num, positions_per_user, sampler)

    def histories(self, rng: np.random.Generator, positions_per_user: int) -> Ragged:
        """The whole histories before the target positions of one epoch, unshuffled."""
        start, target = self._draw(rng, positions_per_user)
        return self.sequences.slices(self.sequences.row_of_value()[target], start, target)

    def _batches(self, rng, steps, batch_size, seq_len, neg_num, positions_per_user, sampler) -> Iterator[Batch]:
        start, target = self._draw(rng, positions_per_user)
        shuffled = rng.permutation(len(target))
        for step in range(steps):
            rows = shuffled[step * batch_size : (step + 1) * batch_size]
            history = self.sequences.windows(start[rows], target[rows], seq_len)  # (B, seq_len)
            yield history, self.sequences.values[target[rows]], *sampler.draw(rng, neg_num)

    def _draw(self, rng: np.random.Generator, positions_per_user: int) -> tuple[np.ndarray, np.ndarray]:
        """Places in `values`: where each history starts and where its target stands."""
        counts = np.maximum(self.sequences.lengths() - 1, 0)  # the first item has no history
        first = np.cumsum(counts) - counts
        user = np.repeat(np.arange(len(counts)), counts)
        rank = np.arange(len(user)) - first[user]  # 0, 1, .. within each user
        start = self.sequences.offsets[user]
        # random keys, sorted within each user: the first few are a draw without replacement
        chosen = np.argsort(user + rng.random(len(user)))[rank < positions_per_user]
        return start[chosen], start[chosen] + 1 + rank[chosen]


class TrainingRows:
    """Ready-made rows: a history, one positive and its given negatives (the release's format).

    positives: int32 [R]; negatives: int32 [R, n].
    """

    def __init__(self, histories: Ragged, positives: np.ndarray, negatives: np.ndarray):
        self._histories, self.positives, self.negatives = histories, positives, negatives

    def steps(self, batch_size: int, positions_per_user: int) -> int:
        """Batches in an epoch; a row is one position, so positions_per_user changes nothing."""
        return _steps(len(self.positives), batch_size)

    def epoch(
        self,
        rng: np.random.Generator,
        batch_size: int,
        seq_len: int,
        neg_num: int,
        positions_per_user: int,
        neg_power: float,
    ) -> Iterator[Batch]:
        """As TrainingSequences.epoch; rows are shuffled, the first neg_num negatives are used.

        How these were drawn is not known, so they count as they are: log_expected is 0.
        """
        _require_positive(batch_size=batch_size, seq_len=seq_len, neg_num=neg_num)
        given = self.negatives.shape[1]
        if neg_num > given:
            raise UserError(
                f"neg_num is {neg_num}, but the training rows hold {given} negatives each; "
                f"ask for at most {given}, or train on whole sequences (user_id,items)."
            )
        steps = self.steps(batch_size, positions_per_user)
        return self._batches(rng, steps, batch_size, seq_len, neg_num)

    def histories(self, rng: np.random.Generator, positions_per_user: int) -> Ragged:
        """The histories of all rows."""
        return self._histories

    def _batches(self, rng, steps, batch_size, seq_len, neg_num) -> Iterator[Batch]:
        offsets = self._histories.offsets
        log_expected = np.zeros((batch_size, neg_num), np.float32)
        shuffled = rng.permutation(len(self.positives))
        for step in range(steps):
            rows = shuffled[step * batch_size : (step + 1) * batch_size]
            # (B, seq_len)
            history = self._histories.windows(offsets[rows], offsets[rows + 1], seq_len)
            yield history, self.positives[rows], self.negatives[rows, :neg_num], log_expected


def load_catalogue(folder: str | Path) -> Catalogue:
    """Read items.csv of a prepared folder; without it cate_item.txt of a release folder, which
    knows only ids and categories."""
    file = SourceFile(Path(folder) / "items.csv")
    categories_only = SourceFile(Path(folder) / "cate_item.txt")
    if categories_only.path.exists() and not file.path.exists():
        return _catalogue_of_categories(categories_only)
    places = file.places(ITEM_COLUMNS)
    original_ids, titles, categories = [""], [""], [""]
    seen: dict[str, int] = {}
    for line, fields in file.body():
        number, original, title, category = (fields[place] for place in places)
        due = len(titles)
        if number != str(due):
            what = f"{number!r} where {due} is due; number the items 1, 2, 3 ... in order"
            raise file.refusal(what, line, "id")
        if original in seen:
            what = f"{original!r} stands on line {seen[original]} too; remove one of the two"
            raise file.refusal(what, line, "original_id")
        seen[original] = line
        original_ids.append(original)
        titles.append(title)
        categories.append(category)
    if not seen:
        raise file.refusal("no items below the header; add some, or delete the folder to have it prepared anew")
    return Catalogue(len(seen), original_ids, titles, categories)


def _catalogue_of_categories(file: SourceFile) -> Catalogue:
    """Read item_id,cate_id lines; an item that is missing has an unknown category, for the ids of
    MovieLens have gaps."""
    found: dict[int, str] = {}
    for line, text in file.lines("utf-8"):
        item, _, category = text.partition(",")
        if not (item.strip().isdecimal() and category.strip().isdecimal()):
            raise file.refusal("not item_id,cate_id; write two whole numbers", line)
        number = int(item)
        if number < 1 or number in found:
            what = "0 is padding" if number < 1 else f"{number} stands on an earlier line too"
            raise file.refusal(f"{what}; remove the line", line, "item_id")
        found[number] = category.strip()
    if not found:
        raise file.refusal("empty file; one item_id,cate_id per line is needed")
    n_items = max(found)
    return Catalogue(
        n_items,
        original_ids=[""] + [str(item) for item in range(1, n_items + 1)],
        titles=[""] * (n_items + 1),
        categories=[found.get(item, "") for item in range(n_items + 1)],
    )


def load_queries(csv_path: str | Path, n_items: int) -> Queries:
    """Read hist_items,target_items, with any number of targets.

    A history may be padded with 0 at its ends (the release pads to a fixed length); the targets may
    not: padding is never truth. Equal rows are fine: two users can have taken the same items.
    """
    histories, targets = _read_lists(SourceFile(Path(csv_path)), QUERY_COLUMNS)
    histories = histories.without_padding()
    for column in (histories, targets):
        column.require_filled()
        column.require_ids(n_items)
    targets.require_distinct()
    targets.require_absent_from(histories)
    return Queries(histories.ragged(), targets.ragged())


def load_training(csv_path: str | Path, n_items: int) -> TrainingSequences | TrainingRows:
    """Read whole sequences (user_id,items) or the release's hist_items,pos_items,neg_items."""
    file = SourceFile(Path(csv_path))
    header = file.header()
    if set(SEQUENCE_COLUMNS) <= set(header):
        return _load_sequences(file, n_items)
    if set(ROW_COLUMNS) <= set(header):
        return _load_rows(file, n_items)
    due = f"{','.join(SEQUENCE_COLUMNS)} or {','.join(ROW_COLUMNS)}"
    raise file.refusal(f"the columns are {','.join(header)}; they must be {due}", line=1)


def _load_sequences(file: SourceFile, n_items: int) -> TrainingSequences:
    (items,) = _read_lists(file, ["items"], unique=["user_id"])
    items.require_filled(2, "a history and a target")
    items.require_ids(n_items)
    items.require_distinct()  # else a target would stand in its own history
    return TrainingSequences(items.ragged(), n_items)


def _load_rows(file: SourceFile, n_items: int) -> TrainingRows:
    histories, positives, negatives = _read_lists(file, ROW_COLUMNS, unique=ROW_COLUMNS)
    histories = histories.without_padding()
    for column in (histories, positives, negatives):
        column.require_filled()
        column.require_ids(n_items)
    positives.require_width(1, "more than one id; give every row one")
    width = int(negatives.lengths[0])
    negatives.require_width(width, f"not {width} ids as in the first row; give every row as many")
    positives.require_absent_from(histories)
    positives.require_absent_from(negatives)
    return TrainingRows(
        histories.ragged(),
        positives.values.astype(np.int32),  # (R,)
        negatives.values.astype(np.int32).reshape(len(positives.values), -1),  # (R, n)
    )


@dataclass(frozen=True)
class _Lists:
    """A column of id lists as it stands in a file, with the line of every row for messages.

    values: int64 [nnz]; lengths, lines: int64 [rows].
    """

    file: SourceFile
    column: str
    values: np.ndarray
    lengths: np.ndarray
    lines: np.ndarray

    def ragged(self) -> Ragged:
        return Ragged.from_lengths(self.lengths, self.values.astype(np.int32))

    def without_padding(self) -> _Lists:
        """Zeros at either end of a list taken off; a zero between items stays, to be refused."""
        row = self._rows()
        place = np.flatnonzero(self.values)
        owner = row[place]
        begins = np.diff(owner, prepend=-1) > 0
        ends = np.diff(owner, append=len(self.lengths)) > 0
        first = np.full(len(self.lengths), len(self.values))
        last = np.full(len(self.lengths), -1)
        first[owner[begins]] = place[begins]
        last[owner[ends]] = place[ends]
        at = np.arange(len(self.values))
        keep = (at >= first[row]) & (at <= last[row])
        lengths = np.bincount(row[keep], minlength=len(self.lengths))
        return _Lists(self.file, self.column, self.values[keep], lengths, self.lines)

    def require_filled(self, least: int = 1, why: str = "an item") -> None:
        self._refuse_rows(self.lengths < least, f"too few ids; every row needs {why}")

    def require_width(self, width: int, what: str) -> None:
        self._refuse_rows(self.lengths != width, what)

    def require_ids(self, n_items: int) -> None:
        what = f"item {{}} is not in the catalogue (1 to {n_items}); remove it"
        zero = "0 is padding, which may only stand at the ends of hist_items; remove it"
        self._refuse_values(np.flatnonzero(self.values == 0), zero)
        self._refuse_values(np.flatnonzero((self.values < 1) | (self.values > n_items)), what)

    def require_distinct(self) -> None:
        key = self._keys(self.values.max(initial=0) + 1)
        order = np.argsort(key, kind="stable")
        again = order[1:][key[order[1:]] == key[order[:-1]]]
        self._refuse_values(again, "item {} stands in the list twice; keep its first place only")

    def require_absent_from(self, other: _Lists) -> None:
        base = max(self.values.max(initial=0), other.values.max(initial=0)) + 1
        both = np.flatnonzero(np.isin(self._keys(base), other._keys(base)))
        what = f"item {{}} is also in {other.column} of that line; remove it from one of the two"
        self._refuse_values(both, what)

    def _refuse_rows(self, bad: np.ndarray, what: str) -> None:
        if bad.any():
            raise self.file.refusal(what, self.lines[np.argmax(bad)], self.column)

    def _refuse_values(self, bad: np.ndarray, what: str) -> None:
        """bad: places in values, in any order."""
        if len(bad):
            at = bad.min()
            line = self.lines[self._rows()[at]]
            raise self.file.refusal(what.format(self.values[at]), line, self.column)

    def _rows(self) -> np.ndarray:
        """The row of every value, int64 [nnz]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    def _keys(self, base: int) -> np.ndarray:
        """One number for (row, item), int64 [nnz]."""
        return self._rows() * base + self.values


def _read_lists(file: SourceFile, columns: list[str], unique: Sequence[str] = ()) -> list[_Lists]:
    """Read columns of JSON lists. No two rows may agree in all columns of `unique`."""
    places = file.places(columns)
    key_places = file.places(list(unique))
    values = [array("q") for _ in columns]
    lengths = [array("q") for _ in columns]
    lines = array("q")
    seen: dict[int, int] = {}
    for line, fields in file.body():
        lines.append(line)
        if key_places:
            key = hash(tuple(fields[place] for place in key_places))
            if key in seen:
                what = f"the same as on line {seen[key]}; remove one of the two rows"
                raise file.refusal(what, line, ",".join(unique))
            seen[key] = line
        for i, place in enumerate(places):
            try:
                ids = _ids(fields[place])
                values[i].fromlist(ids)
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                cell = fields[place] if len(fields[place]) < 40 else fields[place][:37] + "..."
                what = f"{cell!r} is not a JSON list of item ids; write [1, 2, 3]"
                raise file.refusal(what, line, columns[i]) from error
            lengths[i].append(len(ids))
    if not lines:
        raise file.refusal("no rows below the header; add some, or delete the folder to have it prepared anew")
    return [
        _Lists(file, name, *(np.frombuffer(part, np.int64) for part in (values[i], lengths[i], lines)))
        for i, name in enumerate(columns)
    ]


def _ids(cell: str) -> list[int]:
    """The ids of one cell. A lone number is a list of one, as the release writes pos_items."""
    if "e" in cell:  # true and false would pass for 1 and 0
        raise ValueError("a word or an exponent")
    ids = json.loads(cell)
    return [ids] if isinstance(ids, int) else ids


def _steps(samples: int, batch_size: int) -> int:
    _require_positive(batch_size=batch_size)
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
