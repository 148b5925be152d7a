"""MovieLens as GroupLens publishes it: ratings.dat, movies.dat and users.dat, unpacked or in the archive.

Layout: https://files.grouplens.org/datasets/movielens/ml-1m-README.txt (ml-10m adds half stars). In ml-100k these are
u.data, u.item and u.user, with other columns: .../ml-100k-README.txt. Since ml-20m there are ratings.csv and movies.csv
instead, read as other tables are: .../ml-20m-README.html.
"""

from __future__ import annotations

import csv
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

from data.interactions import Interactions, arrange, is_number, read_table
from data.itemfile import NO_GENRES, Item, year_in
from data.sourcefile import SourceFile, shown
from data.userfile import Users

BASE_URL = "https://files.grouplens.org/datasets/movielens"


@dataclass(frozen=True)
class Archive:
    """An archive that can be downloaded.

    Attributes:
        title: how results name it. file: its name on the server.
        md5: the sum that GroupLens publishes beside it.
        users, interactions: how many there are; of interactions also the numbers of known editions.
    """

    title: str
    file: str
    md5: str
    users: int
    interactions: tuple[int, ...]

    def require(self, found: Interactions, file: SourceFile) -> None:
        """Refuse other data: results must not bear this title by mistake."""
        users, rows = len(found.user_ids), len(found) + found.repeats
        if users != self.users or rows not in self.interactions:
            what = (
                f"{users:,} users and {rows:,} interactions are not {self.title}, which has {self.users:,} "
                f"and {self.interactions[0]:,}; give this data a name of its own with --dataset"
            )
            raise file.refusal(what)


ARCHIVES = {
    "ml-100k": Archive("MovieLens-100K", "ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", 943, (100_000,)),
    # as published, and without the films that have fewer than 5 ratings
    "ml-1m": Archive("MovieLens-1M", "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", 6_040, (1_000_209, 999_611)),
    "ml-10m": Archive("MovieLens-10M", "ml-10m.zip", "ce571fd55effeba0271552578f2648bd", 69_878, (10_000_054,)),
    "ml-20m": Archive("MovieLens-20M", "ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3", 138_493, (20_000_263,)),
    "ml-25m": Archive("MovieLens-25M", "ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada", 162_541, (25_000_095,)),
}

OLDEST = {"ratings": "u.data", "movies": "u.item", "users": "u.user"}  # the files of ml-100k
COLUMNS = ["user_id", "item_id", "rating", "timestamp"]
GAPS = ["gap1", "gap2", "gap3"]  # "1::1193::5::978300760" is cut at single colons: pandas does that far faster
FIELDS = ["user_id", "gap1", "item_id", "gap2", "rating", "gap3", "timestamp"]
NUMBERS = ("rating", "timestamp")
# What the last columns of u.item say yes or no to; before them come release dates, an address and "unknown".
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def is_oldest(file: SourceFile) -> bool:
    """Whether it is, by its name, of MovieLens-100K."""
    return file.name in OLDEST.values()


def is_movielens(file: SourceFile) -> bool:
    """Whether it has, by its name, one of MovieLens' own layouts."""
    return file.name.endswith(".dat") or is_oldest(file)


def read_ratings(file: SourceFile) -> Interactions:
    """Read UserID::MovieID::Rating::Timestamp, or u.data with tabs; every rating counts as an interaction.

    The original is in no order of time, so it is sorted; equal times (half of ML-1M) keep the order of the file.

    Raises:
        UserError: the file cannot be read as this, with line and field.
    """
    oldest = is_oldest(file)
    fields = COLUMNS if oldest else FIELDS
    frame = read_table(
        file,
        _explain,
        sep="\t" if oldest else ":",
        header=None,
        names=fields,
        dtype={name: "category" for name in fields if name not in NUMBERS},
        quoting=csv.QUOTE_NONE,
        encoding="latin-1",
    )
    if not oldest and any(list(frame[gap].cat.categories) != [""] for gap in GAPS):
        _explain(file)
    if frame["rating"].dtype.kind not in "if":
        _explain(file)
    return arrange(file, frame, range(1, 1 + len(frame)), True)


