"""Folders of runs: who may train in one, what of it is kept, and what a baseline leaves in it."""

from types import SimpleNamespace

import pytest

import models
from config import BEST
from errors import UserError
from retrieval.served import QUERY, SCORER, read_manifest
from runfolder import LAST, RUNS, TRAINED, WIDE, RunFolder, tie
from runs import saved_metrics
from work import main


def test_a_new_run_neither_keeps_nor_signs_what_another_exported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = RUNS / "mine"
    folder.mkdir(parents=True)
    for name in (WIDE, QUERY, SCORER):
        (folder / name).touch()
    with RunFolder.claim("mine", True, False):
        assert [path.name for path in folder.iterdir()] == [".lock"]
    for name in (BEST, QUERY):  # exported of an epoch before the last
        (folder / name).touch()
    tie(folder, SimpleNamespace(item_keys=None, model=models.TwoTower), TRAINED)
    read_manifest(folder, [BEST])
    with pytest.raises(ValueError, match=QUERY):
        read_manifest(folder, [QUERY])


def test_the_latest_run_that_has_not_ended_is_resumed_where_nobody_named_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def resumed():
        with RunFolder.claim("usual", False, True) as folder:
            return folder.path.name

    for name in ("usual", "usual-2", "usual-10", "usual-test", "usual-11"):
        (RUNS / name).mkdir(parents=True)
    for name in ("usual", "usual-2", "usual-10", "usual-test"):
        (RUNS / name / LAST).touch()
    assert resumed() == "usual-10"
    (RUNS / "usual-10" / "metrics.csv").touch()
    assert resumed() == "usual-2"
    for name in ("usual", "usual-2"):
        (RUNS / name / "metrics.csv").touch()
    assert resumed() == "usual-10"
    with RunFolder.claim("usual", True, True) as folder:
        assert folder.path == RUNS / "usual"


def test_a_baseline_needs_no_batch_and_leaves_no_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"u{user},i{(user + step) % 9},{step}\n" for user in range(20) for step in range(8)]
    (tmp_path / "few.csv").write_text("user_id,item_id,timestamp\n" + "".join(lines))
    flags = "--model GlobalHot --dataset few --source few.csv"
    assert main([*flags.split(), "--topk", "1,50"]) == 2 and "--topk 50 is more than" in capsys.readouterr().err
    assert main(flags.split()) == 0
    assert saved_metrics(RUNS / "GlobalHot-few").topk == (1, 5)  # of nine items
    before = (tmp_path / "runs" / "GlobalHot-few" / "metrics.csv").read_text()
    assert main([*flags.split(), "--exclude_seen", "0"]) == 0  # without a name it takes a folder of its own
    assert (tmp_path / "runs" / "GlobalHot-few" / "metrics.csv").read_text() == before
    assert (tmp_path / "runs" / "GlobalHot-few-2" / "metrics.csv").exists()
    folder = "runs/GlobalHot-few"
    for checkpoint, why in ((f"{folder}/best.ckpt", "leaves no checkpoint"), (folder, "is a folder")):
        assert main(["--mode", "test", "--checkpoint", checkpoint]) == 2 and why in capsys.readouterr().err
    config = ["--checkpoint", f"{folder}/config.json"]
    assert main(["--mode", "test", *config]) == 2 and "leaves no checkpoint" in capsys.readouterr().err
    assert main(["--mode", "recommend", *config]) == 0 and "  1. item i" in capsys.readouterr().out


def test_a_named_baseline_is_repeated_and_never_replaced_by_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, users in (("few", 20), ("more", 30)):
        lines = [f"u{user},i{(user + step) % 9},{step}\n" for user in range(users) for step in range(8)]
        (tmp_path / f"{name}.csv").write_text("user_id,item_id,timestamp\n" + "".join(lines))
    flags = ["--model", "GlobalHot", "--dataset", "few", "--source", "few.csv", "--name", "mine"]
    assert main(flags) == 0 and main(flags) == 0
    before = (tmp_path / "runs" / "mine" / "metrics.csv").read_bytes()
    capsys.readouterr()
    for other in (["--model", "Markov"], ["--source", "more.csv"]):
        for resume in ([], ["--resume", "1"]):
            assert main([*flags, *other, *resume]) == 2 and "runs/mine exists" in capsys.readouterr().err
    assert (tmp_path / "runs" / "mine" / "metrics.csv").read_bytes() == before
    config = ["--mode", "recommend", "--checkpoint", "runs/mine/config.json"]
    assert main([*config, "--source", "more.csv"]) == 2 and "name the same data" in capsys.readouterr().err
    assert main([*config, "--source", "few.csv", "--name", "other"]) == 2
    assert "--name changes nothing here" in capsys.readouterr().err


def test_a_baseline_recommends_by_titles_and_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"u{user},i{(user + step) % 60},{step}\n" for user in range(80) for step in range(8)]
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "".join(lines))
    titles = "".join(f"i{item},Film {item}\n" for item in range(60))
    (tmp_path / "items.csv").write_text("item_id,title\n" + titles)
    assert main(["--model", "Markov", "--dataset", "few", "--source", ".", "--topk", "1,5"]) == 0
    asked = ["--mode", "recommend", "--checkpoint", "runs/Markov-few/config.json", "--history", "Film 3|Film 7"]
    assert main(asked) == 0
    said = capsys.readouterr().out.split("recommended:")[1].splitlines()
    first, why = said[1].split(), said[2].split()
    assert main([*asked, "--max_postings", "3"]) == 0
    assert "--max_postings: not read by Markov" in capsys.readouterr().out
    assert first[:3] == ["1.", "Film", "8"] and why == [first[3], "by", "Film", "7"]  # what always follows the last


def test_a_baseline_in_the_folder_of_a_test_leaves_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "old"
    (folder / "index").mkdir(parents=True)
    for name in ("per_user_index.npz", "index.json", "codebooks.json"):
        (folder / name).write_text("of the test")
    assert main(["--dataset", "sample", "--model", "GlobalHot", "--name", "old"]) == 0
    assert not list(folder.glob("*index*")) and not (folder / "codebooks.json").exists()
    assert saved_metrics(folder).mean("recall", 50) > 0
    damaged = folder / "per_user_exhaustive.npz"
    whole = damaged.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content in (b"", whole[:middle], b"x" + whole[1:], flipped):
        damaged.write_bytes(content)
        with pytest.raises(UserError, match="per_user_exhaustive.npz is damaged"):
            saved_metrics(folder)
    (folder / "index.json").write_text("{}")  # a run with an index, whose metrics are gone
    with pytest.raises(UserError, match="there is no .*per_user_index.npz"):
        saved_metrics(folder)
