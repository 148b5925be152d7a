"""Titles and categories for a generic interactions file."""

from __future__ import annotations

from data.sourcefile import SourceFile


def read_items(file: SourceFile) -> dict[str, tuple[str, str]]:
    """Read item_id,title[,categories] -> {original id: (title, "Action|Comedy")}.

    With a header, UTF-8; categories stand in one cell, parted by "|".
    """
    columns = ["item_id", "title"]
    if "categories" in file.header():
        columns.append("categories")
    places = file.places(columns)
    items: dict[str, tuple[str, str]] = {}
    for line, fields in file.body():
        item, title, *categories = (fields[place] for place in places)
        if not item or item in items:
            what = f"{item!r} stands on an earlier line too" if item else "empty"
            raise file.refusal(f"{what}; mend or remove the line", line, "item_id")
        items[item] = (title, categories[0] if categories else "")
    return items
