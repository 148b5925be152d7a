"""Where a dataset comes from, and how it is read from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.interactions import Interactions, columns_of, read_interactions
from data.itemfile import Item, read_items
from data.movielens import (
    ARCHIVES,
    OLDEST,
    is_movielens,
    is_oldest,
    open_archive,
    read_movies,
    read_people,
    read_ratings,
)
from data.reviewfile import ENDS, read_products, read_reviews
from data.sequencefile import read_sequences
from data.sourcefile import SourceFile, checksum
from data.userfile import Users, read_users
from errors import UserError

TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".inter", ".txt", *ENDS)
NAMES = (  # looked for in a folder
    "ratings.dat",
    "u.data",
    "interactions.csv.gz",
    "interactions.csv",
    "interactions.tsv.gz",
    "interactions.tsv",
    "ratings.csv",
)


@dataclass(frozen=True)
class Source:
    """A dataset that can be read.

    Attributes:
        label: how results name the data.
        read: gives the interactions.
        items: gives {original id: Item}, of those items that are known.
        users: gives what is known of users.
        columns: gives what `columns_of` says of a table; {} where there is no header.
        item_file: name of the file that tells of items, "" without one.
        checksums: gives "sha256" of the files of interactions and items, and "users_sha256" of that of the users ("" if
            it is none of its own); they change with what would be read.
    """

    label: str
    read: Callable[[], Interactions]
    items: Callable[[], dict[str, Item]]
    users: Callable[[], Users]
    checksums: Callable[[], dict[str, str]]
    columns: Callable[[], dict] = dict
    item_file: str = ""


def find_source(
    dataset: str,
    path: Path,
    item_file: Path | None = None,
    user_file: Path | None = None,
    sort_rows: bool = False,
) -> Source:
    """What stands at `path`: an archive, an unpacked archive, an interactions file, or a folder of one of these.

    Args:
        dataset: its name; of known data, such as ml-1m, reading refuses other data.
        path: in a folder, the subfolder with the name of the dataset goes before the folder itself.
        item_file: titles; without it, items.csv, movies.csv or movies.dat beside the source, if there is one.
        user_file: users; without it, users.dat or users.csv beside the source, if there is one.
        sort_rows: see `read_interactions`.

    Raises:
        UserError: there is none of these.
    """
    path = _file_at(dataset, path)
    archive = ARCHIVES.get(dataset)
    if path.suffix == ".zip":
        table, items, users = open_archive(path)
    else:
        table = SourceFile(path)
        items = _beside(table, "items.csv", "movies.csv", "movies.dat", OLDEST["movies"])
        users = _beside(table, "users.csv", "users.dat", OLDEST["users"])
    items = SourceFile(item_file) if item_file else items
    users = SourceFile(user_file) if user_file else users

    def read() -> Interactions:
        if is_movielens(table):
            found = read_ratings(table)
        elif path.suffix == ".txt":
            found = read_sequences(table, sort_rows)
        elif path.name.endswith(ENDS):
            found = read_reviews(table)
        else:  # MovieLens has each user's items by their ids
            found = read_interactions(table, sort_rows or table.name == "ratings.csv")
        if archive:
            archive.require(found, table)
        return found

    def read_item_file() -> dict[str, Item]:
        if items is None:
            return {}
        if items.name.endswith(ENDS):
            return read_products(items)
        return read_movies(items) if is_movielens(items) else read_items(items)

    def read_user_file() -> Users:
        if users is None:
            return Users()
        return read_people(users) if is_movielens(users) else read_users(users)

    def checksums() -> dict[str, str]:
        files = list(dict.fromkeys([table.path] + ([items.path] if items else [])))
        apart = users is not None and users.path not in files
        return {"sha256": checksum(files), "users_sha256": checksum([users.path]) if apart else ""}

    label = f"{archive.title if archive else dataset}, file {path.name}"
    headed = not (is_movielens(table) or path.suffix == ".txt" or path.name.endswith(ENDS))
    columns = (lambda: columns_of(table)) if headed else dict
    return Source(label, read, read_item_file, read_user_file, checksums, columns, items.name if items else "")


def known_file(dataset: str, folder: Path) -> Path | None:
    """The file to read in a folder: the first that is known, the dataset's own folder before it; None if none is."""
    files = (place / name for place in (folder / dataset, folder) for name in _names(dataset))
    return next((file for file in files if file.is_file()), None)


def _names(dataset: str) -> tuple[str, ...]:
    return (*NAMES, *(dataset + end for end in (".inter", ".txt", ".zip", *ENDS)))


def _file_at(dataset: str, path: Path) -> Path:
    if path.is_dir():
        file = known_file(dataset, path)
        if file is None:
            if (path / "data.csv").is_file():  # cut already
                raise UserError(f"source {path} is cut already; put it at data/{dataset} and leave out --source.")
            raise UserError(
                f"source {path} holds none of {', '.join(_names(dataset))}; point to one of these, or to the file."
            )
        return file
    if not path.exists():
        raise UserError(f"source {path} does not exist; check the path.")
    if not path.name.endswith((".zip", ".dat", *TABLES)) and path.name != OLDEST["ratings"]:
        kinds = ".zip, .dat, .inter, .txt, .csv, .tsv, .json or .jsonl file (the last four also .gz), nor u.data"
        raise UserError(f"source {path} is no {kinds}; give one of these.")
    return path


def _beside(table: SourceFile, *names: str) -> SourceFile | None:
    """The first file of these that stands beside the interactions and belongs to them, if there is one: a table belongs
    to a table only, and what ml-100k has to its u.data."""

    def belongs(file: SourceFile) -> bool:
        return is_oldest(file) == is_oldest(table) and (is_movielens(file) or not is_movielens(table))

    files = (SourceFile(table.path.parent / name) for name in names)
    return next((file for file in files if belongs(file) and file.path.is_file()), None)
