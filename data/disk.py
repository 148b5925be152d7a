"""Writing: what goes wrong becomes a sentence that names the file; what one process writes no other disturbs."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UserError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A disk that is full or closed to us becomes a sentence that names `path`.

    Raises:
        UserError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no disk space left for {path.absolute()}; free some and run again.") from error
        raise UserError(
            f"writing {path.absolute()} failed ({error.strerror or error}); make its folder one you may write to "
            "and run again."
        ) from error


def write_text(path: Path, pieces: Iterable[str]) -> None:
    """Write the pieces one after the other, in UTF-8."""
    with writing(path), open(path, "w", encoding="utf-8", newline="") as out:
        out.writelines(pieces)


@contextmanager
def held(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Keep a folder to this process until the block ends or the process does, however it ends.

    Args:
        folder: must exist.
        wait: for the process that holds it.

    Yields:
        Whether it is held: not if another process holds it and `wait` is false, nor on a file system without locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
