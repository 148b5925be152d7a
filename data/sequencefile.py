"""Sequences as text, as sequential recommenders share their data: a line has a user and items, oldest first."""

from __future__ import annotations

import numpy as np
import pandas as pd

from data.interactions import Interactions, arrange
from data.sourcefile import SourceFile, shown


def read_sequences(file: SourceFile, sort_rows: bool = False) -> Interactions:
    """Read lines of "user item item ...", parted by blanks or tabs, without a header, UTF-8.

    A user may have one line, as in the files of S3-Rec (Beauty.txt), or one for each item, "user item", as in those of
    SASRec (ml-1m.txt); later lines of a user go on where the earlier ones ended. A place in the file stands for a time.

    Raises:
        UserError: a line without an item; lines that all have the same number of fields, three or more, are
            no sequences but rows with a rating or a time; sort_rows, for there is no time to sort by.
    """
    if sort_rows:
        raise file.refusal("has no times to sort by; leave out --sort_rows")
    users, items, lengths = [], [], []
    for line, text in file.lines("utf-8"):
        user, *taken = text.split() or [""]
        if not taken:
            what = f"{shown(text)} is not a user and items, parted by blanks; mend or remove the line"
            raise file.refusal(what, line)
        users.append(user)
        items += taken
        lengths.append(len(taken))
    if not users:
        raise file.refusal("no lines; at least one user with an item is needed")
    if len(users) > 1 and lengths[0] > 1 and len(set(lengths)) == 1:
        what = (
            f"every line has {lengths[0] + 1} fields, so these are rows and no sequences; write a CSV file with the "
            "columns user_id,item_id,timestamp"
        )
        raise file.refusal(what)
    rows = {"user_id": np.repeat(np.array(users, dtype=object), lengths), "item_id": items}
    frame = pd.DataFrame(rows, dtype="category").assign(timestamp=np.arange(len(items)))
    return arrange(file, frame, np.repeat(np.arange(1, 1 + len(users)), lengths), False)
