"""Reviews and what they are of as JSON, an object on a line, as Amazon's and Yelp's are published."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pandas as pd

from data.interactions import Interactions, arrange, is_number, seconds
from data.itemfile import Item, year_in
from data.sourcefile import SourceFile, shown

ENDS = (".json", ".jsonl", ".json.gz", ".jsonl.gz")  # of names of such files
KEYS = {  # what others name it: Amazon Reviews 2023, those of 2014 and 2018, Yelp; the first that an object has counts
    "user_id": ("user_id", "reviewerID"),
    "item_id": ("item_id", "parent_asin", "asin", "business_id"),
    "timestamp": ("timestamp", "unixReviewTime", "date"),
    "rating": ("rating", "overall", "stars"),
    "title": ("title", "name"),
    "categories": ("categories", "category"),
}
NEEDED = ("user_id", "item_id", "timestamp")  # of a review


def read_reviews(file: SourceFile) -> Interactions:
    """Read {"user_id": .., "item_id": .., "timestamp": ..} and perhaps "rating", by these names or those of KEYS.

    Timestamps are numbers, or dates in ISO 8601. Published reviews are in no order of time, so they are sorted by it;
    equal times keep the order of the file.

    Raises:
        UserError: a line is no such object, or two ids look alike.
    """
    columns: dict[str, list] = {name: [] for name in (*NEEDED, "rating")}
    lines = []
    for line, review in _objects(file):
        user, item, time = (_told(review, name) for name in NEEDED)
        for name, value in zip(NEEDED, (user, item, time), strict=True):
            if value in (None, ""):
                keys = " or ".join(map(repr, KEYS[name]))
                raise file.refusal(f"no {keys}; give every review one", line)
        user, item = str(user), str(item)
        for name, text in (("user_id", user), ("item_id", item)):
            if _writable(text) != text:
                raise file.refusal(f"{shown(text)} holds a NUL or half a character; mend it", line, name)
        time = time if _is_number(time) else seconds(str(time))
        if math.isnan(time):
            raise file.refusal("the time is neither a number nor a date such as 2000-12-31 22:12:40; mend it", line)
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
    """Read {"item_id": .., "title": .., "categories": [..]}, by these names or those of KEYS -> {original id: Item}.

    Of an item that comes again the first line counts; the year is that at the end of the title.
    """
    items: dict[str, Item] = {}
    for line, product in _objects(file):
        item = _told(product, "item_id")
        if item in (None, ""):
            raise file.refusal(f"no {' or '.join(map(repr, KEYS['item_id']))}; give every line one", line)
        title, categories = (_told(product, name) or "" for name in ("title", "categories"))
        if not isinstance(categories, list):
            categories = str(categories).split(", ")
        title = " ".join(_writable(str(title)).split())
        items.setdefault(str(item), Item(title, _writable("|".join(map(str, categories))), year_in(title)))
    return items


def _objects(file: SourceFile) -> Iterator[tuple[int, dict]]:
    """The objects with their lines."""
    for line, text in file.lines("utf-8"):
        try:
            told = json.loads(text)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise file.refusal(f"{shown(text)} is no object in JSON; write one on each line", line)
        yield line, told


def _told(about: dict, name: str):
    """What an object says by one of the names; None if it says nothing."""
    return next((about[key] for key in KEYS[name] if key in about), None)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and is_number(repr(value))


def _writable(text: str) -> str:
    """What UTF-8 and tables can hold of it: JSON can tell halves of characters and NUL bytes."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
