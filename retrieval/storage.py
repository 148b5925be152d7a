"""The index on disk: a folder of .npy files, and an index.json with their sizes and checksums.

Any NumPy opens the arrays; index.json itself must be, byte for byte, what `save` writes, so that no damage passes
unseen. The checksums guard against damage, not against someone who writes new ones; the index checks the meaning of
what it reads on its own. All numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import files

FORMAT = "sparcode inverted index"
VERSION = 3
HEADER = "index.json"
LARGEST_HEADER = 1 << 20


class IndexFileError(ValueError):
    """The files are not an index of this version, or not any more."""


def save(folder: str | Path, about: dict, arrays: dict[str, np.ndarray]) -> None:
    """Write an index to `folder`.

    A new folder is written beside it and renamed into place; a crash leaves either the old one or, between two renames,
    none: never half an index.

    Args:
        folder: an index, an empty folder, or nothing as yet.
        about: what describes the index, as json takes it.
        arrays: one row each.

    Raises:
        ValueError: `folder` holds something else, or something beside an index.
        OSError: the disk refuses.
    """
    folder = place_for(folder)
    fresh = None
    try:
        with files.writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            fresh = Path(tempfile.mkdtemp(prefix=files.unfinished(folder), dir=folder.parent))
            complete(fresh, about, arrays, arrays.keys())
            os.chmod(fresh, 0o755)  # mkdtemp makes it private
            put_in_place(fresh, folder)
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)  # a no-op once it was renamed


def place_for(folder: str | Path) -> Path:
    """The absolute path of `folder`.

    Raises:
        ValueError: something that is of no index stands there.
    """
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not (folder / HEADER).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an index; name another folder or remove it.")
    foreign = [path.name for path in folder.glob("*") if path.name != HEADER and path.suffix != ".npy"]
    if foreign:  # saving replaces the folder
        raise ValueError(f"{folder} holds {foreign[0]}, which is of no index; move it elsewhere.")
    return folder


def complete(fresh: Path, about: dict, arrays: dict[str, np.ndarray], names: Iterable[str]) -> None:
    """Write `arrays` and the header of an index of the arrays `names` to `fresh`, where the others stand already."""
    for name, array in arrays.items():
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        with open(fresh / f"{name}.npy", "wb") as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
            files.flush(file)
    described = {}
    for name in names:
        path = fresh / f"{name}.npy"
        described[name] = {"bytes": path.stat().st_size, "sha256": files.digest(path)}
    header = {"format": FORMAT, "version": VERSION, "about": about, "arrays": described}
    with open(fresh / HEADER, "wb") as file:
        file.write(_header_bytes(header))
        files.flush(file)


class GrowingArray:
    """A one-row .npy file written piece by piece; it is an array of NumPy's once it is closed.

    Args:
        path: the file.
        dtype: of its entries.
        length: entries of the file to keep, if there is one; what lies behind them is cut off.

    Attributes:
        length: entries that it holds by now.
    """

    def __init__(self, path: Path, dtype: type, length: int = 0):
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self.length = length
        self._file = open(path, "r+b" if length else "w+b")  # noqa: SIM115 (close is below)
        try:
            self._write_header(length)
            end = self._start + length * self._dtype.itemsize
            if self._file.seek(0, os.SEEK_END) < end:
                raise ValueError(f"{path} is shorter than the {length} entries it should hold.")
            self._file.truncate(end)
            self._file.seek(end)
        except BaseException:
            self._file.close()
            raise

    def append(self, array: np.ndarray) -> None:
        """Add entries at the end."""
        self._file.write(memoryview(np.ascontiguousarray(array, self._dtype)).cast("B"))
        self.length += len(array)

    def flush(self) -> None:
        """Bring all entries onto the disk."""
        files.flush(self._file)

    def close(self) -> None:
        """Make it an array of NumPy's; nothing can be added afterwards."""
        if self._file.closed:
            return
        try:
            self._write_header(self.length)
            files.flush(self._file)
        finally:
            self._file.close()

    def _write_header(self, length: int) -> None:
        """NumPy pads the header so that an array can grow without moving its data."""
        self._file.seek(0)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()


