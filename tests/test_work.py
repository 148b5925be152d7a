"""The command line: flags, refusals, and a small run from nothing to the index."""

import csv
import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import models
import work
from errors import UserError
from metric import evaluate
from models.items import ItemTable
from retrieval import ArrayLibrary
from runs import Run, saved_index
from work import Hyperparameters, check, main, parse

SMALL = """--dataset sample --epoch 3 --pretrain_epoch 1 --hidden 16 --interaction_hidden 4 --embedding_size 8
    --encoder DNN --token_embedding_size 8 --num_codebooks 2 --K_c 16 --positions_per_user 10 --neg_num 64 --lr 0.02
    --batch_size 128 --inference_batch_size 256 --topk 5,20 --monitor recall@20""".split()  # noqa: SIM905


def test_every_flag_is_read_and_nothing_else():
    """Twenty flags of the release are never read."""
    flags = "--lr 0.5 --hidden 8,4 --score_bias -2 --resume 1 --exclude_seen 0"
    h, command, given = parse(flags.split())
    assert (h.lr, h.hidden, h.score_bias, h.exclude_seen) == (0.5, (8, 4), -2.0, False)
    assert command.resume and given == {"lr", "hidden", "score_bias", "exclude_seen"}
    assert parse(["--score_bias", "none"])[0].score_bias is None
    assert parse(["--max_postings", "7"])[0].max_postings == 7


def test_every_setting_is_read():
    """Twenty flags of the release are never read: a setting must be an argument of a part, or stand in the steps."""
    folder = Path(work.__file__).parent
    readers = (
        "workflow.py",
        "checks.py",
        "defaults.py",
        "training.py",
        "models/__init__.py",
        "report.py",
        "runs.py",
        "matcher.py",
        "work.py",
    )
    source = "".join((folder / name).read_text() for name in readers)
    kinds = [kind for registry in models.PARTS.values() for kind in registry.values() if inspect.isclass(kind)]
    taken = {name for kind in [*kinds, ItemTable] for name in models.arguments(kind)}
    for f in dataclasses.fields(Hyperparameters):
        assert f.name in taken or re.search(rf"\b(h|s|settings)\.{f.name}\b", source), f.name
    for f in dataclasses.fields(work.Command):
        assert f"command.{f.name}" in source, f.name


@pytest.mark.parametrize("arguments", ["--no_such_flag 1", "--lr fast", "--exclude_seen yes", "--epo 3"])
def test_unknown_flags_and_unreadable_values_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        parse(arguments.split())
    assert arguments.split()[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"lr": -1.0}, "--lr"),
        ({"lr": float("nan")}, "--lr"),
        ({"dropout": 1.0}, "--dropout"),
        ({"K_u": 0}, "--K_u"),
        ({"keep_share": 5.0}, "--keep_share"),
        ({"max_postings": 0}, "--max_postings"),
        ({"max_codes": 0}, "--max_codes"),
        ({"score_bias": float("nan")}, "--score_bias"),
        ({"topk": ()}, "--topk"),
        ({"index_codes": "some"}, "--index_codes"),
        ({"epoch": 5, "pretrain_epoch": 6}, "--pretrain"),
    ],
)
def test_values_out_of_range_are_refused_by_name(change, part):
    with pytest.raises(UserError, match=part):
        check(dataclasses.replace(Hyperparameters(), **change))


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    for f in [*dataclasses.fields(Hyperparameters), *dataclasses.fields(work.Command)]:
        assert f"--{f.name} " in text


def test_release_settings_run_by_naming_them():
    h = parse(["--epoch", "10", "--batch_size", "64", "--lr", "1e-4"])[0]
    assert h.pretrain_epoch is None  # until the data are known
    assert parse(["--epoch", "10", "--pretrain_epoch", "0"])[0].pretrain_epoch == 0


