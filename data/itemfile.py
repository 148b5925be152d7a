"""What is known of items: title, categories, year."""

from __future__ import annotations

import re
from typing import NamedTuple

from data.sourcefile import SourceFile, shown

NO_GENRES = "(no genres listed)"  # as MovieLens has it
YEAR_AT_THE_END = re.compile(r"\((\d{4})\)\s*$", re.ASCII)


class Item(NamedTuple):
    """Attributes: title; categories, such as "Action|Comedy"; year, such as "1995". Each "" where unknown."""

    title: str = ""
    categories: str = ""
    year: str = ""


def year_in(title: str) -> str:
    """The year of "Toy Story (1995)"; "" if the title does not end in one."""
    found = YEAR_AT_THE_END.search(title)
    return found[1] if found else ""


def read_items(file: SourceFile) -> dict[str, Item]:
    """Read item_id,title[,categories][,year] -> {original id: Item}.

    With a header, UTF-8; categories stand in one cell, parted by "|". Without a column of its own, the year is that
    at the end of the title.
    """
    header = file.header(Item._fields)
    columns = ["item_id", "title"] + [name for name in ("categories", "year") if name in header]
    places = file.places(columns)
    items: dict[str, Item] = {}
    for line, fields in file.body():
        item, *known = (fields[place] for place in places)
        if not item or item in items:
            what = f"{shown(item)} stands on an earlier line too" if item else "empty"
            raise file.refusal(f"{what}; mend or remove the line", line, "item_id")
        found = Item(**dict(zip(columns[1:], known, strict=True)))
        found = found._replace(categories=found.categories.replace(NO_GENRES, ""))
        items[item] = found if "year" in columns else found._replace(year=year_in(found.title))
    return items
