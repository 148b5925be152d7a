"""Killed at any moment: what is there is whole, nothing is left behind, and going on gives the same digits."""

import itertools
import random
import shutil
import time
from pathlib import Path

import numpy as np

from data.prepare import prepare
from files import fresh
from retrieval import build_index, load_index
from runfolder import RunFolder


class Table:
    def __init__(self, seed):
        self.table = np.random.default_rng(seed).random((8, 30), np.float32)

    def scores(self, codes):
        return self.table[codes]


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_index_killed_at_every_change_of_the_disk_is_the_old_or_the_new_one(tmp_path, monkeypatch, killed_at):
    """Or, between two renames, none; the next to claim the folder cleans up and saves it as if nothing had been."""
    monkeypatch.chdir(tmp_path)
    old, new = (build_index(Table(seed), np.arange(8), 30, relu=False, progress=False) for seed in (0, 1))
    folder = tmp_path / "runs" / "x"
    old.save(folder / "index")
    new.save(tmp_path / "new")
    before, after = tree(folder / "index"), tree(tmp_path / "new")
    kept = folder / ".index.mine"
    kept.write_text("not ours")
    for point in itertools.count():
        killed = killed_at(point, lambda: new.save(folder / "index"))
        assert not (folder / "index").exists() or tree(folder / "index") in (before, after)
        with RunFolder.claim("x", True, False):
            assert hidden(folder) == [kept.name]
            new.save(folder / "index")
        assert tree(folder / "index") == after and len(load_index(folder / "index")) == 8
        if not killed:
            break
        old.save(folder / "index")
    assert point > 10


def test_a_file_killed_at_every_change_of_the_disk_is_the_old_or_the_new_one(tmp_path, monkeypatch, killed_at):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "x" / "metrics.csv"

    def write():
        with fresh(path, "w") as file:
            file.write("new")

    for point in itertools.count():
        with fresh(path, "w") as file:
            file.write("old")
        killed = killed_at(point, write)
        assert path.read_text() in (("old", "new") if killed else ("new",))
        with RunFolder.claim("x", True, False):
            assert hidden(path.parent) == []
        if not killed:
            break
    assert point > 2


def test_a_preparation_killed_at_every_change_of_the_disk_is_done_anew(tmp_path, source, killed_at):
    expected = tree(prepare("tiny", source, tmp_path / "alone").folder)
    for point in itertools.count():
        out = tmp_path / str(point)
        killed = killed_at(point, lambda out=out: prepare("tiny", source, out))
        folder = prepare("tiny", source, out).folder
        assert tree(folder) == expected
        assert [path for path in (out / "tiny").iterdir() if not path.name.startswith(".new-")] == [folder]
        if not killed:
            break
    assert point > 2


def test_a_run_killed_at_random_moments_goes_on_to_the_same_digits(finished, tmp_path, start, finish, digits, rounds):
    """Two kills a round, anywhere from the first import to the last metric."""
    folder, seconds = finished
    moments = random.Random(8)
    for number in range(rounds):
        name, place = f"killed{number}", tmp_path / "runs" / f"killed{number}"
        shutil.copytree(folder / "data", tmp_path / "data", dirs_exist_ok=True)
        for _ in range(2):
            process = start(tmp_path, "--name", name, "--seed", "0", *(["--resume", "1"] if place.exists() else []))
            time.sleep(seconds * moments.uniform(0.3, 0.9))
            process.kill()
            process.communicate()
        said = finish(start(tmp_path, "--name", name, "--seed", "0", *(["--resume", "1"] if place.exists() else [])))
        found, expected = digits(place), digits(folder / "runs" / "a")
        assert {key: found[key] == expected[key] for key in expected} == dict.fromkeys(expected, True), said
        assert hidden(place) == []


def test_an_export_killed_at_a_random_moment_is_done_anew(finished, tmp_path, start, finish, rounds):
    folder, seconds = finished
    moments = random.Random(9)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    run, flags = tmp_path / "runs" / "a", ("--mode", "export", "--checkpoint", "runs/a/best.ckpt")
    for _ in range(rounds):
        for name in ("query.onnx", "scorer.npz"):
            (run / name).unlink(missing_ok=True)
        process = start(tmp_path, *flags)
        time.sleep(seconds * moments.uniform(0.1, 0.6))
        process.kill()
        process.communicate()
        finish(start(tmp_path, *flags))
        assert tree(run) == tree(folder / "runs" / "a") and hidden(run) == []
