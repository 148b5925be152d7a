"""An exported index reads back as the same index, and in scipy as the matrix it says it is."""

import errno
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse

from retrieval import IndexFileError, build_index
from retrieval.engines.export import export_index, import_index, item_vectors

SUFFIXES = (".npz", ".parquet")


class Table:
    def __init__(self, table):
        self.table = table

    def scores(self, codes):
        return self.table[codes]


def built(rng, n_items=40):
    table = rng.normal(size=(30, n_items)).astype(np.float32)
    table[:, 6] = -9  # item 7 has no posting
    return build_index(Table(table), range(0, 30, 3), n_items, relu=False, keep_share=0.3, progress=False)


@pytest.fixture
def index(rng):
    return built(rng)


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / "deep" / f"index{request.param}"


def same(a, b):
    names = ("codes", "offsets", "items", "scores", "floors")
    return a.n_items == b.n_items and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in names)


def test_roundtrip(index, path):
    export_index(index, path)
    assert same(import_index(path), index)
    query = [[3, 27, 27], [0, 6, 9]]
    for got, expected in zip(import_index(path).recommend(query, 9), index.recommend(query, 9), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize("changed", ["removed", "compact", "no postings", "no codes"])
def test_roundtrip_of_other_indexes(index, path, changed):
    lone = np.zeros((30, 40), np.float32)
    lone[3, 7] = 1
    index = {
        "removed": lambda: index.remove_items([1, 2, 40]),
        "compact": lambda: index.compact("uint8"),
        "no postings": lambda: build_index(Table(lone), [3, 4, 5], 40, relu=True, progress=False).only([4, 5]),
        "no codes": lambda: build_index(Table(lone), [3], 40, relu=True, progress=False).only([]),
    }[changed]()
    export_index(index, path)
    assert same(import_index(path), index.decode() if changed == "compact" else index)


def test_scipy_reads_the_scores_of_each_item(index, tmp_path):
    export_index(index, tmp_path / "index.npz")
    matrix = scipy.sparse.load_npz(tmp_path / "index.npz")
    beside = np.load(tmp_path / "index.npz")
    assert matrix.shape == (40, 10) and matrix.has_canonical_format
    assert not matrix[6].nnz and beside["item_ids"][6] == 7
    for row, code in enumerate(index.codes):
        assert beside["codes"][row] == code and beside["floors"][row] == index.floors[row]
        part = slice(index.offsets[row], index.offsets[row + 1])
        column = np.zeros(41, np.float32)
        column[index.items[part]] = index.scores[part]
        np.testing.assert_array_equal(matrix[:, [row]].toarray()[:, 0], column[1:])


def test_vectors_of_items_are_those_of_the_scores_whatever_the_format(index):
    small = index.compact("uint8")
    for one, other in zip(item_vectors(small), item_vectors(small.decode()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_table_without_the_row_of_codes_is_refused(index, tmp_path):
    export_index(index, tmp_path / "index.parquet")
    whole = pa.parquet.read_table(tmp_path / "index.parquet")
    rows = whole.to_pylist()
    rows[0] |= {"codes": [], "scores": []}
    for wrong in (whole[:0], pa.Table.from_pylist(rows, whole.schema)):
        pa.parquet.write_table(wrong, tmp_path / "wrong.parquet")
        with pytest.raises(ValueError, match="not an exported index, or damaged"):
            import_index(tmp_path / "wrong.parquet")


def test_parquet_rows_are_items_and_row_0_the_floors(rng, tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval.engines.export.ITEMS_PER_GROUP", 7)  # several groups, the last one short
    index = built(rng)
    export_index(index, tmp_path / "index.parquet")
    rows = pa.parquet.read_table(tmp_path / "index.parquet").to_pylist()
    assert rows[0] == {"item": 0, "codes": index.codes.tolist(), "scores": index.floors.tolist()}
    offsets, columns, scores = item_vectors(index)
    for item in range(1, 41):
        part = slice(offsets[item - 1], offsets[item])
        codes = index.codes[columns[part]].tolist()
        assert rows[item] == {"item": item, "codes": codes, "scores": scores[part].tolist()}


def test_a_failed_export_leaves_the_old_file(index, path, monkeypatch):
    export_index(index, path)
    full = OSError(errno.ENOSPC, "disk full")
    monkeypatch.setattr("files.flush", lambda file: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="disk full"):
        export_index(index.remove_items([1, 2, 3]), path)
    assert same(import_index(path), index)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": np.array(2)}, "Its version is 2"),
        ({"codes": np.arange(9)}, "a code for each column"),
        ({"indices": np.full(120, 10, np.int32)}, "a code that it does not name"),
        ({"indptr": np.zeros(41, np.int64)}, "don't fit its postings"),
        ({"indptr": np.r_[0, 9, np.full(38, 5), 120]}, "don't fit its postings"),
        ({"indptr": np.r_[1, np.full(40, 120)]}, "don't fit its postings"),
        ({"data": np.full(120, -1, np.float32)}, "a score is not a positive number"),
        ({"indices": np.zeros(120, np.int32)}, "don't ascend"),  # one code twice under an item
        ({"floors": np.full(10, np.nan, np.float32)}, "Floors must be numbers"),
        ({"item_ids": np.arange(40)}, "not 1, 2, 3"),
        ({"format": np.array(b"csc")}, "no CSR matrix"),
        ({"floors": None}, "floors is not a file in the archive"),
        ({"codes": np.zeros(10)}, "of type float64"),
    ],
)
def test_the_reader_checks(index, tmp_path, changes, told):
    assert len(index.items) == 120
    export_index(index, tmp_path / "index.npz")
    arrays = {**np.load(tmp_path / "index.npz"), **changes}
    np.savez(tmp_path / "index.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(IndexFileError, match=told):
        import_index(tmp_path / "index.npz")


@pytest.mark.parametrize(
    ("item", "column", "value", "told"),
    [
        (5, "item", 4, "not 0, 1, 2"),
        (3, "scores", [], "more codes than scores"),
        (3, "codes", [1, 2, 4, 5, 7], "a code that it does not name"),
        (3, "codes", [0, 3, 6, 9, 999], "a code that it does not name"),
        (3, "codes", [0, 0, 3, 6, 9], "don't ascend"),
        (3, "scores", [1, 1, 1, 1, np.nan], "a score is not a positive number"),
    ],
)
def test_the_parquet_reader_checks(index, tmp_path, item, column, value, told):
    path = tmp_path / "index.parquet"
    export_index(index, path)
    table = pa.parquet.read_table(path)
    rows = table.to_pylist()
    rows[3] |= {"codes": [0, 3, 6, 9, 12], "scores": [1, 1, 1, 1, 1]}
    rows[item][column] = value
    pa.parquet.write_table(pa.Table.from_pylist(rows, table.schema), path)
    with pytest.raises(IndexFileError, match=told):
        import_index(path)
    pa.parquet.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(IndexFileError, match="Its version is 0"):
        import_index(path)


def test_damage_and_foreign_files_are_told(index, path):
    with pytest.raises(FileNotFoundError):
        import_index(path)
    export_index(index, path)
    whole = path.read_bytes()
    for damaged in (b"", b"something else", whole[: len(whole) // 2], whole[:-9]):
        path.write_bytes(damaged)
        with pytest.raises(IndexFileError, match="not an exported index, or damaged"):
            import_index(path)
    with pytest.raises(ValueError, match=r"a \.npz or a \.parquet file, not to index\.csv"):
        export_index(index, path.with_suffix(".csv"))


def test_without_pyarrow_the_error_says_how_to_get_it(index, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match='pip install "pyarrow'):
        export_index(index, tmp_path / "index.parquet")
    assert not list(tmp_path.iterdir())


def test_item_vectors_hold_every_posting_once(index):
    offsets, rows, scores = item_vectors(index)
    by_item = {(int(rows[p]), item, scores[p]) for item in range(1, 41) for p in range(*offsets[item - 1 : item + 1])}
    by_code = {
        (row, int(index.items[p]), index.scores[p]) for row in range(10) for p in range(*index.offsets[row : row + 2])
    }
    assert by_item == by_code and len(by_item) == len(index.items)