def test_the_preset_of_the_paper_is_what_it_states():
    """Its section 4 and the release's README and command line; flags override it."""
    h = parse(["--preset", "paper"])[0]
    assert (h.encoder, h.tokeniser, h.interaction, h.interaction_dot) == ("DNN", "heads", "DNN", False)
    assert (h.quantiser, h.num_codebooks, h.K_c, h.token_lookups) == ("product", 2, 256, 1)
    assert (h.neg_num, h.neg_power, h.loss, h.beta, h.ema_decay) == (10, 0.0, "softmax", 1.0, 0.99)
    assert (h.lr, h.lr_decay, h.batch_size, h.epoch, h.pretrain_epoch) == (1e-4, False, 64, 10, 0)
    assert not (h.wide or h.rotation or h.error_feedback or h.encoder_shortcut) and h.next_items == 1
    assert parse(["--preset", "paper", "--lr", "1e-3"])[0].lr == 1e-3


def test_who_stops_is_told_how_it_goes_on(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("experiments.run", stopped)
    assert main(["--experiment", "bias"]) == 130 and "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr("workflow.run", stopped)
    assert main([]) == 130 and "with --resume 1" in capsys.readouterr().err


def test_where_no_index_can_be_built_the_trained_model_is_tested_by_other_settings(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["--epoch", "1", "--token_lookups", "1", "--name", "mine"]
    assert main([*SMALL, *short, "--keep_share", "1e-9"]) == 2 and "raise keep_share" in capsys.readouterr().err
    test = ["--mode", "test", "--checkpoint", "runs/mine/best.ckpt"]
    assert main([*test, "--keep_share", "0.5"]) == 0 and "through the index" in capsys.readouterr().out


def test_small_run_from_nothing_to_recommendations(tmp_path, monkeypatch, capsys):
    """Train, evaluate the checkpoint again, show titles: same numbers, and every file the README names."""
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--index_loss", "none", "--wide", "0", "--name", "small"]) == 0
    trained = capsys.readouterr().out
    assert "through the index" in trained and "built-in sample" in trained
    folder = tmp_path / "runs" / "small"
    for name in ("config.json", "log.csv", "metrics.csv", "curves.png", "index", "best.ckpt", "last.ckpt"):
        assert (folder / name).exists(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "runs"]  # MindSpore leaves nothing

    def recall(run, path):
        with open(tmp_path / "runs" / run / "metrics.csv", encoding="utf-8") as file:
            rows = {(row["path"], row["metric"], row["k"]): row for row in csv.DictReader(file)}
        return float(rows[path, "recall", "20"]["mean"])

    first = recall("small", "index")
    assert first == pytest.approx(recall("small", "exhaustive"), abs=1e-9) and first > 0.05  # nothing was pruned
    test = ["--mode", "test", "--checkpoint", str(folder / "best.ckpt")]
    assert main(test) == 0
    assert recall("small-test", "index") == first
    assert main([*test, "--max_postings", "30", "--name", "pruned"]) == 0
    assert recall("pruned", "exhaustive") == pytest.approx(first, abs=1e-9) != recall("pruned", "index")
    assert main([*test, "--max_codes", "20", "--name", "warm"]) == 0  # what is left out is scored on demand
    about = json.loads((tmp_path / "runs" / "warm" / "index.json").read_text())
    assert about["codes"] == 20 and 0 < about["missing_share"] < 1
    assert recall("warm", "index") == pytest.approx(first, abs=1e-9)
    with monkeypatch.context() as patched:
        patched.setattr("matcher.Matcher.codes_in_use", lambda *_: np.array([7, 3]))
        assert main([*test, "--index_codes", "all", "--name", "every"]) == 0
    about = json.loads((tmp_path / "runs" / "every" / "index.json").read_text())
    assert about["codes"] == 16**2 and recall("every", "index") == pytest.approx(first, abs=1e-9)
    budget = 20_000
    assert main([*test, "--max_bytes", str(budget), "--index_format", "uint8", "--name", "compact"]) == 0
    about = json.loads((tmp_path / "runs" / "compact" / "index.json").read_text())
    assert about["format"] == "uint8" and 0.5 * budget < about["bytes"] <= budget
    assert "cost of the index, recall@20: -0." in capsys.readouterr().out
    assert main([*test, "--max_bytes", "10", "--name", "tiny"]) == 2 and "too few" in capsys.readouterr().err
    with monkeypatch.context() as patched:  # the path of --index_device gpu, on NumPy arrays
        patched.setattr("workflow.gpu_library", lambda: ArrayLibrary("numpy"))
        assert main([*test, "--index_device", "gpu", "--name", "arrays"]) == 0
    assert recall("arrays", "index") == pytest.approx(first, abs=1e-9)
    assert main([*test, "--name", "small"]) == 2  # a test never writes over a training run
    assert recall("small", "index") == first
    capsys.readouterr()
    with monkeypatch.context() as patched:  # the index stands; none is built for it
        patched.setattr("matcher.Matcher.build", lambda *_: pytest.fail("built"))
        recommend = ["--mode", "recommend", "--checkpoint", str(folder / "best.ckpt"), "--users", "1"]
        assert main(recommend) == 0 and " 10. " in (by_codes := capsys.readouterr().out)
        assert main([*recommend, "--rerank", "50"]) == 0 and " 10. " in (reranked := capsys.readouterr().out)
        assert main([*recommend, "--rerank", "7", "--topk", "5"]) == 0
        assert "  7. " in (fewer := capsys.readouterr().out) and "  8. " not in fewer
        patched.setattr("workflow.gpu_library", lambda: ArrayLibrary("numpy"))
        patched.setattr("workflow.saved_index", lambda place: saved_index(place).compact("uint8"))
        assert main([*recommend, "--index_device", "gpu"]) == 0 and " 10. " in capsys.readouterr().out
    assert by_codes != reranked
    assert main(["--mode", "export", "--checkpoint", str(folder / "best.ckpt")]) == 0
    assert (folder / "query.onnx").exists() and f"serve.py {folder}" in capsys.readouterr().out
    # The index is that of the best weights; codes of others mean nothing to it.
    assert main(["--mode", "export", "--checkpoint", str(folder / "last.ckpt")]) == 2
    assert "export the best.ckpt" in capsys.readouterr().err
    assert main([*SMALL, "--name", "small"]) == 2 and "runs/small exists" in capsys.readouterr().err


def test_flags_of_an_index_are_said_and_not_recorded_where_there_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--model", "TwoTower", "--epoch", "1", "--name", "two"]) == 0
    assert main(["--mode", "test", "--checkpoint", "runs/two/best.ckpt", "--max_postings", "5"]) == 0
    assert "note: --max_postings: not read by TwoTower" in capsys.readouterr().out
    with open("runs/two-test/metrics.csv", encoding="utf-8") as file:
        assert {row["max_postings"] for row in csv.DictReader(file)} == {""}


def test_look_ups_that_are_chosen_stay_with_the_run(tmp_path, monkeypatch, capsys):
    """Not by the settings: the checkpoint holds them."""
    monkeypatch.chdir(tmp_path)
    row = {f"{name} {what}": 0.0 for name in ("recall", "ndcg") for what in ("change", "p")} | {"ndcg@20": 0.5}
    judged = iter([(row, False), (row, True)])
    monkeypatch.setattr("workflow.cost", lambda *_: next(judged))
    assert main([*SMALL, "--num_codebooks", "1", "--epoch", "1", "--name", "open"]) == 0
    assert "16 codes; on validation users recall@20 +0.0000" in capsys.readouterr().out
    run = Run(tmp_path / "runs" / "open")
    assert run.settings.token_lookups is None and run.model.codes_per_user == 16
    found = evaluate(run.recommender(), run.data.test, (20,)).mean("recall", 20)
    assert found == pytest.approx(run.metrics("index").mean("recall", 20))


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--mode", "test"], "needs --checkpoint"),
        (["--mode", "dream"], "one of train"),
        (["--dataset", "sample", "--model", "SVD"], "one of TwoTower"),
        (["--dataset", "sample", "--split", "random"], "split"),
        (["--dataset", "sample", "--resume", "1", "--name", "nothing"], "no run"),
        (["--dataset", "sample", "--monitor", "auc@7"], "--monitor"),
        (["--dataset", "sample", "--topk", "50,5000"], "--topk 5000"),
        (["--rerank", "20"], "--rerank 20 is less"),
        (["--name", "../elsewhere"], "--name"),
        (["--users", "0"], "--users"),
        (["--device_target", "TPU"], "one of CPU, GPU, Ascend"),
        (["--index_device", "cuda"], "one of cpu, gpu"),
        (["--index_device", "gpu", "--index_format", "uint8"], "leave out --index_format"),
        (["--dataset", "mine", "--source", "nowhere.csv"], "nowhere.csv"),
    ],
)
def test_failures_are_one_sentence(arguments, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and part in said and "\n" not in said


def test_a_missing_gpu_is_said_before_any_data_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert main([*SMALL, "--index_device", "gpu"]) == 2
    said = capsys.readouterr()
    assert "torch is not installed, cupy is not installed" in said.err and "pip install torch" in said.err
    assert said.err.count("\n") == 1 and not said.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["GPU", "Ascend"])
