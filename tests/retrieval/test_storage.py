"""What comes back from disk is the index that went there, or an error; never another index."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil

import numpy as np
import pytest

from retrieval import IndexFileError, SparseInvertedIndex, build_index, storage

NAMES = ("codes", "offsets", "items", "scores", "floors", "cuts", "removed")


class Table:
    def __init__(self, table):
        self.table = table

    def scores(self, codes):
        return self.table[codes]


@pytest.fixture
def index(rng):
    table = rng.normal(size=(30, 40)).astype(np.float32)
    return build_index(Table(table), range(30), 40, relu=False, keep_share=0.3, max_postings=20, progress=False)


def same(a, b):
    return (
        a.n_items == b.n_items
        and a.pruning == b.pruning
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in NAMES)
    )


@pytest.mark.parametrize("mmap", [True, False])
def test_roundtrip(tmp_path, index, mmap):
    index.save(tmp_path / "deep" / "index")
    loaded = SparseInvertedIndex.load(tmp_path / "deep" / "index", mmap=mmap)
    assert same(index, loaded)
    query = [[3, 17, 17], [0, 1, 2]]
    for got, expected in zip(loaded.recommend(query, 9), index.recommend(query, 9), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert not index.missing(loaded.codes).size
    assert same(loaded.extend(index.only([])), index)


def test_numbers_of_numpy_are_saved_like_those_of_python(tmp_path, rng):
    table = np.maximum(rng.normal(size=(3, 9)), 0).astype(np.float32)
    one, other = (
        build_index(Table(table), range(3), number(9), relu=kind(True), max_postings=number(4), progress=False).prune(
            threshold=share(0.25)
        )
        for number, kind, share in ((int, bool, float), (np.int64, np.bool_, np.float32))
    )
    for index in (one, other):
        index.save(tmp_path / "index")
        assert same(SparseInvertedIndex.load(tmp_path / "index"), one)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_interruption_while_an_index_is_replaced_leaves_one(tmp_path, index, monkeypatch, at):
    index.save(tmp_path / "index")
    calls, rename = [], os.rename

    def interrupted(*paths):
        calls.append(paths)
        if len(calls) == at:
            raise KeyboardInterrupt
        rename(*paths)

    monkeypatch.setattr("retrieval.storage.os.rename", interrupted)
    with pytest.raises(KeyboardInterrupt) if at < 3 else contextlib.nullcontext():
        index.prune(max_postings=2).save(tmp_path / "index")
    assert os.listdir(tmp_path) == ["index"]
    expected = index if at < 3 else index.prune(max_postings=2)
    assert same(SparseInvertedIndex.load(tmp_path / "index"), expected)


def test_an_index_that_is_replaced_while_it_is_read_is_not_told_as_damaged(tmp_path, index, monkeypatch):
    index.save(tmp_path / "index")
    read, replaced = storage._read_array, []

    def replacing(path, *rest):
        if not replaced:
            replaced.append(index.prune(max_postings=2))
            replaced[0].save(tmp_path / "index")
        return read(path, *rest)

    monkeypatch.setattr(storage, "_read_array", replacing)
    assert same(SparseInvertedIndex.load(tmp_path / "index"), replaced[0])


def test_mmap_leaves_the_arrays_on_disk(tmp_path, index):
    index.save(tmp_path / "index")

    def mapped(array):
        while array is not None and not isinstance(array, np.memmap):
            array = array.base
        return array is not None

    loaded = SparseInvertedIndex.load(tmp_path / "index", mmap=True)
    assert all(mapped(getattr(loaded, name)) for name in NAMES)
    loaded = SparseInvertedIndex.load(tmp_path / "index", mmap=False)
    assert not any(mapped(getattr(loaded, name)) for name in NAMES)


def test_save_replaces_an_index_even_the_one_it_reads(tmp_path, index):
    index.save(tmp_path / "index")
    loaded = SparseInvertedIndex.load(tmp_path / "index")
    loaded.save(tmp_path / "index")
    assert same(SparseInvertedIndex.load(tmp_path / "index"), index)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]  # nothing left beside it


def test_save_does_not_take_away_what_someone_put_beside_an_index(tmp_path, index):
    index.save(tmp_path / "index")
    (tmp_path / "index" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds notes.txt, which is of no index; move it elsewhere"):
        index.save(tmp_path / "index")
    assert (tmp_path / "index" / "notes.txt").read_text() == "mine"


def test_save_takes_an_empty_folder_and_spares_any_other(tmp_path, index):
    (tmp_path / "empty").mkdir()
    index.save(tmp_path / "empty")
    assert same(SparseInvertedIndex.load(tmp_path / "empty"), index)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("years of work")
    (tmp_path / "file").write_text("also")
    for name in ("thesis", "file"):
        with pytest.raises(ValueError, match="is not an index"):
            index.save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter1").read_text() == "years of work"


def test_a_save_that_fails_leaves_the_old_index_and_no_litter(tmp_path, index, monkeypatch):
    index.save(tmp_path / "index")
    writes = []

    def full(*args, **kwargs):
        writes.append(1)
        if len(writes) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args, **kwargs)

    write = np.lib.format.write_array
    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="index could not be written: No space left") as caught:
        index.save(tmp_path / "index")
    assert caught.value.errno == errno.ENOSPC
    assert same(SparseInvertedIndex.load(tmp_path / "index"), index)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_no_index_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no index in"):
        SparseInvertedIndex.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="There is no index in"):
        SparseInvertedIndex.load(tmp_path)


def rewrite_header(folder, change):
    """Change the header and give it a fitting checksum again, as a forger would."""
    path = folder / "index.json"
    header = json.loads(path.read_text())
    del header["checksum"]
    change(header)
    bare = json.dumps(header, sort_keys=True).encode()
    header["checksum"] = hashlib.sha256(bare).hexdigest()
    path.write_text(json.dumps(header, sort_keys=True, indent=1) + "\n")


def put(path, value):
    """A change of the header: put value at a path of keys."""

    def change(header):
        for key in path[:-1]:
            header = header[key]
        header[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put(["version"], 4), "has format version 4 and this program reads 3"),
        (put(["version"], "1"), "has format version '1'"),
        (put(["format"], "parquet"), "is not the header of a sparcode inverted index"),
        (put(["about"], 3), "does not describe an index"),
        (put(["about"], {}), "is damaged"),
        (put(["about", "n_items"], 7), "an item id is outside the catalogue"),
        (put(["about", "n_items"], "40"), "is damaged"),
        (put(["about", "n_items"], 2**31 - 2), "It claims 2147483646 items, and holds"),
        (put(["about", "pruning", "colour"], 1), "is damaged"),
        (put(["about", "pruning", "max_postings"], "x"), "is damaged"),
        (put(["about", "pruning"], 1), "is damaged"),
        (put(["arrays"], []), "does not describe the arrays"),
        (put(["arrays", "more"], {}), "does not describe the arrays"),
        (put(["arrays", "codes"], "x"), "bytes instead of None"),
        (put(["arrays", "codes", "bytes"], -1), "bytes instead of -1"),
        (put(["arrays", "codes", "sha256"], None), "its checksum is wrong"),
        (put(["more"], 1), "its checksum is wrong"),
    ],
)
def test_foreign_headers_are_refused(tmp_path, index, change, message):
    index.save(tmp_path / "index")
    rewrite_header(tmp_path / "index", lambda header: None)
    assert same(SparseInvertedIndex.load(tmp_path / "index"), index)  # the forger forges well
    rewrite_header(tmp_path / "index", change)
    with pytest.raises(IndexFileError, match=re.escape(message)):
        SparseInvertedIndex.load(tmp_path / "index")


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"format": 1}', "[" * 100000, "\xff\xfe"])
def test_headers_that_are_no_header_are_refused(tmp_path, index, text):
    index.save(tmp_path / "index")
    (tmp_path / "index" / "index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(IndexFileError):
        SparseInvertedIndex.load(tmp_path / "index")


def forge(folder, name, array):
    """Put another array there, with fitting size and checksum."""
    with open(folder / f"{name}.npy", "wb") as file:
        if isinstance(array, bytes):
            file.write(array)
        else:
            np.save(file, array)
    raw = (folder / f"{name}.npy").read_bytes()

    def change(header):
        header["arrays"][name]["bytes"] = len(raw)
        header["arrays"][name]["sha256"] = hashlib.sha256(raw).hexdigest()

    rewrite_header(folder, change)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize(
    ("name", "forged"),
    [
        ("codes", lambda a: a.astype(">i8")),
        ("codes", lambda a: a[::-1]),
        ("codes", lambda a: a[:-1]),
        ("codes", lambda a: a.astype(np.int32)),
        ("codes", lambda a: a.astype(object)),
        ("codes", lambda a: b"not an array"),
        ("codes", lambda a: b"\x93NUMPY\x01\x00v\x00" + b"((" * 59),
        ("offsets", lambda a: a + 1),
        ("offsets", lambda a: np.where(np.arange(len(a)) == 3, 10**12, a)),
        ("items", lambda a: a + np.uint32(1000)),
        ("items", lambda a: a * np.uint32(0)),
        ("items", lambda a: a.reshape(1, -1)),
        ("scores", lambda a: a * np.float32(np.nan)),
        ("scores", lambda a: -a),
        ("scores", lambda a: a.astype(np.float64)),
        ("floors", lambda a: a * np.float32(np.inf)),
    ],
)
def test_forged_arrays_are_refused(tmp_path, index, name, forged, mmap):
    """Whoever writes checksums too still can't make the kernel read or write out of bounds."""
    index.save(tmp_path / "index")
    forge(tmp_path / "index", name, forged(getattr(index, name)))
    with pytest.raises(IndexFileError):
        SparseInvertedIndex.load(tmp_path / "index", mmap=mmap)


