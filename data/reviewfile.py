"""Reviews and what they are of as JSON, an object on a line, as Amazon's and Yelp's are published."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterator

import pandas as pd

from data.interactions import Interactions, arrange, is_number, seconds
from data.itemfile import Item, year_in
from data.sourcefile import OTHER_NAMES, SourceFile, first_of, shown

ENDS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")  # of names of such files
NEEDED = ("user_id", "item_id", "timestamp")  # of a review


def read_reviews(file: SourceFile) -> Interactions:
    """Read {"user_id": .., "item_id": .., "timestamp": ..} and perhaps "rating", by these names or the OTHER_NAMES.

    Ids are texts or numbers. Timestamps are numbers, or all of them dates in ISO 8601. Published reviews are in no
    order of time, so they are sorted by it; equal times keep the order of the file.

    Raises:
        UserError: a line is no such object, or two ids look alike.
    """
    columns: dict[str, list] = {name: [] for name in (*NEEDED, "rating")}
    lines, dated = [], None
    for line, review in _objects(file):
        user, item, time = (_told(review, name) for name in NEEDED)
        for name, value in zip(NEEDED, (user, item, time), strict=True):
            if value in (None, ""):
                raise file.refusal(f"no {_any_of(name)}; give every review one", line)
            if name != "timestamp" and not (isinstance(value, str) or _is_number(value)):
                raise file.refusal(f"{shown(repr(value))} is no id; write a text or a number", line, name)
        user, item = str(user), str(item)
        for name, text in (("user_id", user), ("item_id", item)):
            if _writable(text) != text:
                raise file.refusal(f"{shown(text)} holds a NUL or half a character; mend it", line, name)
        date, told = not is_number(str(time)), str(time)
        if not _is_number(time):
            time = seconds(told) if date else float(told)
        if math.isnan(time):
            what = f"{shown(told)} is neither a number nor a date such as 2000-12-31 22:12:40; mend it"
            raise file.refusal(what, line, "timestamp")
        if dated not in (None, date):
            raise file.refusal("some times are numbers and some are dates; write all alike", line, "timestamp")
        dated = date
        rating = _told(review, "rating")
        rating = rating if _is_number(rating) else math.nan
        for column, value in zip(columns.values(), (user, item, time, rating), strict=True):
            column.append(value)
        lines.append(line)
    if not lines:
        raise file.refusal("no rows; at least one interaction is needed")
    frame = pd.DataFrame(columns).astype({"user_id": "category", "item_id": "category"})
    return arrange(file, frame, lines, sort_rows=True)


def read_products(file: SourceFile) -> dict[str, Item]:
    """Read {"item_id": .., "title": .., "categories": [..]}, by these names or the OTHER_NAMES -> {original id: Item}.

    Of an item that comes again the first line counts; the year is that at the end of the title.
    """
    items: dict[str, Item] = {}
    for line, product in _objects(file):
        item = _told(product, "item_id")
        if item in (None, ""):
            raise file.refusal(f"no {_any_of('item_id')}; give every line one", line)
        title, categories = (_told(product, name) or "" for name in ("title", "categories"))
        if not isinstance(categories, list):
            categories = str(categories).split(", ")
        paths = (each if isinstance(each, list) else [each] for each in categories)  # of 2014: [["Toys", "Trains"]]
        categories = dict.fromkeys(str(name) for path in paths for name in path)
        title = " ".join(_writable(str(title)).split())
        items.setdefault(str(item), Item(title, _writable("|".join(categories)), year_in(title)))
    return items


def _objects(file: SourceFile) -> Iterator[tuple[int, dict]]:
    """The objects with their lines."""
    for line, text in file.lines("utf-8"):
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            told = _literal(text)
        if not isinstance(told, dict):
            raise file.refusal(f"{shown(text)} is no object in JSON; write one on each line", line)
        yield line, told


def _told(about: dict, name: str):
    """What an object says by one of the names; None if it says nothing."""
    return about.get(first_of(about, name))


def _literal(text: str):
    """What a line says in Python's words, as those of Amazon's products of 2014 do; None if it says nothing."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None


def _any_of(name: str) -> str:
    return " or ".join(map(repr, (name, *OTHER_NAMES[name])))


def _is_number(value) -> bool:
    return isinstance(value, int | float) and is_number(repr(value))


def _writable(text: str) -> str:
    """What UTF-8 and tables can hold of it: JSON can tell halves of characters and NUL bytes."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
