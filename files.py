"""Files that are there whole or not at all, and their digests; the standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class UnwritableError(OSError):
    """A file or folder could not be written; the message names it and says why."""


@contextlib.contextmanager
def fresh(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """A file to write that takes the place of `path` once all of it is on the disk.

    It is written beside `path` and renamed, so a crash, a full disk or an exception leaves what was there before.

    Args:
        path: the file to make or replace; missing folders above it are made.
        mode: "wb" for bytes, "w" for UTF-8 text whose line ends are written as given.

    Yields:
        The open file.

    Raises:
        UnwritableError: the disk refuses (an OSError).
    """
    path = Path(path)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(handle, mode, **text) as file:
                yield file
                flush(file)
            os.chmod(name, 0o644)  # mkstemp makes it private
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Let an OSError of the body say that it was `path` that could not be written.

    Args:
        path: the file or folder that the body writes.

    Raises:
        UnwritableError: with the error number of the original. An error that names another file stays as it is.
    """
    path = Path(path)
    try:
        yield
    except UnwritableError:
        raise
    except OSError as error:
        if error.filename is not None and not _belongs(Path(os.fsdecode(error.filename)), path):
            raise
        raise UnwritableError(error.errno, f"{path} could not be written: {error.strerror or error}.") from error


def _belongs(other: Path, path: Path) -> bool:
    """Whether `other` is `path`, above it, within it, or the hidden new one beside it."""
    hidden = str(other).startswith(str(path.with_name(f".{path.name}.")))
    return hidden or path.is_relative_to(other) or other.is_relative_to(path)


def flush(file: IO) -> None:
    """Bring what was written to `file` onto the disk.

    Args:
        file: an open file.
    """
    file.flush()
    os.fsync(file.fileno())


def digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes.

    Args:
        path: the file.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    sha256 = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
    return sha256.hexdigest()