def test_a_missing_array_is_refused(tmp_path, index):
    for name in NAMES:
        index.save(tmp_path / "index")
        (tmp_path / "index" / f"{name}.npy").unlink()
        with pytest.raises(IndexFileError, match=f"{name}.npy can't be read"):
            SparseInvertedIndex.load(tmp_path / "index")


def test_arrays_of_another_index_are_refused(tmp_path, index, rng):
    index.save(tmp_path / "one")
    scores = index.scores + np.float32(1)
    other = SparseInvertedIndex(index.codes, index.offsets, index.items, scores, index.floors, 40)
    other.save(tmp_path / "two")
    shutil.copy(tmp_path / "two" / "scores.npy", tmp_path / "one" / "scores.npy")
    with pytest.raises(IndexFileError, match="scores.npy is damaged"):
        SparseInvertedIndex.load(tmp_path / "one")


def damage(rng, raw):
    """Flip a bit, write a byte, cut off, append, drop or repeat a stretch, or zero one."""
    at = int(rng.integers(len(raw)))
    stretch = raw[at : at + int(rng.integers(1, 64))]
    return [
        lambda: raw[:at] + bytes([raw[at] ^ (1 << int(rng.integers(8)))]) + raw[at + 1 :],
        lambda: raw[:at] + bytes([int(rng.integers(256))]) + raw[at + 1 :],
        lambda: raw[:at],
        lambda: raw + bytes(rng.integers(0, 256, 9, np.uint8)),
        lambda: raw[:at] + raw[at + len(stretch) :],
        lambda: raw[:at] + stretch + raw[at:],
        lambda: raw[:at] + bytes(len(stretch)) + raw[at + len(stretch) :],
    ][int(rng.integers(7))]()


def test_fuzz_damaged_files_give_an_error_or_the_same_index(tmp_path, index, rng):
    folder = tmp_path / "index"
    index.save(folder)
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    refused = 0
    for trial in range(600):
        path = list(files)[trial % len(files)]
        raw = damage(rng, files[path])
        path.write_bytes(raw)
        try:
            loaded = SparseInvertedIndex.load(folder, mmap=bool(trial % 2))
        except IndexFileError as error:
            refused += 1
            assert str(folder) in str(error)
        else:
            assert raw == files[path]  # any change at all is noticed
            assert same(loaded, index)
            del loaded
        path.write_bytes(files[path])
    assert refused > 500
