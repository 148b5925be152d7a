"""The index by item, in a file that other engines can read: items as sparse vectors.

Engines take documents one by one, each with its terms and weights. Here a document is an item, a term is a code, and a
weight is the stored score. `.npz` is what scipy.sparse.load_npz reads, with a few arrays beside it; `.parquet` needs
pyarrow and is what most other tools read.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numba
import numpy as np

import files
from retrieval import storage
from retrieval.compact import CompactIndex
from retrieval.index import SparseInvertedIndex
from retrieval.postings import Postings
from retrieval.sizes import offsets_of

VERSION = 1
ITEMS_PER_GROUP = 10_000  # of a Parquet file, which is written group by group
NPZ_TYPES = {
    "format": "S",
    "shape": "i",
    "indptr": "i",
    "indices": "i",
    "data": "f",  # scipy's
    "item_ids": "i",
    "codes": "i",
    "floors": "f",
    "version": "i",
}


def export_index(index: Postings, path: str | Path) -> None:
    """Write an index to a file, whole or not at all; a file there is replaced.

    .npz: a CSR matrix (n_items, C) float32 of stored scores as scipy saves it, row r being item item_ids[r] = r + 1 and
    column c the code codes[c]; floors float32 (C,); version. An item that is never recommended has an empty row.
    .parquet: one row per item: item int64, codes list of int64 (ascending), scores list of float32. The row of item 0,
    the padding, holds all codes with their floors; version is in the metadata.

    Args:
        index: exact or compact; a CompactIndex is exported with its rounded scores. How it was pruned does not go with
            it.
        path: ends in .npz or .parquet.

    Raises:
        ValueError: another suffix.
        ModuleNotFoundError: pyarrow is missing, for .parquet.
        OSError: the disk refuses.
    """
    path = Path(path)
    write = {".npz": _write_npz, ".parquet": _write_parquet}.get(path.suffix)
    if write is None:
        raise ValueError(f"An index is exported to a .npz or a .parquet file, not to {path.name}.")
    index = decoded(index)
    with files.fresh(path) as file:
        write(index, file)


def import_index(path: str | Path) -> SparseInvertedIndex:
    """Read what export_index wrote.

    Args:
        path: the file.

    Returns:
        An index of the same postings, floors and answers. Its pruning and cuts are those of an index that nothing is
        known about, so it serves, and is not for growing.

    Raises:
        FileNotFoundError: there is no such file.
        IndexFileError: it is foreign, damaged, or of another version (a ValueError).
        ModuleNotFoundError: pyarrow is missing, for .parquet.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            read = _read_parquet if path.suffix == ".parquet" else _read_npz
            version, codes, floors, offsets, columns, scores = read(file)
        if version != VERSION:
            raise ValueError(f"Its version is {version}, and this program reads {VERSION}.")
        return _index(codes, floors, offsets, columns, scores)
    except (ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise storage.IndexFileError(f"{path} is not an exported index, or damaged; export it anew. {error}") from error


def item_vectors(index: SparseInvertedIndex) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The postings by item.

    Args:
        index: of any format.

    Returns:
        Offsets int64 (n_items + 1,), entry i - 1 being item i; rows of index.codes uint32 (nnz,), ascending within an
        item; scores float32 (nnz,).
    """
    index = decoded(index)
    offsets = offsets_of(np.bincount(index.items, minlength=index.n_items + 1)[1:])
    rows = np.empty(len(index.items), np.uint32)
    scores = np.empty(len(index.items), np.float32)
    _transpose(index.offsets, index.items, index.scores, 1, offsets[:-1].copy(), rows, scores)
    return offsets, rows, scores


def decoded(index: Postings) -> SparseInvertedIndex:
    """The index with float32 scores: a CompactIndex decoded, another as it is."""
    return index.decode() if isinstance(index, CompactIndex) else index


def _index(codes, floors, offsets, columns, scores) -> SparseInvertedIndex:
    """The index of these item vectors; its constructor checks all that this does not."""
    rising = len(offsets) > 1 and offsets[0] == 0 and np.all(offsets[1:] >= offsets[:-1])
    if not rising or not offsets[-1] == len(columns) == len(scores):
        raise ValueError("Its rows don't fit its postings.")
    if len(columns) and not 0 <= columns.min() <= columns.max() < len(codes):
        raise ValueError("A posting is of a code that it does not name.")
    starts = offsets_of(np.bincount(columns, minlength=len(codes)))
    items = np.empty(len(columns), np.uint32)
    by_code = np.empty(len(columns), np.float32)
    _transpose(offsets, columns, scores, 0, starts[:-1].copy(), items, by_code)
    return SparseInvertedIndex(codes, starts, items + np.uint32(1), by_code, floors, len(offsets) - 1)


@numba.njit(nogil=True, cache=True)
def _transpose(offsets, columns, scores, first_column, ends, to_rows, to_scores):
    """Transpose compressed rows; `ends` holds the start of each column and grows to its end."""
    for row in range(offsets.size - 1):
        for p in range(offsets[row], offsets[row + 1]):
            column = np.int64(columns[p]) - first_column
            to_rows[ends[column]] = row
            to_scores[ends[column]] = scores[p]
            ends[column] += 1


def _write_npz(index, file) -> None:
    offsets, rows, scores = item_vectors(index)
    np.savez(
        file,
        format=np.array(b"csr"),
        shape=np.array([index.n_items, len(index)]),
        data=scores,
        indices=rows.astype(np.int32),
        indptr=offsets,
        item_ids=np.arange(1, index.n_items + 1),
        codes=index.codes,
        floors=index.floors,
        version=np.array(VERSION),
    )


def _read_npz(file):
    with np.load(file, allow_pickle=False) as stored:
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("It is one array.")
        arrays = {name: stored[name] for name in NPZ_TYPES}
    for name, kind in NPZ_TYPES.items():
        if arrays[name].dtype.kind != kind:
            raise ValueError(f"Its array '{name}' is of type {arrays[name].dtype}.")
    n_items, n_codes = arrays["shape"]
    if arrays["format"] != b"csr" or len(arrays["indptr"]) != n_items + 1:
        raise ValueError("It holds no CSR matrix of its items.")
    if len(arrays["codes"]) != n_codes:
        raise ValueError("It does not name a code for each column.")
    if not np.array_equal(arrays["item_ids"], np.arange(1, n_items + 1)):
        raise ValueError("Its items are not 1, 2, 3, ...")
    names = ("version", "codes", "floors", "indptr", "indices", "data")
    return tuple(arrays[name] for name in names)


def _write_parquet(index, file) -> None:
    pa, parquet = _pyarrow()
    schema = pa.schema(
        [("item", pa.int64()), ("codes", pa.list_(pa.int64())), ("scores", pa.list_(pa.float32()))],
        metadata={"sparcode_export": str(VERSION)},
    )
    offsets, rows, scores = item_vectors(index)

    def group(first, ends, codes, scores):
        lists = (pa.LargeListArray.from_arrays(ends, values) for values in (codes, scores))
        items = np.arange(first, first + len(ends) - 1)
        return pa.table([items, *lists], names=schema.names).cast(schema)

    with parquet.ParquetWriter(file, schema) as writer:
        writer.write_table(group(0, [0, len(index)], index.codes, index.floors))
        for start in range(0, index.n_items, ITEMS_PER_GROUP):
            ends = offsets[start : start + ITEMS_PER_GROUP + 1]
            part = slice(ends[0], ends[-1])
            codes = index.codes[rows[part]]
            writer.write_table(group(start + 1, ends - ends[0], codes, scores[part]))


def _read_parquet(file):
    pa, parquet = _pyarrow()
    try:
        table = parquet.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    version = (table.schema.metadata or {}).get(b"sparcode_export", b"0")
    if not np.array_equal(table["item"].to_numpy(), np.arange(len(table))):
        raise ValueError("Its items are not 0, 1, 2, ...")
    lengths, values = [], []
    for name in ("codes", "scores"):
        column = table[name]
        values.append(column.combine_chunks().flatten().to_numpy())
        lengths.append(pa.compute.list_value_length(column).to_numpy())
    if not np.array_equal(*lengths):
        raise ValueError("An item has more codes than scores, or fewer.")
    n_codes = lengths[0][0]
    codes, floors = (of[:n_codes] for of in values)
    row = np.searchsorted(codes, values[0][n_codes:])
    if np.any(codes[np.minimum(row, n_codes - 1)] != values[0][n_codes:]):
        raise ValueError("A posting is of a code that it does not name.")
    return int(version), codes, floors, offsets_of(lengths[0][1:]), row, values[1][n_codes:]


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ImportError as error:
        raise ModuleNotFoundError(f'Parquet files need pyarrow: pip install "pyarrow>=15,<26". ({error})') from error
    return pyarrow, pyarrow.parquet
