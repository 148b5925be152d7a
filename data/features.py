"""What is known of users and items as numbers: a table of value ids each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

NO_VALUE = 0


@dataclass(frozen=True)
class FeatureTable:
    """The values of every row, with one vocabulary over all columns: "comedy" of two columns are two values.

    Attributes:
        values: (rows + 1, W) int32, ids 1 .. n_values, 0 where there is none or it is not in the vocabulary; row 0 is
            padding. A column takes as many places of W as its fullest cell has values.
        names: n_values + 1 texts such as "gender=F"; entry 0 is "".
    """

    values: np.ndarray
    names: list[str]

    @property
    def n_values(self) -> int:
        return len(self.names) - 1


@dataclass(frozen=True)
class Features:
    """Those that were asked for.

    Attributes:
        user: a row per user; None if no feature of users was asked for.
        item: a row per item, aligned to item ids; None likewise.
        user_rows: {user id: row of `user`}.
    """

    user: FeatureTable | None = None
    item: FeatureTable | None = None
    user_rows: dict[str, int] = field(default_factory=dict)


def feature_table(columns: dict[str, Sequence[str]], known: Iterable[int] | None = None) -> FeatureTable:
    """Number the values of some columns.

    Args:
        columns: {name: a cell per row}; a cell may hold several values parted by "|", "" is none.
        known: the rows (from 0) whose values make the vocabulary, for an embedding that no training row uses stays
            noise; all of them if None.
    """
    names, parts = [""], []
    for name, cells in columns.items():
        lists = [list(dict.fromkeys(value for value in cell.split("|") if value)) for cell in cells]
        seen = {value for row in (range(len(lists)) if known is None else known) for value in lists[row]}
        number = {value: len(names) + i for i, value in enumerate(sorted(seen))}
        names += [f"{name}={value}" for value in number]
        values = np.zeros((len(lists) + 1, max(map(len, lists), default=0)), np.int32)
        for row, found in enumerate(lists, start=1):
            values[row, : len(found)] = [number.get(value, NO_VALUE) for value in found]
        parts.append(values)
    return FeatureTable(np.concatenate(parts, axis=1), names)
