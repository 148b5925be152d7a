"""A run whose first phase is that of another takes it over; see `runs.first_phase`."""

import csv
import shutil

import pytest

import work


def log(folder):
    with open(folder / "log.csv") as file:
        return list(csv.DictReader(file))


def test_a_run_takes_over_what_its_quantiser_has_no_part_in(trained, small, monkeypatch):
    monkeypatch.chdir(trained)
    assert work.main([*small, "--quantiser", "product", "--name", "taken", "--trained", "runs/DQMatch"]) == 0
    before, after = log(trained / "runs/DQMatch"), log(trained / "runs/taken")
    assert before[0] == after[0] and before[1] != after[1]
    assert (trained / "runs/taken/metrics.csv").exists()


def test_a_causal_two_tower_model_gives_all_its_epochs_to_a_quantiser(small, monkeypatch, tmp_path):
    """Its first phase has every epoch, so nothing is saved after it."""
    monkeypatch.chdir(tmp_path)
    without = slice(small.index("--pretrain_epoch"), small.index("--hidden"))
    causal = [*small[: without.start], *small[without.stop :], *["--encoder", "SASRec", "--att_layer", "1"]]
    assert work.main([*causal, "--model", "TwoTower", "--wide", "0", "--name", "tokens"]) == 0
    assert work.main([*causal, "--wide", "0", "--name", "taken", "--trained", "runs/tokens"]) == 0
    assert len(log(tmp_path / "runs/tokens")) == 2 and log(tmp_path / "runs/taken") == log(tmp_path / "runs/tokens")
    assert (tmp_path / "runs/taken/metrics.csv").exists()


def test_a_run_without_a_first_phase_is_refused_before_a_folder_is_made(trained, small, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(trained)
    for name in ("config.json", "last.ckpt"):
        shutil.copy(trained / "runs/DQMatch" / name, tmp_path)
    assert work.main([*small, "--name", "refused", "--trained", str(tmp_path)]) == 2
    assert "it holds no first_phase.ckpt" in capsys.readouterr().err and not (trained / "runs/refused").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--lr", "0.03", "--seed", "1"], "was trained with other lr, seed"),
        (["--model", "TwoTower"], "was trained with other tokeniser;"),
        (["--model", "EASE"], "EASE is fitted, not trained"),
        (["--split", "leave-one-out"], "was trained with other data"),
        (["--mode", "test", "--checkpoint", "x"], "--trained changes nothing here"),
        (["--trained", "runs/NONE"], "config.json cannot be read"),
    ],
)
def test_another_first_phase_is_refused_before_a_folder_is_made(flags, said, trained, small, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    assert work.main([*small, "--name", "refused", "--trained", "runs/DQMatch", *flags]) == 2
    assert said in capsys.readouterr().err and not (trained / "runs/refused").exists()
