"""Truly parallel runs: nothing of one is found in another."""

import hashlib
import os
import random
import shutil
from collections.abc import Callable

import pytest

import work
from data.prepare import prepare
from errors import UserError
from load_csv_dataset import load_catalogue, load_queries, load_training
from runfolder import RunFolder

SPLITS = ("user", "leave-one-out", "last-3")
PAIRS = 8  # each round


def in_parallel(actions: list[Callable[[], str]]) -> list[str]:
    """What each action returns, each in a process of its own; all begin at the same moment, all end together."""
    begin, end = os.pipe(), os.pipe()
    children, answers = [], []
    for action in actions:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(begin[1]), os.close(end[1])
                os.read(begin[0], 1)  # until the parent closes its side
                os.write(write, action().encode())
                os.close(write)
                os.read(end[0], 1)
            finally:
                os._exit(0)
        os.close(write)
        children.append(child)
        answers.append(read)
    os.close(begin[0]), os.close(begin[1]), os.close(end[0])
    texts = [b"".join(iter(lambda read=read: os.read(read, 1 << 16), b"")).decode() for read in answers]
    os.close(end[1])
    for child in children:
        os.waitpid(child, 0)
    for read in answers:
        os.close(read)
    return texts


def loaded(source, out, split, seed) -> str:
    """A digest of all that a run with this split loads."""
    folder = prepare("tiny", source, out, split, seed).folder
    n_items = load_catalogue(folder).n_items
    digest = hashlib.sha256(load_training(folder / "data.csv", n_items).sequences.values.tobytes())
    for name in ("valid.csv", "test.csv"):
        queries = load_queries(folder / name, n_items)
        digest.update(queries.histories.values.tobytes() + queries.targets.values.tobytes())
    return digest.hexdigest()


def test_pairs_of_runs_with_different_splits_do_not_mix(tmp_path, source, rounds):
    chance = random.Random(11)
    settings = [(split, seed) for split in SPLITS for seed in range(2)]
    alone = {setting: loaded(source, tmp_path / "alone", *setting) for setting in settings}
    assert len(set(alone.values())) >= len(SPLITS)
    for number in range(PAIRS * rounds):
        pair, out = chance.sample(settings, 2), tmp_path / str(number)
        found = in_parallel([lambda each=each, out=out: loaded(source, out, *each) for each in pair])
        assert found == [alone[each] for each in pair], f"pair {number}: {pair}"
        names = [path.name for path in (out / "tiny").iterdir()]
        assert len(names) == 2 and not any(name.startswith(".") for name in names)


@pytest.mark.parametrize("named", [True, False])
def test_a_run_folder_has_one_owner(named, tmp_path, monkeypatch, rounds):
    """Of those who name it one gets it, the others a sentence; those who do not each get their own."""
    monkeypatch.chdir(tmp_path)
    held = []  # until the process ends

    def claim(name) -> str:
        try:
            held.append(RunFolder.claim(name, named, False))
        except UserError as error:
            return str(error)
        return str(held[0].path)

    for number in range(4 * rounds):
        found = in_parallel([lambda name=f"x{number}": claim(name)] * 4)
        owners = [text for text in found if not text.endswith(".")]
        assert len(set(owners)) == len(owners) == (1 if named else 4), found
        assert all("is being trained by another process" in text for text in found if text.endswith("."))


def test_nobody_writes_to_a_folder_that_is_held(finished, tmp_path, monkeypatch, capsys):
    """A test or an export while another process trains there is refused before it writes anything."""
    shutil.copytree(finished[0] / "data", tmp_path / "data")
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    checkpoint = ["--checkpoint", "runs/a/best.ckpt"]
    with RunFolder.hold(tmp_path / "runs" / "a"):
        assert RunFolder.hold(tmp_path / "runs" / "a") is None
        assert work.main(["--mode", "export", *checkpoint]) == 2
        assert "runs/a is being written by another process" in capsys.readouterr().err
    (tmp_path / "runs" / "b" / "last.ckpt").unlink()
    assert work.main(["--mode", "test", "--name", "b", *checkpoint]) == 2  # its best.ckpt stays what it is
    assert "runs/b exists" in capsys.readouterr().err
