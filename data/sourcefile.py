"""A text file to be read: plain, gzip, or a member of a zip archive.

Every way in which it can be unreadable becomes one sentence.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import zipfile
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from data.progress import progress
from errors import UserError

csv.field_size_limit(2**31 - 1)  # one cell holds a whole history
MOST_UNPACKED = 50  # times what was read of the packed file so far; tables of interactions reach 3 to 5
ALWAYS_UNPACKED = 32 << 20  # bytes that are unpacked whatever their ratio
LONGEST = 80  # characters of the data that a message shows
OTHER_NAMES = {  # for ours, in published data; the first that a table or an object has counts
    "user_id": ("userId", "reviewerID", "visitorid", "user"),
    "item_id": ("movieId", "parent_asin", "asin", "business_id", "itemid", "item"),
    "timestamp": ("unixReviewTime", "date", "time"),
    "rating": ("overall", "stars"),
    "title": ("movie_title", "name"),
    "categories": ("genres", "category"),
    "year": ("release_year",),
}
TABBED = (".tsv", ".tsv.gz", ".inter", ".item", ".user")  # by tabs; headers of RecBole have types, "user_id:token"


def shown(text: str) -> str:
    """Text from a file as a message shows it: quoted, control characters escaped, never long."""
    quoted = repr(text[:LONGEST])
    return quoted if len(text) <= LONGEST and len(quoted) <= LONGEST else quoted[: LONGEST - 3] + "..."


def first_of(names: Container[str], ours: str) -> str:
    """The name that stands among `names` for one of ours: that itself, or the first of OTHER_NAMES; "" if none does."""
    return next((name for name in (ours, *OTHER_NAMES.get(ours, ())) if name in names), "")


def checksum(files: Iterable[Path]) -> str:
    """SHA-256 over the contents of the files, in order, in hexadecimal."""
    digest = hashlib.sha256()
    for path in files:
        file = SourceFile(path)
        with file.raw() as stream, file.counted(stream, "checking") as tick:
            while block := stream.read(1 << 20):
                digest.update(block)
                tick()
    return digest.hexdigest()


@dataclass(frozen=True)
class SourceFile:
    """What is to be read.

    Attributes:
        path: the file on disk.
        member: the name inside it if path is a zip archive, else "".
    """

    path: Path
    member: str = ""

    @property
    def name(self) -> str:
        """Of the file itself, without its folder."""
        return PurePosixPath(self.member).name if self.member else self.path.name

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    @property
    def delimiter(self) -> str:
        """What parts the fields of a table."""
        return "\t" if self.path.name.endswith(TABBED) else ","

    @property
    def quoting(self) -> int:
        """Whether a field may be quoted, as the csv module says it: not where tabs part fields, as titles have none."""
        return csv.QUOTE_NONE if self.delimiter == "\t" else csv.QUOTE_MINIMAL

    def refusal(self, what: str, line: int | None = None, column: str | None = None) -> UserError:
        """The error to raise: where it is, then what is wrong and what to do."""
        where = str(self)
        if line is not None:
            where += f", line {line}"
        if column is not None:
            where += f", column {column}"
        return UserError(f"{where}: {what}.")

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked bytes without a byte order mark and without line ends at the end of the file.

        Raises:
            UserError: the file cannot be read, holds a NUL byte, or unpacks to far more than a table does.
        """
        with self._explained(), self._unpacked() as (stream, packed), self.counted(packed, "reading") as tick:
            yield io.BufferedReader(_Guarded(stream, packed, self, tick), 1 << 18)

    @contextmanager
    def raw(self) -> Iterator[BinaryIO]:
        """The bytes on disk, packed or not."""
        with self._explained(), open(self.path, "rb") as stream:
            yield stream

    @contextmanager
    def counted(self, stream: BinaryIO, doing: str) -> Iterator[Callable[[], None]]:
        """Gives a function that shows how much of the bytes on disk `stream` has passed."""
        with progress(f"{doing} {self.path.name}", self.path.stat().st_size, "B") as reached:
            yield lambda: reached(stream.tell())

    def lines(self, encoding: str) -> Iterator[tuple[int, str]]:
        """Numbered lines without their line ends."""
        with self.open() as stream:
            text = io.TextIOWrapper(stream, encoding=encoding)
            for number, line in enumerate(text, start=1):
                yield number, line.rstrip("\r\n")

    def header(self, ours: Iterable[str] = ()) -> list[str]:
        """The names of the columns of a CSV file; one that stands for a name of `ours` is called so.

        Refuses an empty file.
        """
        for _, fields in self._rows():
            if len(fields) == 1:
                self._refuse_other_separator(fields[0])
            names = fields if self.delimiter == "," else [name.partition(":")[0] for name in fields]
            found = {first_of(names, name): name for name in ours}
            return [name and found.get(name, name) for name in names]
        raise self.refusal("empty file; a header line and at least one row are needed")

    def body(self) -> Iterator[tuple[int, list[str]]]:
        """The rows of a CSV file below its header, with the line on which each begins.

        Refuses a row that has not as many fields as the header.
        """
        rows = self._rows()
        _, header = next(rows)
        for line, fields in rows:
            if len(fields) != len(header):
                what = f"{len(fields)} fields where the header has {len(header)}; mend the line"
                raise self.refusal(what, line)
            yield line, fields

    def places(self, columns: list[str]) -> list[int]:
        """Where the columns stand in the header, in the order asked for."""
        header = self.header(columns)
        for name in columns:
            if header.count(name) != 1:
                what = "no column" if name not in header else "more than one column"
                cure = f"let the first line name the columns {','.join(columns)}"
                cure += " (without times, number the rows)" if name == "timestamp" else ""
                raise self.refusal(f"{what} {name!r} (the header is {shown(','.join(self.header()))}); {cure}", line=1)
        return [header.index(name) for name in columns]

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Rows with the line on which each begins."""
        with self.open() as stream:
            reader = csv.reader(_csv_lines(stream), delimiter=self.delimiter, quoting=self.quoting, strict=True)
            line = 1
            try:
                for fields in reader:
                    yield line, fields
                    line = reader.line_num + 1
            except csv.Error as error:
                if line == 1:
                    with self.open() as again:
                        self._refuse_other_separator(_csv_lines(again).readline())
                at = self._opened_quote(line, reader.line_num, "end of data" in str(error))
                raise self.refusal(f"not a CSV row ({error}); mend the quotes", at) from error

    def _refuse_other_separator(self, line: str) -> None:
        """Refuses a first line that other characters part than those of the rest of its kind."""
        other = next((mark for mark in (";", "\t", ",", "|") if mark in line), None)
        if self.delimiter not in line and other:
            raise self.refusal(f"the fields are parted by {other!r}; part them by {self.delimiter!r}", 1)

    def _opened_quote(self, first: int, last: int, ended: bool) -> int:
        """Of the lines of a broken row the one on which the quote to blame opens.

        That is the last one if the file ended inside it; else the one that is still open where line `last` begins.
        """
        opened, inside = first, False
        with self.open() as stream:
            lines = enumerate(_csv_lines(stream), start=1)
            for number, line in itertools.islice(lines, first - 1, last if ended else last - 1):
                quotes = line.replace('""', "").count('"')  # a quote inside quotes is written twice
                inside ^= bool(quotes % 2)
                if quotes and inside:
                    opened = number
        return opened

    @contextmanager
    def _unpacked(self) -> Iterator[tuple[BinaryIO, BinaryIO]]:
        """The unpacked bytes, and the file that they come from."""
        with open(self.path, "rb") as packed:
            if self.member:
                with zipfile.ZipFile(packed) as archive, archive.open(self.member) as stream:
                    yield stream, packed
            elif self.path.suffix == ".gz":
                with gzip.GzipFile(fileobj=packed) as stream:
                    yield stream, packed
            else:
                yield packed, packed

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self.refusal("no such file; check the path") from error
        except UnicodeDecodeError as error:
            what = "not UTF-8 text; save the file in the UTF-8 encoding"
            raise self.refusal(what, self._first_line(_undecodable)) from error
        except _NulError as error:
            raise self._nul_refusal() from error
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
            raise self.refusal(f"truncated or damaged ({error}); fetch it again") from error
        except (RuntimeError, NotImplementedError) as error:  # zipfile: a password, a new method
            raise self.refusal(f"not to be unpacked ({error}); unpack it yourself") from error
        except (PermissionError, IsADirectoryError) as error:
            raise self.refusal(f"not readable ({error.strerror}); check the path") from error

    def _nul_refusal(self) -> UserError:
        """Names the line and, in a CSV file, the column."""
        line, column = self._first_line(lambda raw: b"\0" in raw), None
        if ".csv" in self.path.suffixes and line > 1:
            with self._unpacked() as (stream, _):
                header, raw = stream.readline(), next(itertools.islice(stream, line - 2, None))
            names, before = (_fields(text) for text in (header, raw[: raw.index(b"\0")]))
            column = names[min(max(len(before), 1), len(names)) - 1]
        return self.refusal("a NUL byte (\\0); save the file as UTF-8 text without it", line, column)

    def _first_line(self, wanted: Callable[[bytes], bool]) -> int:
        with self._unpacked() as (stream, _):
            return next((number for number, raw in enumerate(stream, start=1) if wanted(raw)), 1)


class _NulError(Exception):
    """There is a NUL byte, at which readers of tables cut a field off in silence."""


class _Guarded(io.RawIOBase):
    """Passes bytes on while they look like a text of a believable size; drops a byte order mark, and line ends at the
    end of the file, so that an empty last line is no row. `quoted` tells whether a quote was among them."""

    def __init__(self, stream: BinaryIO, packed: BinaryIO, file: SourceFile, tick: Callable[[], None]):
        self._stream, self._packed, self._file, self._tick = stream, packed, file, tick
        self._passed, self.quoted = 0, False
        head = stream.read(3)
        self._head = b"" if head == b"\xef\xbb\xbf" else head
        self._ends = b""  # line ends that nothing followed yet

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self._next(len(buffer))
        if b"\0" in block:
            raise _NulError
        self._passed += len(block)
        self.quoted = self.quoted or b'"' in block
        if self._passed > max(ALWAYS_UNPACKED, MOST_UNPACKED * self._packed.tell()):
            what = f"unpacks to more than {MOST_UNPACKED} times its size, which no table of interactions does"
            raise self._file.refusal(f"{what}; if it is one, unpack it yourself")
        self._tick()
        buffer[: len(block)] = block
        return len(block)

    def _next(self, most: int) -> bytes:
        """The next bytes; line ends only where something follows them, or they fill a block."""
        while True:
            read, self._head = self._head or self._stream.read(most - len(self._ends)), b""
            if not read:
                return b""
            block = self._ends + read
            kept = block.rstrip(b"\r\n") or (block if len(block) == most else b"")
            self._ends = block[len(kept) :]
            if kept:
                return kept


def _csv_lines(stream: BinaryIO) -> io.TextIOWrapper:
    return io.TextIOWrapper(stream, encoding="utf-8", newline="")  # newline="": csv sees quoted line breaks


def _fields(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8", "replace").rstrip("\r\n")]), [])


def _undecodable(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False
