"""A text file to be read: plain, gzip, or a member of a zip archive.

Every way in which it can be unreadable becomes one sentence.
"""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from errors import UserError

csv.field_size_limit(2**31 - 1)  # one cell holds a whole history


@dataclass(frozen=True)
class SourceFile:
    """path: the file on disk; member: the name inside it if path is a zip archive, else ""."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

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
        """The unpacked bytes. Whatever goes wrong while they are read becomes a UserError."""
        with self._explained():
            if self.member:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield stream
            elif self.path.suffix == ".gz":
                with gzip.open(self.path, "rb") as stream:
                    yield stream
            else:
                with open(self.path, "rb") as stream:
                    yield stream

    @contextmanager
    def raw(self) -> Iterator[BinaryIO]:
        """The bytes on disk, packed or not."""
        with self._explained(), open(self.path, "rb") as stream:
            yield stream

    def lines(self, encoding: str) -> Iterator[tuple[int, str]]:
        """Numbered lines without their line ends."""
        with self.open() as stream:
            text = io.TextIOWrapper(stream, encoding=encoding)
            for number, line in enumerate(text, start=1):
                yield number, line.rstrip("\r\n")

    def header(self) -> list[str]:
        """The first row of a CSV file; refuses an empty file."""
        for _, fields in self._rows():
            return fields
        raise self.refusal("empty file; a header line and at least one row are needed")

    def body(self) -> Iterator[tuple[int, list[str]]]:
        """The rows of a CSV file below its header, with the line on which each ends.

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
        header = self.header()
        for name in columns:
            if header.count(name) != 1:
                what = "no column" if name not in header else "more than one column"
                found = ",".join(header)
                cure = f"name the columns {','.join(columns)}"
                raise self.refusal(f"{what} {name!r} (the header is {found}); {cure}", line=1)
        return [header.index(name) for name in columns]

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        with self.open() as stream:
            # newline="" lets csv see quoted line breaks; utf-8-sig drops a byte order mark
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            reader = csv.reader(text, strict=True)
            try:
                for fields in reader:
                    yield reader.line_num, fields
            except csv.Error as error:
                what = f"not a CSV row ({error}); mend the quotes"
                raise self.refusal(what, reader.line_num) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self.refusal("no such file; check the path") from error
        except UnicodeDecodeError as error:
            what = "not UTF-8 text; save the file in the UTF-8 encoding"
            raise self.refusal(what, self._undecodable_line()) from error
        except (EOFError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile) as error:
            raise self.refusal(f"truncated or damaged ({error}); fetch it again") from error
        except (RuntimeError, NotImplementedError) as error:  # zipfile: a password, a new method
            raise self.refusal(f"not to be unpacked ({error}); unpack it yourself") from error
        except (PermissionError, IsADirectoryError) as error:
            raise self.refusal(f"not readable ({error.strerror}); check the path") from error

    def _undecodable_line(self) -> int:
        with self.open() as stream:
            for number, raw in enumerate(stream, start=1):
                try:
                    raw.decode("utf-8")
                except UnicodeDecodeError:
                    return number
        return number
