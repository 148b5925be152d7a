"""A build to disk makes the index that a build in memory makes, however often it is interrupted."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from retrieval import SparseInvertedIndex, build_index, build_to_disk, storage
from retrieval.scale.streaming import JOB, JOURNAL

NAMES = ("codes", "offsets", "items", "scores", "floors", "cuts", "removed")
BLOCK = {"block_bytes": 3 * 4 * 50}  # three codes at a time


class Table:
    """Scores from a table; `before` is called with the codes asked for, and may interrupt."""

    def __init__(self, table, before=lambda codes: None):
        self.table, self.before = table, before
        self.asked = []

    def scores(self, codes):
        self.before(codes)
        self.asked.append(len(codes))
        return self.table[codes]


def same(a, b):
    return (a.n_items, a.pruning) == (b.n_items, b.pruning) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in NAMES
    )


@pytest.fixture
def table(rng):
    return np.maximum(rng.normal(size=(20, 50)), 0).astype(np.float32)


def to_disk(table, folder, relu=True, before=lambda codes: None, **options):
    return build_to_disk(
        Table(table, before),
        np.arange(len(table)),
        table.shape[1],
        folder,
        relu=relu,
        progress=False,
        **{**BLOCK, **options},
    )


def in_memory(table, relu=True, **options):
    return build_index(Table(table), np.arange(len(table)), table.shape[1], relu=relu, progress=False, **options)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("options", [{}, {"max_postings": 9}, {"keep_share": 0.2}])
@pytest.mark.parametrize("block_bytes", [1, 3 * 4 * 50, None])
def test_the_index_on_disk_is_that_of_a_build_in_memory(rng, tmp_path, relu, options, block_bytes):
    table = rng.normal(size=(20, 50)).astype(np.float32)
    table = np.maximum(table, 0) if relu else table
    index = to_disk(table, tmp_path / "deep" / "index", relu, block_bytes=block_bytes, **options)
    expected = in_memory(table, relu, **options)
    assert same(index, expected)
    assert same(SparseInvertedIndex.load(tmp_path / "deep" / "index", mmap=False), expected)
    assert os.listdir(tmp_path / "deep") == ["index"]  # nothing left beside it
    expected.save(tmp_path / "saved")
    for name in NAMES:
        files = [tmp_path / at / f"{name}.npy" for at in ("saved", "deep/index")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("codes", [[3], [9, 2, 2, 5]])
def test_few_codes(table, tmp_path, codes):
    index = build_to_disk(Table(table), codes, 50, tmp_path / "i", relu=True, progress=False)
    assert same(index, build_index(Table(table), codes, 50, relu=True, progress=False))


def test_numbers_of_numpy_are_written_like_those_of_python(table, tmp_path):
    sizes = np.int64(table.shape[1]), np.int64(4)
    index = build_to_disk(
        Table(table), np.arange(20), sizes[0], tmp_path / "i", relu=True, max_postings=sizes[1], progress=False
    )
    assert same(index, in_memory(table, max_postings=4))


@pytest.mark.parametrize(("codes", "message"), [([], "no codes"), ([3, 4], "silences all items")])
def test_an_index_of_nothing_is_refused_and_leaves_nothing(table, tmp_path, codes, message):
    with pytest.raises(ValueError, match=message):
        build_to_disk(Table(np.zeros_like(table)), codes, 50, tmp_path / "i", relu=True, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
@pytest.mark.parametrize("at", range(0, 20, 4))
def test_an_interrupted_build_goes_on_where_it_stopped(table, tmp_path, at, error):
    def interrupt(codes):
        if len(codes) > 1 and at in codes:
            raise error

    for _ in range(2):  # and stops there again
        with pytest.raises(error):
            to_disk(table, tmp_path / "index", keep_share=0.2, before=interrupt_after(interrupt))
        assert not (tmp_path / "index").exists()
    scorer = Table(table)
    index = build_to_disk(
        scorer,
        np.arange(20),
        50,
        tmp_path / "index",
        relu=True,
        keep_share=0.2,
        progress=False,
        **BLOCK,
    )
    assert scorer.asked == [1] + [min(3, 20 - start) for start in range(at // 3 * 3, 20, 3)]
    assert same(index, in_memory(table, keep_share=0.2))
    assert os.listdir(tmp_path) == ["index"]


def interrupt_after(interrupt):
    """Let the sample for the threshold pass (all 20 codes at once); then `interrupt`."""
    return lambda codes: None if len(codes) == 20 else interrupt(codes)


def test_a_crash_at_any_moment_costs_no_more_than_the_last_blocks(table, tmp_path, monkeypatch):
    """What lies on the disk at every call of the scorer, and at every write of the journal."""
    monkeypatch.setattr("retrieval.scale.streaming.CHECKPOINT_SECONDS", 0.0)
    states = []

    def photograph(*_):
        shutil.copytree(tmp_path / "at work", tmp_path / f"state {len(states)}")
        states.append(tmp_path / f"state {len(states)}")

    def replace(source, target):
        photograph()
        os_replace(source, target)
        photograph()

    os_replace = os.replace
    (tmp_path / "at work").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace)
        to_disk(table, tmp_path / "at work" / "index", before=photograph)
    expected = in_memory(table)
    assert len(states) > 20
    scored = []
    for state in states:
        scorer = Table(table)
        index = build_to_disk(scorer, np.arange(20), 50, state / "index", relu=True, progress=False, **BLOCK)
        assert same(index, expected)
        assert os.listdir(state) == ["index"]
        scored.append(sum(scorer.asked))
    assert scored[-1] == 1 and max(scored) == 21  # the last state lacked nothing but its place


@pytest.mark.parametrize("name", ["items", "scores", "floors", "cuts"])
def test_what_a_crash_left_half_written_is_cut_off(table, tmp_path, name):
    with pytest.raises(RuntimeError):
        to_disk(table, tmp_path / "index", before=stop_at(9))
    with open(tmp_path / ".index.building" / "index" / f"{name}.npy", "ab") as file:
        file.write(b"half a block" * 1000)
    assert same(to_disk(table, tmp_path / "index"), in_memory(table))
    in_memory(table).save(tmp_path / "saved")
    files = [tmp_path / at / f"{name}.npy" for at in ("saved", "index")]
    assert files[0].read_bytes() == files[1].read_bytes()


def stop_at(code):
    def stop(codes):
        if code in codes:
            raise RuntimeError("power cut")

    return stop


def test_files_that_lost_what_the_journal_counts_are_refused(table, tmp_path):
    with pytest.raises(RuntimeError):
        to_disk(table, tmp_path / "index", before=stop_at(9))
    path = tmp_path / ".index.building" / "index" / "scores.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"scores.npy is shorter than the \d+ entries"):
        to_disk(table, tmp_path / "index")
    assert same(to_disk(table, tmp_path / "index", restart=True), in_memory(table))


def test_a_killed_process(table, tmp_path):
    np.save(tmp_path / "table.npy", table)
    program = f"""
