"""Random flags: a run, or one sentence; never a traceback, never a silent zero."""

import csv
import dataclasses
import random
from pathlib import Path

import pytest

import work
from errors import UserError

PARSED, RUN = 300, 2  # combinations, each round
ODD = ["", "0", "-1", "1", "2", "4.0", "0.5", "nan", "inf", "-inf", "1e309", "-1e400", "none", "None", "x", "1,2", ","]
ODD += ["0,1", "1,,2", "9" * 30, "4294967296", "-0", "1e-320", "True", "../x", "a b", "\x00", "\x1b[2J", "²", "٣"]
REAL = {  # values that may be valid together or may not
    "model": ["DQMatch", "AllToAll", "TwoTower", "GlobalHot", "ItemCF", "EASE"],
    "encoder": ["DNN", "LiGR", "SASRec", "GRU4Rec"],
    "tokeniser": ["none", "segments", "windows", "heads", "whole"],
    "interaction": ["DNN", "MoL", "cosine", "CrossNet"],
    "interaction_hidden": ["4", "4,4", ""],
    "K_u": ["1", "3", "4"],
    "K_i": ["1", "3"],
    "K_c": ["1", "2", "64", "100000"],
    "num_codebooks": ["1", "2", "3", "9"],
    "quantiser": ["residual", "product", "pursuit", "none"],
    "score_bias": ["none", "0", "-2", "-1000", "1000"],
    "loss": ["softmax", "BCE", "gBCE", "CCL", "bpr"],
    "negatives": ["popular", "own", "in-batch", "mixed", "all", "hard"],
    "lr": ["1e-9", "0.02", "1e6"],
    "embedding_std": ["0", "0.1", "1e10", "1e30"],
    "neg_power": ["0", "1", "63"],
    "wide": ["0", "1", "none"],
    "batch_size": ["2", "64", "1000000"],
    "epoch": ["1", "2", "4"],
    "pretrain_epoch": ["0", "1", "none"],
    "seed": ["0", "4294967295"],
    "split": ["user", "leave-one-out"],
    "topk": ["1", "5,20", "20,5", "5000"],
    "index_codes": ["used", "all"],
    "max_codes": ["1", "10"],
    "max_postings": ["1", "1000"],
    "keep_share": ["1e-6", "0.5", "1"],
    "max_bytes": ["10", "5000", "1000000"],
    "index_format": ["float32", "uint8", "none"],
    "exclude_seen": ["0", "1"],
    "seq_len": ["1", "50"],
}
SMALL = {"dataset": "tiny", "epoch": "2", "hidden": "8", "interaction_hidden": "4", "embedding_size": "8"}
SMALL |= {"token_embedding_size": "8", "K_c": "8", "neg_num": "16", "batch_size": "64", "topk": "5,20"}
SMALL |= {"monitor": "recall@20", "index_loss": "none", "positions_per_user": "5"}


def test_flags_are_read_or_refused_in_a_sentence(rounds, capsys):
    chance = random.Random(12)
    names = [f.name for kind in (work.Command, work.Hyperparameters) for f in dataclasses.fields(kind)]
    good = {f.name: str(work._shown(f.default)) for f in dataclasses.fields(work.Hyperparameters)}
    accepted = 0
    for _ in range(PARSED * rounds):
        chosen = chance.sample(names, chance.randint(1, 5))
        flags = [f"--{name}={chance.choice([*ODD, good.get(name, 'x')])}" for name in chosen]
        try:
            h, command, _ = work.parse(flags)
            work.check(h)
            accepted += 1
        except UserError as error:
            assert str(error).count("\n") == 0, flags
        except SystemExit as ended:
            assert ended.code == 2 and "error: argument" in capsys.readouterr().err, flags
    assert accepted > PARSED * rounds // 30  # the most are refused


def test_a_run_with_random_flags_ends_in_numbers_or_a_sentence(rounds, source, tmp_path, monkeypatch, capfd):
    chance = random.Random(13)
    monkeypatch.chdir(tmp_path)
    for number in range(RUN * rounds):
        changed = {name: chance.choice(REAL[name]) for name in chance.sample(sorted(REAL), 5)}
        flags = [f"--{name}={value}" for name, value in (SMALL | changed).items()]
        status = work.main([*flags, "--source", str(source), "--name", f"run{number}"])
        said = capfd.readouterr()
        assert status in (0, 2), (flags, said.err)
        if status == 2:
            assert said.err.splitlines()[-1].startswith("error: ") and "Traceback" not in said.err, (flags, said.err)
            continue
        with open(Path("runs") / f"run{number}" / "metrics.csv", encoding="utf-8") as file:
            means = [float(row["mean"]) for row in csv.DictReader(file)]
        assert any(means) or "WARNING: worse than" in said.out, flags


@pytest.mark.parametrize("error", [RuntimeError("two\nlines\x1b[2J"), ZeroDivisionError(), MemoryError("8 GiB")])
def test_the_unforeseen_is_a_sentence_and_a_file(error, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr("workflow.run", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert work.main(["--dataset", "sample"]) == 1
    said = capsys.readouterr().err
    (log,) = tmp_path.iterdir()
    assert said.startswith(f"error: unforeseen {type(error).__name__}") and said.count("\n") == 1
    assert str(log) in said and f"raise error\n{type(error).__name__}" in log.read_text() and "\x1b" not in said


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--max_bytes", "10"], "--max_bytes 10 is too few: "),
        (
            ["--max_bytes", "1500", "--index_codes", "all", "--wide", "0", "--num_codebooks", "2"],
            "64 lists of a posting each take",
        ),
    ],
)
def test_too_few_bytes_are_said_before_training(flags, part, source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = [f"--{name}={value}" for name, value in SMALL.items()]
    assert work.main([*small, *flags, "--source", str(source), "--name", "x"]) == 2
    assert part in capsys.readouterr().err and not (tmp_path / "runs").exists()
