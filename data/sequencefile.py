"""Sequences as text, as sequential recommenders share their data: a line has a user and items, oldest first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data.interactions import Interactions, arrange
from data.sourcefile import SourceFile, shown


def read_sequences(file: SourceFile, sort_rows: bool = False) -> Interactions:
    """Read lines of "user item item ...", parted by blanks or tabs, without a header, UTF-8.

    A user has one line, as in the files of S3-Rec (Beauty.txt), or one for each item, "user item", as in those of
    SASRec (ml-1m.txt). A place in the file stands for a time.

    Raises:
        UserError: a line without an item, or with commas or brackets; lines that are no sequences but rows, with a
            rating, a time or a text: all have the same number of fields, three or more, or a user has several with
            several items; sort_rows, for there is no time to sort by.
    """
    if sort_rows:
        raise file.refusal("has no times to sort by; leave out --sort_rows")
    users, items, lengths = [], [], []
    for line, text in file.lines("utf-8"):
        user, *taken = text.split() or [""]
        if not taken:
            what = f"{shown(text)} is not a user and items, parted by blanks; mend or remove the line"
            raise file.refusal(what, line)
        if bent := next((item for item in (user, *taken) if item.startswith("[") or item.endswith((",", "]"))), None):
            raise file.refusal(f"{shown(bent)} would be an id; part ids by blanks alone, without commas or [ ]", line)
        users.append(user)
        items += taken
        lengths.append(len(taken))
    if not users:
        raise file.refusal("no lines; at least one user with an item is needed")
    rows = ""
    if len(users) > 1 and lengths[0] > 1 and len(set(lengths)) == 1:
        rows = f"every line has {lengths[0] + 1} fields"
    elif max(lengths) > 1 and len(set(users)) < len(users):
        again = users[np.flatnonzero(pd.Series(users).duplicated())[0]]
        rows = f"user {shown(again)} has several lines, and not all lines have one item"
    if rows:
        cure = "write a CSV file with the columns user_id,item_id,timestamp, or put a user's items on one line"
        raise file.refusal(f"{rows}, so these are rows and no sequences; {cure}")
    rows = {"user_id": np.repeat(np.array(users, dtype=object), lengths), "item_id": items}
    frame = pd.DataFrame(rows, dtype="category").assign(timestamp=np.arange(len(items)))
    return arrange(file, frame, np.repeat(np.arange(1, 1 + len(users)), lengths), False)
