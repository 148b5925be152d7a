"""The serving benchmark says what differs, and times every held-out user."""

import shutil

import numpy as np

import work
from benchmarks import serving


def test_it_counts_codes_that_differ(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert work.main(["--mode", "export", "--checkpoint", "runs/DQMatch/best.ckpt"]) == 0
    capsys.readouterr()
    serving.main(["runs/DQMatch", "--k", "20"])
    said = capsys.readouterr().out
    assert "0 of 4,800 codes of 400 held-out users differ" in said.splitlines()
    assert "all codes in the index" in said

    shutil.copytree("runs/DQMatch", "runs/wrong")
    monkeypatch.setattr(serving.OnnxQuery, "codes", lambda *_: np.zeros((1, 12), np.int64))
    serving.main(["runs/wrong", "--k", "20"])
    assert not capsys.readouterr().out.startswith("0 of")
