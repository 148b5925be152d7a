"""The search benchmark on trained runs."""

import json

import pytest

from benchmarks import search_engines

FAST = "--threads 1 --seconds 0.01 --rounds 1 --k 20 --batch 300 --caps 50 300 5000".split()  # noqa: SIM905


def test_trained_runs_are_compared_on_the_same_users(trained, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    arguments = ["--sparcode", "runs/DQMatch", "--two_tower", "runs/TwoTower", "--json", "out.json"]
    search_engines.main([*FAST, *arguments])
    said = capsys.readouterr().out
    assert "200 test users" in said and "left out" in said
    assert "(fastest with no significant loss of R@20) / faiss Flat" in said
    assert "HNSW 0.95" in said and "target 3x" not in said  # that target is for large catalogues
    (result,) = json.loads((trained / "out.json").read_text())["results"]
    engines = {engine["name"]: engine for engine in result["engines"]}
    assert engines["faiss Flat"]["recall"] == pytest.approx(1, abs=1e-3)
    assert sum(name.startswith("index of") for name in engines) == 3  # 300 is what the index has already
    whole, cut = engines["index as it is float32"], engines["index of 50 float32"]
    assert cut["recall"] < whole["recall"] and cut["bytes"] < whole["bytes"]
    with open(trained / "runs" / "DQMatch" / "index.json") as file:
        assert whole["bytes"] == pytest.approx(json.load(file)["bytes"], rel=0.2)  # and the codes it lacked


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--sparcode", "runs/TwoTower", "--two_tower", "runs/TwoTower"], "name a run of DQMatch"),
        (["--sparcode", "runs/DQMatch", "--two_tower", "runs/nowhere"], "runs/nowhere"),
    ],
)
def test_a_wrong_run_is_one_sentence(arguments, part, trained, monkeypatch):
    monkeypatch.chdir(trained)
    with pytest.raises(SystemExit) as stopped:
        search_engines.main([*FAST, *arguments])
    assert str(stopped.value).startswith("error: ") and part in str(stopped.value)


def test_one_run_alone_is_refused(capsys):
    with pytest.raises(SystemExit):
        search_engines.main(["--sparcode", "runs/DQMatch"])
    assert "--two_tower together" in capsys.readouterr().err
