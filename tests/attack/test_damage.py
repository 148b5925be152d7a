"""Damaged and foreign files of a run: each is refused, none changes an answer silently."""

import json
import random
import shutil
from pathlib import Path

import mindspore as ms
import pytest

from config import read_config, settings_of
from errors import UserError
from files import content_digest
from retrieval.served import open_served
from runs import Data, Run, load_matcher
from training import load_checkpoint, save_checkpoint
from work import Hyperparameters, main

REFUSALS = (UserError, ValueError, OSError)
FILES = ["config.json", "best.ckpt", "wide.npz", "manifest.json", "query.onnx", "scorer.npz", "index/index.json"]
FILES += [f"index/{name}.npy" for name in ("codes", "offsets", "items", "scores", "floors")]
PER_FILE = 8  # damages, each round
SAME = {f"index/{name}.npy" for name in ("codes", "offsets", "items")}  # in two runs of one size with uncut lists


@pytest.fixture(scope="module")
def openers(finished):
    """openers(folder of a run, file of it) -> functions: each opens, in another way, what that file is part of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished[0])
        data = Data(settings_of("runs/a/best.ckpt", Hyperparameters(), set()))

    def trained(run: Path):
        load_matcher(settings_of(run / "best.ckpt", Hyperparameters(), set()), data, run / "best.ckpt")

    def indexed(run: Path):
        return Run(run, data=data).index

    def choose(name: str) -> list:
        if name in ("config.json", "best.ckpt", "wide.npz"):
            return [trained]
        if name.startswith("index"):
            return [indexed, open_served]
        return [trained, open_served] if name == "manifest.json" else [open_served]

    return choose


def damages(chance: random.Random, content: bytes, count: int):
    """What a disk, an editor or a broken copy may do to a file."""
    for number in range(count):
        kind, at = number % 4, chance.randrange(len(content))
        if kind == 0:  # a bit
            yield content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
        elif kind == 1:  # a piece that never reached the disk
            yield content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
        elif kind == 2:  # the end
            yield content[:at]
        else:  # a digit of text, or a byte of other files
            digits = [place for place in range(len(content)) if content[place : place + 1].isdigit()] or [at]
            at = chance.choice(digits)
            yield content[:at] + str(chance.randrange(10)).encode() + content[at + 1 :]


def says_the_same(one: bytes, other: bytes) -> bool:
    """Whether two texts are the same JSON, differently spelt."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return one == other


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused(name, damaged_run, openers, rounds):
    path, chance = damaged_run / name, random.Random(name)
    content = path.read_bytes()
    for open_it in openers(name):
        for number, damaged in enumerate(damages(chance, content, PER_FILE * rounds)):
            path.write_bytes(damaged)
            try:
                open_it(damaged_run)
            except REFUSALS as error:
                assert str(error), f"damage {number}"
            else:
                assert says_the_same(damaged, content), f"damage {number} of {name} was loaded silently"
        path.write_bytes(content)
        open_it(damaged_run)


@pytest.mark.parametrize("name", [*(name for name in FILES if name not in SAME), "index"])
def test_a_file_of_another_run_is_refused(name, damaged_run, openers, finished):
    other, path = finished[0] / "runs" / "b" / name, damaged_run / name
    if name == "index":
        shutil.copytree(other, path, dirs_exist_ok=True)
    else:
        shutil.copyfile(other, path)
    for open_it in openers(name):
        with pytest.raises(REFUSALS):
            open_it(damaged_run)


def test_an_export_does_not_vouch_for_the_index_of_another_run(damaged_run, finished, capsys):
    shutil.copytree(finished[0] / "runs" / "b" / "index", damaged_run / "index", dirs_exist_ok=True)
    before = (damaged_run / "manifest.json").read_bytes()
    assert main(["--mode", "export", "--checkpoint", f"{damaged_run}/best.ckpt"]) == 2
    assert "index.json is damaged or of another run" in capsys.readouterr().err
    assert (damaged_run / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("name", ["last.ckpt", "first_phase.ckpt"])
def test_a_run_does_not_go_on_from_the_checkpoint_of_another(name, damaged_run, finished):
    load_checkpoint(damaged_run / name, [])
    shutil.copyfile(finished[0] / "runs" / "b" / name, damaged_run / name)
    with pytest.raises(UserError, match=f"{name} is of another run than the config.json beside it"):
        load_checkpoint(damaged_run / name, [])


def test_another_checkpoint_of_the_same_run_is_not_its_best(damaged_run, openers):
    """It is whole and of this run, but of another epoch; or from before the quantiser."""
    path = damaged_run / "best.ckpt"
    progress = load_checkpoint(path, [])
    progress.epoch += 1
    stored = ms.load_checkpoint(str(path))
    save_checkpoint(path, [stored[name] for name in stored if name not in ("progress", "sha256")], progress)
    assert load_checkpoint(path, []).epoch == progress.epoch
    with pytest.raises(UserError, match="best.ckpt is damaged or of another run"):
        openers("best.ckpt")[0](damaged_run)
    shutil.copyfile(damaged_run / "first_phase.ckpt", path)
    with pytest.raises(UserError, match="before the quantiser started"):
        openers("best.ckpt")[0](damaged_run)


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "best.ckpt", "wide.npz", "index/index.json"])
@pytest.mark.parametrize("instead", ["nothing", "folder", "null", "[]"])
def test_something_else_in_its_place_is_refused(name, instead, damaged_run, openers):
    path = damaged_run / name
    path.unlink()
    if instead == "folder":
        path.mkdir()
    elif instead != "nothing":
        path.write_text(instead)
    for open_it in openers(name):
        with pytest.raises(REFUSALS):
            open_it(damaged_run)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"data": None}, "data must be objects"),
        ({"data": ...}, "cannot be read"),
        ({"hyperparameters": []}, "must be objects"),
        ({"K_u": 4.0}, "--K_u is 4.0"),
        ({"K_u": True}, "--K_u is 1"),
        ({"dataset": None}, "--dataset is"),
        ({"hidden": [[1]]}, "--hidden"),
        ({"version": 0}, "is of version 0"),
        ({"version": 1.5}, "is of version 1.5"),
        ({"version": 99}, "is of version 99"),
        ({"split_seed": 7}, "of another run"),
    ],
)
@pytest.mark.parametrize("signed", [True, False])
def test_config_json_that_makes_no_sense_is_a_sentence(change, part, signed, damaged_run):
    """With another's checksum it was changed; signed anew, the values themselves are refused, and what is a value all
    the same is refused by the checkpoint, which knows the checksum of its config.json."""
    path, content = damaged_run / "config.json", read_config(damaged_run / "config.json")
    (name, value), where = next(iter(change.items())), content
    where = content["hyperparameters"] if name in content["hyperparameters"] else content
    where[name] = value
    if value is ...:
        del where[name]
    if not signed:
        part = f"{part}|was changed after the run"
    content["sha256"] = content_digest(content) if signed else "0" * 64
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=part):
        settings_of(damaged_run / "best.ckpt", Hyperparameters(), set())
        load_checkpoint(damaged_run / "best.ckpt", [])