import os, sys
import numpy as np
sys.path.insert(0, {str(Path(storage.__file__).parent.parent)!r})
from retrieval import build_to_disk
from retrieval.scale import streaming
streaming.CHECKPOINT_SECONDS = 0.0
table = np.load({str(tmp_path / "table.npy")!r})
class Scorer:
    def scores(self, codes):
        if 13 in codes:
            os._exit(9)
        return table[codes]
build_to_disk(Scorer(), np.arange(20), 50, {str(tmp_path / "index")!r}, relu=True,
              progress=False, block_bytes={BLOCK["block_bytes"]})
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    scorer = Table(table)
    index = build_to_disk(scorer, np.arange(20), 50, tmp_path / "index", relu=True, progress=False)
    assert same(index, in_memory(table)) and scorer.asked == [1, 8]


def test_another_build_is_not_gone_on_with(table, tmp_path):
    def interrupted():
        with pytest.raises(RuntimeError):
            to_disk(table, tmp_path / "index", before=stop_at(9), max_postings=9)

    interrupted()
    for options, what in (
        ({}, "max_postings"),
        ({"max_postings": 9, "relu": False}, "relu"),
        ({"max_postings": 9, "keep_share": 0.1}, "keep_share"),
    ):
        with pytest.raises(ValueError, match=rf"other arguments \({what}\).*restart=True"):
            to_disk(table, tmp_path / "index", **options)
    with pytest.raises(ValueError, match=r"other arguments \(codes, n_codes\)"):
        to_disk(table[:19], tmp_path / "index", max_postings=9)
    with pytest.raises(ValueError, match=r"another scorer \(its scores of code 0 differ\)"):
        to_disk(table[::-1], tmp_path / "index", max_postings=9)
    rounded = table * np.float32(1 + 1e-6)  # as another BLAS might
    assert len(to_disk(rounded, tmp_path / "index", max_postings=9)) == 20
    interrupted()
    index = to_disk(table, tmp_path / "index", restart=True)
    assert same(index, in_memory(table)) and os.listdir(tmp_path) == ["index"]


