"""Prepared folders under concurrency, kills, damage, and those of the version before."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.prepare import prepare
from data.prepared import being_prepared
from errors import UserError
from load_csv_dataset import load_catalogue, load_queries, load_training

ROOT = Path(__file__).parents[2]
LOAD = """
import hashlib, sys
from data.prepare import prepare
from load_csv_dataset import load_catalogue, load_queries, load_training

source, out, split, seed = sys.argv[1:]
prepared = prepare("mine", source, out, split, int(seed))
n_items = load_catalogue(prepared.folder).n_items
digest = hashlib.sha256(load_training(prepared.folder / "data.csv", n_items).sequences.values.tobytes())
for name in ("valid.csv", "test.csv"):
    queries = load_queries(prepared.folder / name, n_items)
    digest.update(queries.histories.values.tobytes() + queries.targets.values.tobytes())
print(prepared.folder.name.rsplit("-", 1)[0], digest.hexdigest())
"""
RACE = [("user", 0), ("user", 1), ("leave-one-out", 0), ("user", 0), ("last-3", 0), ("user", 1)]


@pytest.fixture
def interactions(tmp_path) -> Path:
    """300 users with 10 to 29 of 50 items."""
    lines = (f"u{u},i{(u * 7 + 3 * p) % 50},{p}\n" for u in range(300) for p in range(10 + u % 20))
    path = tmp_path / "interactions.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(dict.fromkeys(lines)))
    return path


def start(interactions, out, split, seed) -> subprocess.Popen:
    command = [sys.executable, "-c", LOAD, str(interactions), str(out), split, str(seed)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(processes) -> list[str]:
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return [out.splitlines()[-1] for out, _ in outputs]


def test_parallel_runs_with_different_splits_do_not_mix(tmp_path, interactions):
    out = tmp_path / "out"
    found = results([start(interactions, out, *settings) for settings in RACE])
    alone = [results([start(interactions, tmp_path / "alone", *settings)])[0] for settings in dict.fromkeys(RACE)]
    assert dict(line.split() for line in found) == dict(line.split() for line in alone)
    assert [line.split()[0] for line in found] == [f"{split}-{seed}" for split, seed in RACE]
    assert len(set(alone)) == len(set(RACE))
    assert len(list((out / "mine").iterdir())) == len(set(RACE))  # nothing is left behind


def test_the_slower_of_two_uses_the_folder_of_the_faster(tmp_path):
    folder = tmp_path / "mine" / "user-0-x"
    with being_prepared(folder) as slow:
        (slow / "dataset.json").write_text("slow")
        with being_prepared(folder) as fast:
            (fast / "dataset.json").write_text("fast")
    assert (folder / "dataset.json").read_text() == "fast"
    assert list(folder.parent.iterdir()) == [folder]


def test_failure_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), being_prepared(tmp_path / "mine" / "user-0-x") as new:
        (new / "data.csv").write_text("half")
        raise KeyboardInterrupt
    assert list((tmp_path / "mine").iterdir()) == []


def test_what_stands_in_the_way_is_not_replaced(tmp_path):
    folder = tmp_path / "mine" / "user-0-x"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="user-0-x failed"), being_prepared(folder) as new:
        (new / "dataset.json").write_text("{}")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


HOLD = """
import sys, time
from pathlib import Path
from data.prepared import being_prepared

with being_prepared(Path(sys.argv[1])) as new:
    (new / "data.csv").write_text("half")
    print(new, flush=True)
    time.sleep(60)
"""


def test_leftovers_of_the_dead_are_cleaned_those_of_the_living_are_not(tmp_path):
    parent = tmp_path / "mine"
    command = [sys.executable, "-c", HOLD, str(parent / "user-0-x")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    left = Path(process.stdout.readline().strip())
    foreign = [parent / ".preparing-mine", parent / ".hidden"]
    for path in foreign:
        path.mkdir()
        (path / "notes.txt").write_text("mine")
    long_ago, just_now = parent / ".new-dead", parent / ".new-born"
    for path in (long_ago, just_now):
        path.mkdir()
    os.utime(long_ago, (0, 0))
    with being_prepared(parent / "user-1-x") as new:
        (new / "dataset.json").write_text("{}")
    assert (left / "data.csv").exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with being_prepared(parent / "user-2-x") as new:
        (new / "dataset.json").write_text("{}")
    assert not left.exists() and not long_ago.exists()
    just_now.rmdir()
    assert {path.name for path in parent.iterdir()} == {"user-1-x", "user-2-x", ".preparing-mine", ".hidden"}
    assert all((path / "notes.txt").exists() for path in foreign)


def test_killed_preparation_leaves_nothing_half_done(tmp_path, interactions):
    out, moments = tmp_path / "out", 6
    process = start(interactions, tmp_path / "timed", "user", 0)
    begun = time.perf_counter()
    expected = results([process])
    whole = time.perf_counter() - begun
    for moment in range(moments):
        process = start(interactions, out, "user", 0)
        time.sleep(whole * (0.5 + 0.5 * moment / moments))
        process.kill()
        process.communicate()
    assert results([start(interactions, out, "user", 0)]) == expected
    names = [path.name for path in (out / "mine").iterdir()]
    assert len(names) == 1 and names[0].startswith("user-0-")


@pytest.mark.parametrize("name", ["data.csv", "valid.csv", "test.csv", "items.csv"])
def test_what_is_loaded_is_one_preparation(tmp_path, interactions, name):
    folder = prepare("mine", interactions, tmp_path / "out").folder
    other = prepare("mine", interactions, tmp_path / "out", seed=1).folder

    def load():
        n_items = load_catalogue(folder).n_items
        load_training(folder / "data.csv", n_items)
        for part in ("valid.csv", "test.csv"):
            load_queries(folder / part, n_items)

    load()
    content = (other / name).read_bytes()
    (folder / name).write_bytes(content if name != "items.csv" else content.replace(b"i1,", b"i-1,"))
    with pytest.raises(
        UserError, match=f"{name} is not the file that .*dataset.json describes.* delete .* prepared anew"
    ):
        load()
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load()


def old_layout(folder: Path) -> dict[str, bytes]:
    """Moves a prepared folder to where the version before wrote it; gives the contents."""
    about = json.loads((folder / "dataset.json").read_text())
    about |= {"format": 1}
    del about["users_sha256"], about["files"]["users.csv"]
    (folder / "dataset.json").write_text(json.dumps(about))
    (folder / "users.csv").unlink()
    for path in folder.iterdir():
        path.rename(folder.parent / path.name)
    folder.rmdir()
    return {path.name: path.read_bytes() for path in folder.parent.iterdir()}


def test_no_lock_no_loss(tmp_path, monkeypatch):
    """A file system without locks: nothing is cleaned, for nobody can tell whether its process is gone."""
    left = tmp_path / "mine" / ".preparing-x"
    left.mkdir(parents=True)

    def refuse(*_):
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("data.disk.fcntl.flock", refuse)
    with being_prepared(tmp_path / "mine" / "user-0-x") as new:
        (new / "dataset.json").write_text("{}")
    assert {path.name for path in left.parent.iterdir()} == {".preparing-x", "user-0-x"}