def test_a_device_that_mindspore_lacks_is_said_before_any_data_is_read(target, tmp_path, monkeypatch, capsys):
    import mindspore as ms

    if ms._c_expression.MSContext.get_instance().is_pkg_support_device(target):
        pytest.skip(f"this MindSpore does have {target}")
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, "--device_target", target]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"error: --device_target {target}: MindSpore") and said.err.count("\n") == 1
    assert not said.out and not list(tmp_path.iterdir())
    assert ms.get_context("device_target") == "CPU"


def test_a_number_of_tokens_that_changes_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "sample", "--K_u", "8"]) == 2
    assert "--K_u 8 changes nothing: DQMatch with LiGR has one token" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--beta", "2"], "--beta changes nothing: the quantiser pursuit takes no part in training"),
        (["--quantiser", "pursuit", "--score_bias", "-1"], "the quantiser pursuit knows no ReLU of a score"),
        (["--quantiser", "pursuit", "--num_codebooks", "2"], "the quantiser pursuit has one codebook, not 2"),
    ],
)
def test_what_pursuit_cannot_be_is_refused(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "sample", *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags", [["--interaction", "DNN"], ["--score_bias", "0.5"]])
def test_what_a_two_tower_model_cannot_be_is_refused(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "sample", "--model", "TwoTower", *flags]) == 2
    assert f"{' '.join(flags)} changes nothing: a score of TwoTower is a product" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--seeds", "0,1"],
        ["--quick", "1"],
        ["--users", "5"],
        ["--history", "1"],
        ["--mode", "test", "--checkpoint", "x", "--preset", "paper"],
        ["--mode", "test", "--checkpoint", "x", "--resume", "1"],
    ],
)
def test_what_a_mode_has_no_use_for_is_refused(flags, capsys):
    assert main(flags) == 2
    assert f"{flags[-2]} changes nothing here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--topk", "5,50"], ""),
        (["--topk", "10"], ""),
        (["--lr", "0.1", "--topk", "5,50", "--K_c", "9"], "note: --K_c, --lr: not read by GlobalHot; nothing changes"),
    ],
)
def test_flags_that_change_nothing_are_named(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "sample", "--model", "GlobalHot", "--name", "hot", *flags]) == 0
    out = capsys.readouterr().out
    assert said in out and ("not read by" in out) == bool(said)


