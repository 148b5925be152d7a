"""Prepared folders: data/<dataset>/<split>-<seed>-<key>/, where key says what the folder was made from.

A folder appears whole and never changes; another split, seed or source gets a folder of its own. Its dataset.json holds
the checksum of every other file, and whoever reads a file compares them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.disk import held, writing
from data.sourcefile import checksum
from errors import UserError

FORMAT = 2  # of the prepared folder: raise it when older folders must be prepared anew
ABOUT = "dataset.json"
WRITTEN = ("data.csv", "valid.csv", "test.csv", "items.csv", "cate_item.txt", "users.csv", ABOUT)
UNNAMED, UNFINISHED = ".new-", ".preparing-"
MOMENT = 3600  # seconds, for which no process leaves a folder unnamed


def folder_of(parent: Path, wanted: dict) -> Path:
    """Where the preparation described by `wanted` belongs: its format, split, seed and the checksums of its source."""
    made_from = json.dumps([wanted["format"], wanted["sha256"], wanted["users_sha256"]])
    key = hashlib.sha256(made_from.encode()).hexdigest()[:12]
    return parent / f"{wanted['split']}-{wanted['seed']}-{key}"


def folders(parent: Path, split: str, seed: int) -> list[Path]:
    """The prepared folders in `parent` with this split and seed, whatever they were made from."""
    return sorted(path for path in parent.glob(f"{split}-{seed}-*") if is_prepared(path))


def is_prepared(folder: Path) -> bool:
    """Whether there is a preparation, of this version or an older one."""
    return (folder / ABOUT).is_file()


def description(folder: Path) -> dict:
    """What dataset.json says.

    Raises:
        UserError: it is damaged.
    """
    path = folder / ABOUT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise UserError(f"{path} is damaged; delete {folder} to have it prepared anew.")
    return found


def require_unchanged(path: Path) -> None:
    """Refuse a file that is not the one its folder was prepared with; a folder without dataset.json may hold any.

    Raises:
        UserError: it is missing or another.
    """
    folder = path.parent
    if not is_prepared(folder):
        return
    digest = description(folder)["files"].get(path.name)
    if not path.is_file() or checksum([path]) != digest:
        what = "is missing" if not path.is_file() else f"is not the file that {folder / ABOUT} describes"
        raise UserError(
            f"{path} {what}: this is not one preparation; delete {folder} to have it prepared anew. (Files of your own "
            f"belong into a folder without {ABOUT}.)"
        )


@contextmanager
def being_prepared(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `folder` when the block ends well.

    If another process was faster its folder stays: both were made from the same. What processes that died left here
    is cleaned away first.

    Args:
        folder: see `folder_of`.

    Raises:
        UserError: nothing can be written there, or something else stands there.
    """
    parent = folder.parent
    with writing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _clean(parent)
        # Held before it bears the name that _clean looks for: nobody takes it for left behind.
        unnamed = Path(tempfile.mkdtemp(prefix=UNNAMED, dir=parent))
    with held(unnamed):
        new = unnamed.rename(unnamed.with_name(unnamed.name.replace(UNNAMED, UNFINISHED)))
        try:
            yield new
            with writing(folder):
                new.chmod(0o755)  # mkdtemp makes folders that nobody else may read
                _publish(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _publish(new: Path, folder: Path) -> None:
    try:
        new.rename(folder)
    except OSError:
        if not is_prepared(folder):
            raise


def _clean(parent: Path) -> None:
    """Delete unfinished folders: those that hold nothing but what preparation writes, and that no process holds."""
    for path in parent.glob(f"{UNFINISHED}*"):
        try:
            with held(path, wait=False) as dead:
                if dead and set(os.listdir(path)) <= set(WRITTEN):
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:  # finished or cleaned by another process in this moment, or no folder
            continue
    for path in parent.glob(f"{UNNAMED}*"):
        with suppress(OSError):  # likewise, or not empty: not ours
            if time.time() - path.stat().st_mtime > MOMENT:
                path.rmdir()
