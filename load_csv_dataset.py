"""The CSV contract: a prepared folder -> a catalogue, training batches and evaluation queries.

Ids are 1..n_items, 0 is padding, and histories are oldest first. A cell that holds several ids is a
JSON list, "[5, 17, 3]". Every refusal names file, line and column.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.batches import Batch, TrainingRows, TrainingSequences
from data.queries import Queries
from data.ragged import Ragged
from data.sourcefile import SourceFile

__all__ = [
    "Batch",
    "Catalogue",
    "Queries",
    "TrainingRows",
    "TrainingSequences",
    "load_catalogue",
    "load_queries",
    "load_training",
]

SEQUENCE_COLUMNS = ["user_id", "items"]
ROW_COLUMNS = ["hist_items", "pos_items", "neg_items"]  # those of the published release
QUERY_COLUMNS = ["hist_items", "target_items"]
ITEM_COLUMNS = ["id", "original_id", "title", "categories"]


@dataclass(frozen=True)
class Catalogue:
    """The items 1..n_items. Each list has n_items + 1 entries; entry 0 is padding and "".

    categories: "Action|Comedy", "" where unknown.
    """

    n_items: int
    original_ids: list[str]
    titles: list[str]
    categories: list[str]


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