def load(folder: str | Path, names: Iterable[str], mmap: bool) -> tuple[dict, dict[str, np.ndarray]]:
    """Read what `save` wrote.

    Args:
        folder: where it is.
        names: of the arrays that there must be.
        mmap: leave the arrays on disk.

    Returns:
        What describes the index, and its arrays, checked against size and SHA-256.

    Raises:
        FileNotFoundError: there is no index.
        IndexFileError: the folder is anything but what `save` wrote.
    """
    folder, names = Path(folder), set(names)
    header = _read_header(folder)
    while True:
        try:
            return header["about"], _read_arrays(folder, header["arrays"], names, mmap)
        except IndexFileError:
            before, header = header, _read_header(folder)
            if header == before:
                raise  # else another index took its place meanwhile


def _read_arrays(folder: Path, described, names: set[str], mmap: bool) -> dict[str, np.ndarray]:
    if not isinstance(described, dict) or described.keys() != names:
        raise IndexFileError(f"{folder / HEADER} does not describe the arrays of an index; build it anew.")
    return {name: _read_array(folder / f"{name}.npy", described[name], mmap) for name in names}


def about(folder: str | Path) -> dict:
    """What was given to `save` beside the arrays; raises as `load` does for a bad header."""
    return _read_header(Path(folder))["about"]


def _read_header(folder: Path) -> dict:
    path = folder / HEADER
    try:
        with open(path, "rb") as file:
            raw = file.read(LARGEST_HEADER + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"There is no index in {folder} ({HEADER} is missing); build it first.") from None
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise IndexFileError(f"{path} is damaged or not of an index; build the index anew.") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise IndexFileError(f"{path} is not the header of a {FORMAT}.")
    if header.get("version") != VERSION:
        raise IndexFileError(
            f"The index in {folder} has format version {header.get('version')!r} and this program reads {VERSION}; "
            "build it anew or use the program that wrote it."
        )
    header.pop("checksum", None)
    if header.keys() != {"format", "version", "about", "arrays"} or raw != _header_bytes(header):
        raise IndexFileError(f"{path} is damaged (its checksum is wrong); build the index anew.")
    if not isinstance(header["about"], dict):
        raise IndexFileError(f"{path} does not describe an index; build it anew.")
    return header


def _read_array(path: Path, described, mmap: bool) -> np.ndarray:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise IndexFileError(f"{path} can't be read ({error.strerror}); build the index anew.") from error
    expected = described.get("bytes") if isinstance(described, dict) else None
    if size != expected:
        raise IndexFileError(f"{path} has {size} bytes instead of {expected}; build the index anew.")
    try:
        if files.digest(path) != described.get("sha256"):
            raise IndexFileError(f"{path} is damaged (its checksum is wrong); build the index anew.")
        array = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except IndexFileError:
        raise
    except Exception as error:  # what np.load raises on a forged array header is not documented
        raise IndexFileError(f"{path} can't be read as an array ({error}); build the index anew.") from error
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))


def _header_bytes(header: dict) -> bytes:
    """The one spelling of a header, its own SHA-256 included."""
    return (json.dumps({**header, "checksum": files.content_digest(header)}, sort_keys=True, indent=1) + "\n").encode()


def put_in_place(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`. Mapped files of the old one stay readable on POSIX."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=files.unfinished(folder), dir=folder.parent))
    try:
        os.rename(folder, aside / "index")
        os.rename(fresh, folder)
    except BaseException:  # Ctrl-C between the two, too
        if not folder.exists():
            with contextlib.suppress(OSError):
                os.rename(aside / "index", folder)
        raise
    finally:
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