@pytest.mark.parametrize("flags", [["--wide", "0"], ["--model", "TwoTower", "--wide", "1"]])
def test_too_few_users_to_compare_are_said_before_a_run_folder_is_made(flags, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"{user},{(7 * user + item) % 30},{1000 + item}" for item in range(20) for user in range(10)]
    (tmp_path / "ten.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    small = ["--dataset", "ten", "--source", "ten.csv", "--encoder", "DNN", "--batch_size", "8", "--topk", "5"]
    assert main([*small, *flags]) == 2
    assert "there is 1 validation user" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_user_with_several_queries_is_one_of_too_few(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lengths = {user: 15 if user == 7 else 6 for user in range(60)}  # whose three last are asked for: of user 7 alone
    rows = [f"{user},{(7 * user + item) % 30},{item}" for user, length in lengths.items() for item in range(length)]
    (tmp_path / "one.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    assert main(["--dataset", "one", "--source", "one.csv", "--split", "last-3", "--topk", "5"]) == 2
    assert "there is 1 validation user" in capsys.readouterr().err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("model", ["DQMatch", "TwoTower", "AllToAll"])
def test_too_few_samples_are_said_before_a_run_folder_is_made(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "sample", "--encoder", "DNN", "--model", model, "--batch_size", "1000000"]) == 2
    assert "less than one batch" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
