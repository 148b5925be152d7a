"""Columns of id lists, as CSV files hold histories and targets: read, and refused with line and column."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.ragged import Ragged
from data.sourcefile import SourceFile, shown


@dataclass(frozen=True)
class IdLists:
    """A column of id lists as it stands in a file, with the line of every row for messages.

    Attributes:
        file, column: where it stands.
        values: (nnz,) int64, the ids of all rows.
        lengths, lines: (rows,) int64.
    """

    file: SourceFile
    column: str
    values: np.ndarray
    lengths: np.ndarray
    lines: np.ndarray

    def ragged(self) -> Ragged:
        return Ragged.from_lengths(self.lengths, self.values.astype(np.int32))

    def without_padding(self) -> IdLists:
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
        return IdLists(self.file, self.column, self.values[keep], lengths, self.lines)

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

    def require_absent_from(self, other: IdLists) -> None:
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


def read_lists(
    file: SourceFile, columns: list[str], unique: Sequence[str] = (), text: Sequence[str] = ()
) -> tuple[list[IdLists], list[list[str]]]:
    """Read columns of JSON lists, and some of plain text.

    Args:
        file: a CSV file.
        columns: those of lists.
        unique: no two rows may agree in all of these columns.
        text: the columns that are given back as they are.
    """
    places, key_places, text_places = (file.places(list(names)) for names in (columns, unique, text))
    values, lengths = ([array("q") for _ in columns] for _ in range(2))
    texts: list[list[str]] = [[] for _ in text]
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
                what = f"{shown(fields[place])} is not a JSON list of item ids; write [1, 2, 3]"
                raise file.refusal(what, line, columns[i]) from error
            lengths[i].append(len(ids))
        for cells, place in zip(texts, text_places, strict=True):
            cells.append(fields[place])
    if not lines:
        raise file.refusal("no rows below the header; add some, or delete the folder to have it prepared anew")
    lists = [
        IdLists(file, name, *(np.frombuffer(part, np.int64) for part in (values[i], lengths[i], lines)))
        for i, name in enumerate(columns)
    ]
    return lists, texts


def _ids(cell: str) -> list[int]:
    """The ids of one cell. A lone number is a list of one, as the release writes pos_items."""
    if "e" in cell:  # true and false would pass for 1 and 0
        raise ValueError("a word or an exponent")
    ids = json.loads(cell)
    return [ids] if isinstance(ids, int) else ids
