"""The CSV contract: a prepared folder -> a catalogue, training batches, evaluation queries and features.

Ids are 1..n_items, 0 is padding, and histories are oldest first. A cell that holds several ids is a JSON list,
"[5, 17, 3]". Every refusal names file, line and column. A file that is not the one its folder was prepared with is
refused (see `data.prepared`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.batches import Batch, TrainingRows, TrainingSequences
from data.features import Features, FeatureTable, feature_table
from data.idlists import read_lists
from data.prepared import is_prepared, require_unchanged
from data.queries import Queries
from data.sourcefile import SourceFile, shown
from data.userfile import read_users
from errors import UserError

__all__ = [
    "Batch",
    "Catalogue",
    "FeatureTable",
    "Features",
    "Queries",
    "TrainingRows",
    "TrainingSequences",
    "load_catalogue",
    "load_features",
    "load_queries",
    "load_training",
]

USER_COLUMN = "user_id"  # optional in rows and queries: only features of users need it
SEQUENCE_COLUMNS = [USER_COLUMN, "items"]
ROW_COLUMNS = ["hist_items", "pos_items", "neg_items"]  # those of the published release
QUERY_COLUMNS = ["hist_items", "target_items"]
ITEM_COLUMNS = ["id", "original_id", "title", "categories"]
ITEM_FEATURES = ("categories", "year")
# Ids beyond these have no line in cate_item.txt that would account for them; MovieLens needs 6 per line.
MOST_IDS_PER_LINE, ALWAYS_IDS = 100, 100_000


@dataclass(frozen=True)
class Catalogue:
    """The items 1..n_items. Each list has n_items + 1 entries; entry 0 is padding and "".

    Attributes:
        n_items: how many there are.
        original_ids, titles: texts.
        categories: "Action|Comedy", "" where unknown.
        years: "1995", "" where unknown.
    """

    n_items: int
    original_ids: list[str]
    titles: list[str]
    categories: list[str]
    years: list[str]

    def name(self, item: int) -> str:
        """What a person calls an item: its title, or its original id."""
        return self.titles[item] or f"item {self.original_ids[item]}"

    def find(self, texts: Sequence[str]) -> list[int]:
        """Items by original id, by title, or by a part of a title that no other has.

        One that is named twice stays in its last place.

        Raises:
            UserError: a text means no item, or several.
        """
        found = [self._found(text.strip()) for text in texts if text.strip()]
        return list(dict.fromkeys(reversed(found)))[::-1]  # no history repeats an item

    def _found(self, text: str) -> int:
        for names in (self.original_ids, self.titles):
            bare = [name.strip() for name in names]
            if bare.count(text) == 1:
                return bare.index(text)
        alike = [item for item, title in enumerate(self.titles) if item and text.casefold() in title.casefold()]
        if len(alike) == 1:
            return alike[0]
        found = "; ".join(self.titles[item] for item in alike[:5]) or "nothing"
        raise UserError(f"{shown(text)} means {found}; give an id or a title of one item.")


def load_catalogue(folder: str | Path) -> Catalogue:
    """Read items.csv of a prepared folder; without it cate_item.txt of a release folder: only ids and categories."""
    file = SourceFile(Path(folder) / "items.csv")
    categories_only = SourceFile(Path(folder) / "cate_item.txt")
    if categories_only.path.exists() and not file.path.exists() and not is_prepared(file.path.parent):
        return _catalogue_of_categories(categories_only)
    require_unchanged(file.path)
    has_year = "year" in file.header()
    places = file.places(ITEM_COLUMNS + ["year"] * has_year)
    original_ids, titles, categories, years = [""], [""], [""], [""]
    seen: dict[str, int] = {}
    for line, fields in file.body():
        number, original, title, category, *year = (fields[place] for place in places)
        due = len(titles)
        if number != str(due):
            what = f"{shown(number)} where {due} is due; number the items 1, 2, 3 ... in order"
            raise file.refusal(what, line, "id")
        if original in seen:
            what = f"{shown(original)} stands on line {seen[original]} too; remove one of the two"
            raise file.refusal(what, line, "original_id")
        seen[original] = line
        original_ids.append(original)
        titles.append(title)
        categories.append(category)
        years.append(year[0] if has_year else "")
    if not seen:
        raise file.refusal("no items below the header; add some, or delete the folder to have it prepared anew")
    return Catalogue(len(seen), original_ids, titles, categories, years)


def _catalogue_of_categories(file: SourceFile) -> Catalogue:
    """Read item_id,cate_id lines; an item without a line has an unknown category: the ids of MovieLens have gaps."""
    found: dict[int, str] = {}
    for line, text in file.lines("utf-8"):
        item, _, category = (part.strip() for part in text.partition(","))
        if not (item.isdecimal() and category.isdecimal() and len(item) < 19):
            raise file.refusal("not item_id,cate_id; write two whole numbers", line)
        number = int(item)
        if number < 1 or number in found:
            what = "0 is padding" if number < 1 else f"{number} stands on an earlier line too"
            raise file.refusal(f"{what}; remove the line", line, "item_id")
        found[number] = category
    if not found:
        raise file.refusal("empty file; one item_id,cate_id per line is needed")
    n_items = max(found)
    most = max(ALWAYS_IDS, MOST_IDS_PER_LINE * len(found))
    if n_items > most:
        what = f"item {n_items} of {len(found)} items; number them without such gaps (up to {most} here)"
        raise file.refusal(what, list(found).index(n_items) + 1, "item_id")
    unknown = [""] * (n_items + 1)
    return Catalogue(
        n_items,
        original_ids=[""] + [str(item) for item in range(1, n_items + 1)],
        titles=unknown,
        categories=[found.get(item, "") for item in range(n_items + 1)],
        years=unknown,
    )


def load_features(folder: str | Path, user_features: tuple[str, ...], item_features: tuple[str, ...]) -> Features:
    """Read the columns named of users.csv, and of the catalogue.

    The vocabulary of users is that of the training users: a value that only others have is 0.

    Args:
        folder: a prepared folder; or one of the release's format with a users.csv headed user_id,<columns>.
        user_features: columns of users.csv.
        item_features: of "categories" and "year".

    Raises:
        UserError: a column is unknown or empty, or there is no users.csv.
    """
    folder = Path(folder)
    item = _item_table(folder, item_features) if item_features else None
    user, rows = _user_table(folder, user_features) if user_features else (None, {})
    return Features(user, item, rows)


def _item_table(folder: Path, names: tuple[str, ...]) -> FeatureTable:
    catalogue = load_catalogue(folder)
    columns = {"categories": catalogue.categories[1:], "year": catalogue.years[1:]}
    for name in names:
        _require_column(folder, "--item_features", name, ITEM_FEATURES)
        _require_values(folder, "--item_features", "item", name, columns[name])
    return feature_table({name: columns[name] for name in names})


def _user_table(folder: Path, names: tuple[str, ...]) -> tuple[FeatureTable, dict[str, int]]:
    file = SourceFile(folder / "users.csv")
    if not file.path.exists():
        cure = "move it away to have the data prepared anew" if is_prepared(folder) else "put one there"
        raise UserError(f"{folder} holds no users.csv, headed user_id,<columns>, for --user_features; {cure}.")
    require_unchanged(file.path)
    users = read_users(file)
    for name in names:
        _require_column(folder, "--user_features", name, users.columns)
    rows = {user: row for row, user in enumerate(users.rows, start=1)}
    training = SourceFile(folder / "data.csv")
    place = training.places([USER_COLUMN])[0]
    known = (rows.get(fields[place], 0) - 1 for _, fields in training.body())
    cells = {name: [row[users.columns.index(name)] for row in users.rows.values()] for name in names}
    for name in names:
        _require_values(folder, "--user_features", "user", name, cells[name])
    return feature_table(cells, sorted({row for row in known if row >= 0})), rows


def _require_column(folder: Path, flag: str, name: str, columns: Sequence[str]) -> None:
    if name not in columns:
        has = f"choose from {shown(', '.join(columns))}" if columns else "this data knows none; give a --user_file"
        raise UserError(f"{flag}: {folder} has no {shown(name)}; {has}.")


def _require_values(folder: Path, flag: str, whose: str, name: str, cells: Sequence[str]) -> None:
    if not any(cells):
        raise UserError(f"{folder}: no {whose} has a {name}; leave {name} out of {flag}.")


def load_queries(csv_path: str | Path, n_items: int, features: Features | None = None) -> Queries:
    """Read hist_items,target_items, with any number of targets; and user_id, which features of users need.

    A history may be padded with 0 at its ends (the release pads to a fixed length); the targets may not: padding is
    never truth. Equal rows are fine: two users can have taken the same items.

    Args:
        csv_path: the file.
        n_items: the catalogue is 1 .. n_items.
        features: with some of users, the queries have `.users`.

    Raises:
        UserError: the file cannot be read as this, with line and column.
    """
    file = SourceFile(Path(csv_path))
    require_unchanged(file.path)
    named = USER_COLUMN in file.header() or _user_column(features)
    (histories, targets), users = read_lists(file, QUERY_COLUMNS, text=[USER_COLUMN] if named else [])
    histories = histories.without_padding()
    for column in (histories, targets):
        column.require_filled()
        column.require_ids(n_items)
    targets.require_distinct()
    targets.require_absent_from(histories)
    values = _values_of(users, features, file, histories.lines)
    return Queries(histories.ragged(), targets.ragged(), values, _askers(users))


def _askers(users: list[list[str]]) -> np.ndarray | None:
    """A number per user of the rows, None where none has two of them."""
    if not users:
        return None
    numbers, names = pd.factorize(np.array(users[0], dtype=object), sort=True)  # one long id costs no other's memory
    return numbers if len(names) < len(numbers) else None


def load_training(
    csv_path: str | Path, n_items: int, features: Features | None = None
) -> TrainingSequences | TrainingRows:
    """Read whole sequences (user_id,items) or the release's hist_items,pos_items,neg_items.

    Those need a user_id too if there are features of users.

    Args:
        csv_path: the file.
        n_items: the catalogue is 1 .. n_items.
        features: with some of users, the batches have `.user`.

    Raises:
        UserError: the file cannot be read as this, with line and column.
    """
    file = SourceFile(Path(csv_path))
    require_unchanged(file.path)
    header = file.header()
    if set(SEQUENCE_COLUMNS) <= set(header):
        return _load_sequences(file, n_items, features)
    if set(ROW_COLUMNS) <= set(header):
        return _load_rows(file, n_items, features)
    due = f"{','.join(SEQUENCE_COLUMNS)} or {','.join(ROW_COLUMNS)}"
    raise file.refusal(f"the columns are {shown(','.join(header))}; they must be {due}", line=1)


def _load_sequences(file: SourceFile, n_items: int, features: Features | None) -> TrainingSequences:
    (items,), users = read_lists(file, ["items"], unique=[USER_COLUMN], text=_user_column(features))
    items.require_filled(2, "a history and a target")
    items.require_ids(n_items)
    items.require_distinct()  # else a target would stand in its own history
    return TrainingSequences(items.ragged(), n_items, _values_of(users, features, file, items.lines))


def _load_rows(file: SourceFile, n_items: int, features: Features | None) -> TrainingRows:
    lists, users = read_lists(file, ROW_COLUMNS, unique=ROW_COLUMNS, text=_user_column(features))
    histories, positives, negatives = lists
    histories = histories.without_padding()
    for column in (histories, positives, negatives):
        column.require_filled()
        column.require_ids(n_items)
    positives.require_width(1, "more than one id; give every row one")
    width = int(negatives.lengths[0])
    negatives.require_width(width, f"not {width} ids as in the first row; give every row as many")
    positives.require_absent_from(histories)
    positives.require_absent_from(negatives)
    return TrainingRows(
        histories.ragged(),
        positives.values.astype(np.int32),  # (R,)
        negatives.values.astype(np.int32).reshape(len(positives.values), -1),  # (R, n)
        _values_of(users, features, file, histories.lines),
    )


def _user_column(features: Features | None) -> list[str]:
    return [USER_COLUMN] if features and features.user else []


def _values_of(
    users: list[list[str]], features: Features | None, file: SourceFile, lines: np.ndarray
) -> np.ndarray | None:
    """The feature values of each row's user, (rows, W) int32; None without features."""
    if not _user_column(features):
        return None
    for user, line in zip(users[0], lines, strict=True):
        if user not in features.user_rows:
            what = (
                f"nothing is known of user {shown(user)}; add a row to the file of users, or leave out --user_features"
            )
            raise file.refusal(what, int(line), USER_COLUMN)
    return features.user.values[[features.user_rows[user] for user in users[0]]]