def read_movies(file: SourceFile) -> dict[str, Item]:
    """Read MovieID::Title::Genres, or u.item -> {original id: Item}; the year is that at the end of the title.

    ml-100k and ml-1m are Latin-1, ml-10m UTF-8. Accents in Latin-1 are not valid UTF-8: that is tried first.
    """
    with file.open() as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    movies, oldest = {}, is_oldest(file)
    for number, line in enumerate(text.rstrip("\r\n").split("\n"), start=1):
        line = line.rstrip("\r")
        fields = _oldest_movie(line) if oldest else line.split("::")
        if len(fields) != 3 or not fields[0]:
            form = "a line of u.item" if oldest else "MovieID::Title::Genres"
            raise file.refusal(f"not {form}; mend or remove the line", number)
        movie, title, genres = fields
        if movie in movies:
            what = f"movie {shown(movie)} stands on an earlier line too; remove one"
            raise file.refusal(what, number, "MovieID")
        movies[movie] = Item(title, genres.replace(NO_GENRES, ""), year_in(title))
    return movies


def read_people(file: SourceFile) -> Users:
    """Read UserID::Gender::Age::Occupation::Zip, or u.user; the zip code, nearly one per user, is left out."""
    rows, oldest = {}, is_oldest(file)
    for number, line in file.lines("latin-1"):
        user, *values = _oldest_person(line) if oldest else line.split("::")
        if len(values) != 4 or not user:
            form = "a line of u.user" if oldest else "UserID::Gender::Age::Occupation::Zip"
            raise file.refusal(f"not {form}; mend or remove the line, or take the file away", number)
        if user in rows:
            raise file.refusal(f"user {shown(user)} stands on an earlier line too; remove one", number, "UserID")
        rows[user] = tuple(values[:3])
    return Users(("gender", "age", "occupation"), rows)


def open_archive(path: Path) -> tuple[SourceFile, SourceFile | None, SourceFile | None]:
    """ratings, movies and users (None if they are not there) inside a zip archive.

    Nothing is unpacked to disk. Names that would leave an unpacker's folder are refused all the same: such an archive
    is not what GroupLens made.

    Raises:
        UserError: it is damaged, holds such names, no ratings, or a file twice.
    """
    whole = SourceFile(path)
    with whole.raw() as stream, zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
    for name in names:
        if ".." in PureWindowsPath(name).parts or PureWindowsPath(name).anchor:
            what = f"holds {shown(name)}, a path that leaves its folder; do not use this archive"
            raise whole.refusal(what)
    found = {}
    for wanted, oldest in OLDEST.items():
        members = [name for name in names if PurePosixPath(name).name in (f"{wanted}.dat", f"{wanted}.csv", oldest)]
        if len(members) > 1:
            raise whole.refusal(f"holds {' and '.join(members)}; unpack the one that is meant")
        found[wanted] = SourceFile(path, members[0]) if members else None
    if found["ratings"] is None:
        raise whole.refusal("holds no ratings.dat, ratings.csv or u.data; give a MovieLens archive such as ml-1m.zip")
    return found["ratings"], found["movies"], found["users"]


def _oldest_movie(line: str) -> list[str]:
    """MovieID, Title and Genres of a line of u.item; nothing of another line."""
    fields = line.split("|")
    if len(fields) != 6 + len(GENRES):
        return []
    return [*fields[:2], "|".join(genre for genre, flag in zip(GENRES, fields[6:], strict=True) if flag == "1")]


def _oldest_person(line: str) -> list[str]:
    """UserID, Gender, Age, Occupation and Zip of a line of u.user; of another line as many columns as it has."""
    fields = line.split("|")
    return [fields[place] for place in (0, 2, 1, 3, 4)] if len(fields) == 5 else fields


def _explain(file: SourceFile) -> NoReturn:
    form, parted_by = "UserID::MovieID::Rating::Timestamp", "::"
    if is_oldest(file):
        form, parted_by = form.replace("::", "\t"), "\t"
    for number, line in file.lines("latin-1"):
        fields = line.split(parted_by)
        if len(fields) != 4:
            cure = "mend the line, or write a CSV file with the columns user_id,item_id,timestamp"
            raise file.refusal(f"{len(fields)} fields, not {form}; {cure}", number)
        for name, value in zip(form.split(parted_by), fields, strict=True):
            is_id = name in ("UserID", "MovieID")
            if not value or (":" in value if is_id else not is_number(value)):
                what = f"{shown(value)} is not {'an id' if is_id else 'a number of up to 18 digits'}; mend the line"
                raise file.refusal(what, number, name)
    raise file.refusal(f"not a ratings file; write one {form} per line")