def test_what_is_no_build_is_left_alone(table, tmp_path):
    work = tmp_path / ".index.building"
    work.mkdir()
    (work / "thesis").write_text("years of work")
    for restart in (False, True):
        with pytest.raises(ValueError, match="is not an interrupted build"):
            to_disk(table, tmp_path / "index", restart=restart)
    assert (work / "thesis").read_text() == "years of work"
    (tmp_path / "other").write_text("also")
    with pytest.raises(ValueError, match="is not an index"):
        to_disk(table, tmp_path / "other")


def test_one_process_builds_at_a_time(table, tmp_path):
    refused = []

    def second(codes):
        if not refused:
            refused.append(True)
            for restart in (False, True):
                with pytest.raises(ValueError, match="another process builds in"):
                    to_disk(table, tmp_path / "index", restart=restart)

    assert same(to_disk(table, tmp_path / "index", before=second), in_memory(table))
    assert refused and os.listdir(tmp_path) == ["index"]


def test_a_lock_that_its_holder_removed_meanwhile_keeps_nobody_out(table, tmp_path, monkeypatch):
    """So who gets it does not build: a third may hold the lock that stands there by now."""

    def removed_first(lock, operation):
        Path(lock.name).unlink()

    monkeypatch.setattr(fcntl, "flock", removed_first)
    with pytest.raises(ValueError, match="another process builds in"):
        to_disk(table, tmp_path / "index")


def test_a_journal_alone_is_what_is_left_of_a_build(table, tmp_path):
    work = tmp_path / ".index.building"
    work.mkdir()
    (work / JOURNAL).write_text("{}")
    assert same(to_disk(table, tmp_path / "index"), in_memory(table))


@pytest.mark.parametrize("name", [JOB, JOURNAL])
def test_a_damaged_journal_is_refused(table, tmp_path, name):
    with pytest.raises(RuntimeError):
        to_disk(table, tmp_path / "index", before=stop_at(9))
    (tmp_path / ".index.building" / name).write_text("[")
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        to_disk(table, tmp_path / "index")
    assert same(to_disk(table, tmp_path / "index", restart=True), in_memory(table))


def test_a_finished_index_is_replaced_only_when_the_next_is_whole(table, tmp_path):
    old = to_disk(table, tmp_path / "index")
    with pytest.raises(RuntimeError):
        to_disk(table + 1, tmp_path / "index", before=stop_at(9))
    assert same(SparseInvertedIndex.load(tmp_path / "index"), in_memory(table))
    to_disk(table + 1, tmp_path / "index")
    assert same(SparseInvertedIndex.load(tmp_path / "index"), in_memory(table + 1))
    assert same(old, in_memory(table))  # still mapped


def test_a_full_disk_is_told_and_overcome(table, tmp_path, monkeypatch):
    write, written = storage.GrowingArray.append, []

    def full(self, array):
        written.append(1)
        if len(written) == 13:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, array)

    with monkeypatch.context() as patched:
        patched.setattr(storage.GrowingArray, "append", full)
        with pytest.raises(OSError, match="index could not be written: No space left") as caught:
            to_disk(table, tmp_path / "index")
    assert caught.value.errno == errno.ENOSPC
    assert same(to_disk(table, tmp_path / "index"), in_memory(table))


def test_bad_scores_are_refused_and_nothing_of_them_is_kept(table, tmp_path):
    broken = table.copy()
    broken[10, 3] = np.nan
    with pytest.raises(ValueError, match="score of code 10 and item 4 is nan"):
        to_disk(broken, tmp_path / "index")
    assert same(to_disk(table, tmp_path / "index"), in_memory(table))


@pytest.mark.parametrize("options", [{}, {"max_postings": 200}])
def test_memory_stays_within_what_is_stated(rng, tmp_path, options):
    """64 MB of postings through blocks of 1 MiB."""
    n_codes, n_items, block_bytes = 400, 20_000, 1 << 20
    noise = rng.random(n_items + n_codes).astype(np.float32) + 1

    class Scorer:
        def scores(self, codes):
            return np.stack([noise[code : code + n_items] for code in codes])

    arguments = (np.arange(n_codes), n_items)
    options = {"relu": True, "progress": False, "block_bytes": block_bytes, **options}
    build_to_disk(Scorer(), arguments[0][:20], n_items, tmp_path / "compiled", **options)
    tracemalloc.start()
    index = build_to_disk(Scorer(), *arguments, tmp_path / "index", **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 3 * block_bytes + 64 * n_codes + (16 << 20)
    assert peak <= 5 * block_bytes  # the 16 MB are for small things: buffers, JSON, a bar
    assert len(index.items) == n_codes * options.get("max_postings", n_items)
