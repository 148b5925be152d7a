"""What is known of users."""

from __future__ import annotations

from typing import NamedTuple

from data.sourcefile import SourceFile, shown


class Users(NamedTuple):
    """Attributes: columns, the names of what is known; rows, {original id: a cell per column, "" where unknown}."""

    columns: tuple[str, ...] = ()
    rows: dict[str, tuple[str, ...]] = {}


def read_users(file: SourceFile) -> Users:
    """Read user_id and any other columns; with a header, UTF-8; several values stand in one cell, parted by "|"."""
    header = file.header(["user_id"])
    columns = [name for name in header if name != "user_id"]
    if "" in columns:
        raise file.refusal("a column without a name; name what it tells of the users", line=1)
    user_place, *places = file.places(["user_id", *columns])
    rows: dict[str, tuple[str, ...]] = {}
    for line, fields in file.body():
        user = fields[user_place]
        if not user or user in rows:
            what = f"{shown(user)} stands on an earlier line too" if user else "empty"
            raise file.refusal(f"{what}; mend or remove the line", line, "user_id")
        rows[user] = tuple(fields[place] for place in places)
    return Users(tuple(columns), rows)
