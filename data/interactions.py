"""Who took what, in time order: read from a CSV file, cleaned, cut to frequent items and users."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NoReturn

import numpy as np
import pandas as pd

from data.ragged import Ragged
from data.sourcefile import SourceFile, first_of, shown

MIN_COUNT = 5  # ComiRec's filter: an item, then a user, with fewer interactions is left out
COLUMNS = ["user_id", "item_id", "timestamp"]
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
TIMELY = re.compile(r"date|time|hour|minute|second|^ts$", re.IGNORECASE)  # a column that may tell a time
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")  # what one begins with; digits alone are a number

Explain = Callable[[SourceFile], NoReturn]  # finds the line at fault and raises UserError


@dataclass(frozen=True)
class Interactions:
    """Rows stand together by user and, within a user, oldest first; no user has an item twice.

    Attributes:
        users, items: (rows,) int32, numbers into user_ids and item_ids.
        user_ids, item_ids: the original ids as text in natural order: a number says nothing about popularity or time,
            so breaking ties by number leaks nothing.
        repeats: rows that were left out because the user already had the item.
        ties: rows of the source with the time of the user's row before them, whose order is that of the source.
        ratings: (rows,) float32; None where the source has none.
    """

    users: np.ndarray
    items: np.ndarray
    user_ids: list[str]
    item_ids: list[str]
    repeats: int = 0
    ties: int = 0
    ratings: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)

    def frequent(self, min_count: int = MIN_COUNT) -> Interactions:
        """Keep the items with min_count interactions, then the users with min_count of the rest.

        One pass, as ComiRec does, not until nothing changes. Ids that no longer occur are dropped.
        """
        often = np.bincount(self.items, minlength=len(self.item_ids)) >= min_count
        keep = often[self.items]
        active = np.bincount(self.users[keep], minlength=len(self.user_ids)) >= min_count
        keep &= active[self.users]
        users, user_ids = _renumber(self.users[keep], self.user_ids)
        items, item_ids = _renumber(self.items[keep], self.item_ids)
        ratings = None if self.ratings is None else self.ratings[keep]
        return Interactions(users, items, user_ids, item_ids, self.repeats, self.ties, ratings)

    def histories(self) -> Ragged:
        """One row per user: the items numbered from 1 (0 is padding), oldest first."""
        lengths = np.bincount(self.users, minlength=len(self.user_ids))
        return Ragged.from_lengths(lengths, self.items + 1)


def read_interactions(file: SourceFile, sort_rows: bool = False) -> Interactions:
    """Read user_id,item_id,timestamp[,...] with a header, UTF-8, plain or gzip; or RecBole's .inter.

    Ids are any text, but no two may differ by blanks or a ".0" at an end alone. Timestamps are numbers, or all of them
    dates in ISO 8601; equal ones keep the order of the file. Every row counts as an interaction whatever its rating; a
    column `rating` is kept if all of it are numbers, other columns are not used. A user whose rows go back in time is
    refused, or sorted if sort_rows is set.

    Raises:
        UserError: the file cannot be read as this, with line and column.
    """
    file.places(COLUMNS)
    header, kept = file.header([*COLUMNS, "rating"]), [*COLUMNS, "rating"]
    used = first_of(found := file.header(), "timestamp")
    if used in ("date", "time") and (finer := [name for name in found if name != used and TIMELY.search(name)]):
        what = f"columns {used} and {', '.join(finer)}; put what tells the time together in one, such as"
        raise file.refusal(f"{what} 2000-12-31 22:12:40, and call it timestamp", 1)
    names = [name if name in kept and name not in header[:n] else str(n) for n, name in enumerate(header)]
    kept = [name for name in names if name in kept]
    form = {"sep": file.delimiter, "quoting": file.quoting, "encoding": "utf-8"}
    form |= {"usecols": kept} if len(kept) < len(names) else {}
    ids = {name: "category" for name in kept if name != "timestamp"}
    frame = read_table(file, _explain, names=names, header=0, dtype=ids, **form)
    return arrange(file, frame, range(2, 2 + len(frame)), sort_rows)


def columns_of(file: SourceFile) -> dict:
    """Which columns of a table are read: {"read": {our name: that of the file}, "not read": [names]}."""
    found = file.header()
    read = {ours: theirs for ours in (*COLUMNS, "rating") if (theirs := first_of(found, ours))}
    return {"read": read, "not read": [name for name in found if name not in read.values()]}


def read_table(file: SourceFile, explain: Explain, **options) -> pd.DataFrame:
    """pandas.read_csv of user_id, item_id, timestamp and others, made to refuse what it would bend: rows with too many
    or too few fields, broken quotes, times that are no finite numbers, empty ids.

    Args:
        file: what to read.
        explain: finds the line at fault and raises UserError.
        **options: of read_csv.
    """
    with file.open() as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.DtypeWarning)  # of times that are not alike, refused below
        try:
            frame = pd.read_csv(
                stream,
                keep_default_na=False,  # "NA" and "null" are ids like any other
                skip_blank_lines=False,  # so that row and line numbers stay in step
                **options,
            )
            quoted = options["quoting"] != csv.QUOTE_NONE and stream.raw.quoted
        except pd.errors.EmptyDataError:
            frame, quoted = pd.DataFrame(), False
        except pd.errors.ParserError:
            explain(file)
    unrated = "rating" in frame and frame["rating"].dtype == "category" and "" in frame["rating"].cat.categories
    if quoted or unrated or "usecols" in options:
        for _ in file.body():  # pandas reads a broken quote to the next one, rows between them included, takes a field
            pass  # that is missing for an empty one, and counts none where it leaves some unread
    if not len(frame):
        raise file.refusal("no rows; at least one interaction is needed")
    if not isinstance(frame.index, pd.RangeIndex):  # pandas takes surplus first fields for labels
        explain(file)
    if frame["timestamp"].dtype.kind not in "iuf":
        frame["timestamp"] = [seconds(str(text)) for text in frame["timestamp"]]
    if not np.isfinite(frame["timestamp"].to_numpy()).all():
        explain(file)
    if any("" in frame[name].cat.categories for name in ("user_id", "item_id")):
        explain(file)
    return frame


def arrange(file: SourceFile, frame: pd.DataFrame, lines: Sequence[int], sort_rows: bool) -> Interactions:
    """Number the ids, put the rows in order, leave repeats out.

    Args:
        file: where the rows are from, for messages.
        frame: user_id and item_id as categories, none empty, timestamp as finite numbers; perhaps rating.
        lines: where each row stands, in ascending order.
        sort_rows: by time, rather than refuse a user whose rows go back in it.
    """
    time = frame["timestamp"].to_numpy()
    for name in ("user_id", "item_id"):
        _refuse_look_alikes(file, frame[name].cat, name, lines)
    users, user_ids = _number(frame["user_id"].cat)
    items, item_ids = _number(frame["item_id"].cat)
    ratings = _ratings(frame)
    del frame
    # both sorts keep the order of the file among equals: ordering them by item id would leak
    order = np.lexsort((time, users)) if sort_rows else np.argsort(users, kind="stable")
    users, items, time = users[order], items[order], time[order]
    ratings = None if ratings is None else ratings[order]

    same_user = users[1:] == users[:-1]
    ties = np.count_nonzero(same_user & (time[1:] == time[:-1]))
    back = 1 + np.flatnonzero(same_user & (time[1:] < time[:-1]))
    if len(back):
        at = back[np.argmin(order[back])]
        what = (
            f"user {shown(user_ids[users[at]])} goes back in time ({time[at - 1]} on line {lines[order[at - 1]]}, "
            f"{time[at]} here); sort the file by timestamp, or have it sorted with --sort_rows 1"
        )
        raise file.refusal(what, lines[order[at]], "timestamp")

    pair = users.astype(np.int64) * len(item_ids) + items
    again = pd.Series(pair).duplicated(keep="first").to_numpy()
    if again.any():
        users, items = users[~again], items[~again]
        ratings = None if ratings is None else ratings[~again]
    return Interactions(users, items, user_ids, item_ids, int(again.sum()), ties, ratings)


def is_number(text: str) -> bool:
    """Whether the text is a finite number; a whole one that needs more than 64 bits is none."""
    if len(text) > 400 or not NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        return False
    return not text.lstrip("+-").isdecimal() or abs(int(text)) < 2**63


def seconds(text: str) -> float:
    """The seconds from 1970 to a date in ISO 8601, in UTC where it names no zone; NaN for any other text."""
    try:
        date = datetime.fromisoformat(text if DATE.match(text) else "")
    except ValueError:
        return math.nan
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _refuse_look_alikes(file: SourceFile, column, name: str, lines: Sequence[int]) -> None:
    """Refuses ids that a person takes for one: "7", "7 " and "7.0", as files of several programs put together have."""
    first = {}
    for number, text in enumerate(map(str, column.categories)):
        core = text.strip()
        other = first.setdefault(core.removesuffix(".0") if NUMBER.fullmatch(core) else core, text)
        if other != text:
            at = lines[np.argmax(column.codes.to_numpy() == number)]
            what = f"{shown(text)} and {shown(other)} would be two ids; write them alike, or apart by more than that"
            raise file.refusal(what, at, name)


def _number(column) -> tuple[np.ndarray, list[str]]:
    """Categories -> numbers in the natural order of the ids: by value if all are whole numbers."""
    ids = [str(name) for name in column.categories]
    if all(name.isdecimal() and name.isascii() and len(name) < 19 for name in ids):
        order = sorted(range(len(ids)), key=lambda i: (int(ids[i]), ids[i]))
    else:
        order = sorted(range(len(ids)), key=ids.__getitem__)
    rank = np.empty(len(ids), dtype=np.int32)
    rank[order] = np.arange(len(ids), dtype=np.int32)
    return rank[column.codes.to_numpy()], [ids[i] for i in order]


def _ratings(frame: pd.DataFrame) -> np.ndarray | None:
    """float32; None if there is no such column, or a cell of it is no number."""
    if "rating" not in frame:
        return None
    column = frame["rating"]
    if isinstance(column.dtype, pd.CategoricalDtype):  # far fewer different cells than rows
        column = pd.Series(pd.to_numeric(column.cat.categories, errors="coerce").to_numpy()[column.cat.codes])
    values = column.to_numpy(np.float32)
    return values if np.isfinite(values).all() else None


def _renumber(numbers: np.ndarray, ids: list[str]) -> tuple[np.ndarray, list[str]]:
    """Close the gaps that left-out rows leave among the numbers; the order stays."""
    used = np.bincount(numbers, minlength=len(ids)) > 0
    new = np.cumsum(used, dtype=np.int32) - 1
    return new[numbers].astype(np.int32), [ids[i] for i in np.flatnonzero(used)]


def _explain(file: SourceFile) -> NoReturn:
    places, numbers = file.places(COLUMNS), None
    for line, fields in file.body():
        user, item, time = (fields[place] for place in places)
        for name, value in (("user_id", user), ("item_id", item)):
            if not value:
                raise file.refusal("empty; give every row an id", line, name)
        number = is_number(time.strip())
        if not number and math.isnan(seconds(time)):
            what = (
                f"{shown(time)} is neither a number of up to 18 digits nor a date; write seconds, such as 978300760, or"
            )
            raise file.refusal(f"{what} 2000-12-31 22:12:40", line, "timestamp")
        if numbers not in (None, number):
            kinds = ("a number", "dates") if number else ("a date", "numbers")
            what = f"{shown(time)} is {kinds[0]} and those before it are {kinds[1]}; write all times alike"
            raise file.refusal(what, line, "timestamp")
        numbers = number
    raise file.refusal("not a table of interactions; write timestamps as plain numbers")
