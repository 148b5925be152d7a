"""Where a dataset comes from, and how it is read from there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.interactions import Interactions, read_interactions
from data.itemfile import read_items
from data.movielens import ARCHIVES, open_archive, read_movies, read_ratings
from data.sourcefile import SourceFile
from errors import UserError

Titles = dict[str, tuple[str, str]]  # original id -> (title, "Action|Comedy")
TABLES = (".csv", ".csv.gz")


@dataclass(frozen=True)
class Source:
    """label: how results name the data. read and titles do the reading. checksum: that of the files
    that would be read, so it changes with them."""

    label: str
    read: Callable[[], Interactions]
    titles: Callable[[], Titles]
    checksum: Callable[[], str]


def find_source(dataset: str, path: Path, item_file: Path | None = None, sort_rows: bool = False) -> Source:
    """What stands at `path`: an archive, an unpacked archive, an interactions file, or a folder of
    one of these (also under the name of the dataset). Raises UserError if it is none of them;
    reading raises it if `dataset` is the name of other data, such as ml-1m.

    item_file: titles; without it, movies.dat or items.csv beside the source, if there is one.
    """
    path = _file_at(dataset, path)
    archive = ARCHIVES.get(dataset)
    if path.suffix == ".zip":
        table, items = open_archive(path)
    else:
        table, items = SourceFile(path), _beside(path)
    if item_file is not None:
        items = SourceFile(item_file)

    def read() -> Interactions:
        is_table = path.name.endswith(TABLES)
        found = read_interactions(table, sort_rows) if is_table else read_ratings(table)
        if archive:
            archive.require(found, table)
        return found

    def titles() -> Titles:
        if items is None:
            return {}
        is_movies = (items.member or items.path.name).endswith(".dat")
        return read_movies(items) if is_movies else read_items(items)

    files = list(dict.fromkeys([table.path] + ([items.path] if items else [])))
    label = f"{archive.title if archive else dataset}, file {path.name}"
    return Source(label, read, titles, lambda: checksum(files))


def checksum(files: list[Path]) -> str:
    """SHA-256 over the contents of the files, in order."""
    digest = hashlib.sha256()
    for path in files:
        with SourceFile(path).raw() as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _file_at(dataset: str, path: Path) -> Path:
    """The file to read; in a folder the first that is known, the dataset's own folder before it."""
    names = ("ratings.dat", "interactions.csv.gz", "interactions.csv", f"{dataset}.zip")
    if path.is_dir():
        for place in (path / dataset, path):
            for name in names:
                if (place / name).is_file():
                    return place / name
        raise UserError(f"source {path} holds none of {', '.join(names)}; point to one of these.")
    if not path.exists():
        raise UserError(f"source {path} does not exist; check the path.")
    if not path.name.endswith((".zip", ".dat", *TABLES)):
        raise UserError(f"source {path} is no .zip, .dat, .csv or .csv.gz file; give one of these.")
    return path


def _beside(path: Path) -> SourceFile | None:
    names = ("items.csv", "movies.dat") if path.name.endswith(TABLES) else ("movies.dat",)
    for name in names:
        if (path.parent / name).is_file():
            return SourceFile(path.parent / name)
    return None
