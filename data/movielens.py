"""MovieLens as GroupLens publishes it: ratings.dat and movies.dat, unpacked or in the archive.

Layout: https://files.grouplens.org/datasets/movielens/ml-1m-README.txt (ml-10m adds half stars). Since ml-20m there are
ratings.csv and movies.csv instead, read as other tables are: .../ml-20m-README.html.
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
    # as published, and without the films that have fewer than 5 ratings
    "ml-1m": Archive("MovieLens-1M", "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", 6_040, (1_000_209, 999_611)),
    "ml-10m": Archive("MovieLens-10M", "ml-10m.zip", "ce571fd55effeba0271552578f2648bd", 69_878, (10_000_054,)),
    "ml-20m": Archive("MovieLens-20M", "ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3", 138_493, (20_000_263,)),
    "ml-25m": Archive("MovieLens-25M", "ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada", 162_541, (25_000_095,)),
}

# "1::1193::5::978300760" cut at single colons: pandas does that far faster than at "::"
FIELDS = ["user_id", "gap1", "item_id", "gap2", "rating", "gap3", "timestamp"]
NUMBERS = ("rating", "timestamp")


def read_ratings(file: SourceFile) -> Interactions:
    """Read UserID::MovieID::Rating::Timestamp; every rating counts as an interaction.

    The original is in no order of time, so it is sorted; equal times (half of ML-1M) keep the order of the file.

    Raises:
        UserError: the file cannot be read as this, with line and field.
    """
    frame = read_table(
        file,
        _explain,
        sep=":",
        header=None,
        names=FIELDS,
        dtype={name: "category" for name in FIELDS if name not in NUMBERS},
        quoting=csv.QUOTE_NONE,
        encoding="latin-1",
    )
    if any(list(frame[gap].cat.categories) != [""] for gap in ("gap1", "gap2", "gap3")):
        _explain(file)
    if frame["rating"].dtype.kind not in "if":
        _explain(file)
    return arrange(file, frame, range(1, 1 + len(frame)), True)


def read_movies(file: SourceFile) -> dict[str, Item]:
    """Read MovieID::Title::Genres -> {original id: Item}; the year is that at the end of the title.

    ml-1m is Latin-1, ml-10m UTF-8. Accents in Latin-1 are not valid UTF-8: that is tried first.
    """
    with file.open() as stream:
        raw = stream.read()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    movies: dict[str, Item] = {}
    for number, line in enumerate(text.rstrip("\r\n").split("\n"), start=1):
        fields = line.rstrip("\r").split("::")
        if len(fields) != 3 or not fields[0]:
            raise file.refusal("not MovieID::Title::Genres; mend or remove the line", number)
        movie, title, genres = fields
        if movie in movies:
            what = f"movie {shown(movie)} stands on an earlier line too; remove one"
            raise file.refusal(what, number, "MovieID")
        movies[movie] = Item(title, genres.replace(NO_GENRES, ""), year_in(title))
    return movies


def read_people(file: SourceFile) -> Users:
    """Read UserID::Gender::Age::Occupation::Zip; the zip code, nearly one per user, is left out."""
    rows: dict[str, tuple[str, ...]] = {}
    for number, line in file.lines("latin-1"):
        user, *values = line.split("::")
        if len(values) != 4 or not user:
            raise file.refusal("not UserID::Gender::Age::Occupation::Zip; mend or remove the line", number)
        if user in rows:
            raise file.refusal(f"user {shown(user)} stands on an earlier line too; remove one", number, "UserID")
        rows[user] = tuple(values[:3])
    return Users(("gender", "age", "occupation"), rows)


def open_archive(path: Path) -> tuple[SourceFile, SourceFile | None, SourceFile | None]:
    """ratings, movies and users (None if they are not there) inside a zip archive, each a .dat or .csv file.

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
    for wanted in ("ratings", "movies", "users"):
        members = [name for name in names if PurePosixPath(name).name in (f"{wanted}.dat", f"{wanted}.csv")]
        if len(members) > 1:
            raise whole.refusal(f"holds {' and '.join(members)}; unpack the one that is meant")
        found[wanted] = SourceFile(path, members[0]) if members else None
    if found["ratings"] is None:
        raise whole.refusal("holds no ratings.dat and no ratings.csv; give a MovieLens archive such as ml-1m.zip")
    return found["ratings"], found["movies"], found["users"]


def _explain(file: SourceFile) -> NoReturn:
    form = "UserID::MovieID::Rating::Timestamp"
    for number, line in file.lines("latin-1"):
        fields = line.split("::")
        if len(fields) != 4:
            raise file.refusal(f"{len(fields)} fields, not {form}; mend the line", number)
        for name, value in zip(form.split("::"), fields, strict=True):
            is_id = name in ("UserID", "MovieID")
            if not value or (":" in value if is_id else not is_number(value)):
                what = f"{shown(value)} is not {'an id' if is_id else 'a number of up to 18 digits'}; mend the line"
                raise file.refusal(what, number, name)
    raise file.refusal(f"not a ratings file; write one {form} per line")
