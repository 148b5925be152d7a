"""Which runs an experiment trains, reuses, resumes and evaluates anew; work.py is a fake that trains in no time."""

import contextlib
import csv
import dataclasses
import json
import multiprocessing
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import experiments
import models
import work
from baselines import BASELINES
from data.prepare import Prepared
from data.ragged import Ragged
from errors import UserError
from experiments import results, runner, store
from experiments.experiment import Experiment
from metric import NAMES, Metrics, averaged, compare, file_of
from retrieval.interactions import INTERACTIONS
from training import FIRST_PHASE

USERS, TOPK = 30, (1, 5, 10, 20, 50)


class Work:
    """In place of work.py: notes what it is called with and leaves the files that a run leaves."""

    def __init__(self):
        self.calls, self.dies = [], 0

    def __call__(self, arguments, lock):
        flags = dict(zip(arguments[::2], arguments[1::2], strict=True))
        self.calls.append(flags)
        folder = Path("runs") / flags["--name"]
        folder.mkdir(parents=True, exist_ok=True)
        if "--checkpoint" not in flags:
            (folder / "last.ckpt").touch()
            (folder / FIRST_PHASE).touch()
        if self.dies:
            self.dies -= 1
            return 137
        (folder / "log.csv").write_text("epoch,loss\n1,2\n2,1\n")
        (folder / "index.json").write_text(json.dumps({"bytes": 10 * len(self.calls), "format": "uint8"}))
        values = {name: np.random.default_rng(len(self.calls)).random((USERS, len(TOPK))) for name in NAMES}
        np.savez(folder / file_of("index"), topk=np.array(TOPK), **values)
        halves = {name: value / 2 for name, value in values.items()}
        for path in ("wide alone", "exhaustive"):
            np.savez(folder / file_of(path), topk=np.array(TOPK), **halves)
        (folder / "metrics.csv").touch()
        return 0


@pytest.fixture
def trains(tmp_path, monkeypatch):
    """The fake, in a folder of its own with prepared data that take no preparation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.csv").write_text("user_id,items\n")

    def prepare(dataset, source, **options):
        return Prepared(tmp_path / "data", dataset, f"{dataset} of the test", "", {})

    store._prepared.cache_clear()
    monkeypatch.setattr(store, "prepare", prepare)
    monkeypatch.setattr(store, "call_work", fake := Work())
    yield fake
    store._prepared.cache_clear()


def other_value(f):
    """A value of a setting that is not its default."""
    if "choices" in f.metadata:
        others = [choice for choice in work._choices(f) if choice not in (f.default, "TwoTower")]
        return others[0] if others else None
    if isinstance(f.default, bool):
        return not f.default
    if isinstance(f.default, tuple):
        return (*f.default, 60)
    if isinstance(f.default, str):
        return {"monitor": "ndcg@50"}.get(f.name, f"other-{f.default}")
    if f.name == "rerank":
        return 50  # as many as are asked for
    return 0.25 if "float" in str(f.type) else max((f.default or 0) + 1, f.metadata.get("least", 0))


CHOICES = [f for f in dataclasses.fields(work.Hyperparameters) if other_value(f) is not None]


@pytest.mark.parametrize("f", CHOICES, ids=lambda f: f.name)
def test_any_setting_makes_another_run(trains, f):
    """In the old table --quantiser product printed the default's numbers."""
    default = store.finished({}, {}).folder
    assert store.finished({f.name: other_value(f)}, {}).folder != default
    assert store.finished({}, {f.name: other_value(f)}).folder != default
    trained = [call for call in trains.calls if "--checkpoint" not in call]
    assert len(trained) == 2 and trained[1][f"--{f.name}"] == store._text(other_value(f))


def test_a_finished_run_is_reused_however_its_settings_are_written(trains):
    first = store.finished({"K_u": 4}, {})
    again = store.finished({}, {"preset": "best", "lr": 0.003})
    assert len(trains.calls) == 1 and first == again and first.record["arguments"] == ["--K_u", "4"]
    assert {"key", "commit", "cores", "seconds", "resumed"} <= set(first.record)


def test_other_data_and_another_format_of_the_code_make_another_run(trains, monkeypatch):
    folders = [store.finished({}, {}).folder]
    Path("data/data.csv").write_text("user_id,items\n1,[2]\n")
    store._prepared.cache_clear()
    folders.append(store.finished({}, {}).folder)
    monkeypatch.setattr(store, "FORMAT", store.FORMAT + 1)
    folders.append(store.finished({}, {}).folder)
    assert len(set(folders)) == 3 == len(trains.calls)


def test_evaluations_share_one_training(trains):
    common = {"source": "x.csv", "topk": "5,50"}
    runs = [store.finished(common, varied) for varied in ({}, {"exclude_seen": 0}, {"max_postings": None}, {})]
    assert len(trains.calls) == 3
    assert {run.trained for run in runs} == {runs[0].folder} and len({run.folder for run in runs}) == 3
    checkpoint = str(runs[0].folder / "best.ckpt")
    assert (
        trains.calls[1].items()
        >= {
            "--mode": "test",
            "--checkpoint": checkpoint,
            "--source": "x.csv",
            "--exclude_seen": "0",
        }.items()
    )
    assert "--topk" not in trains.calls[1]  # config.json beside the checkpoint holds it
    assert trains.calls[2]["--max_postings"] == "none"
    assert runs[1].record["seconds"] == runs[0].record["seconds"]  # of training


def test_a_first_phase_is_taken_over_from_a_run_of_the_same(trains):
    first = store.finished({}, {"model": "TwoTower"})
    other = store.finished({}, {"model": "TwoTower", "seed": 1, "exclude_seen": 0})
    baseline = store.finished({}, {"model": "EASE"})
    taken = store.finished({}, {"model": "DQMatch", "K_c": 64}, [baseline, other, first])
    assert trains.calls[-1]["--trained"] == str(first.trained)
    assert taken.record["seconds"] >= first.record["seconds"]
    (first.trained / FIRST_PHASE).unlink()  # a run of an older version
    for flags in ({"K_c": 32}, {"K_c": 32, "lr": 0.02}, {"model": "EASE", "topk": (5, 50)}):
        store.finished({}, flags, [baseline, other, first])
        assert "--trained" not in trains.calls[-1]


def test_a_baseline_is_fitted_anew_for_another_evaluation(trains):
    runs = [store.finished({}, {"model": "EASE", **flags}) for flags in ({}, {"exclude_seen": 0})]
    assert runs[0].folder != runs[1].folder and all("--checkpoint" not in call for call in trains.calls)


def test_a_baseline_is_not_fitted_anew_for_settings_that_it_does_not_read(trains):
    runs = [
        store.finished(flags, {"model": "ALS"}) for flags in ({}, {"lr": 0.1, "K_u": 2}, {"seed": 1}, {"topk": "5"})
    ]
    assert runs[0] == runs[1] and len({run.folder for run in runs}) == 3 == len(trains.calls)


def test_a_run_that_was_killed_goes_on(trains):
    trains.dies = 1
    with pytest.raises(UserError, match="status 137"):
        store.finished({"K_u": 2}, {})
    run = store.finished({"K_u": 2}, {})
    first, second = trains.calls
    assert "--resume" not in first and second == first | {"--resume": "1"} and run.record["resumed"]


def test_a_damaged_record_does_not_count_as_finished(trains):
    folder = store.finished({}, {}).folder
    for damage in ("{", '{"key": "of another run"}'):
        (folder / store.RECORD).write_text(damage)
        store.finished({}, {})
    assert len(trains.calls) == 3


@pytest.mark.parametrize("name", ["metrics.csv", file_of("index"), file_of("exhaustive")])
def test_a_run_whose_results_are_lost_is_carried_out_again(trains, name):
    folder = store.finished({}, {}).folder
    (folder / name).unlink()
    store.finished({}, {})
    assert len(trains.calls) == 2 and (folder / name).exists()
    store.finished({}, {})
    assert len(trains.calls) == 2


def test_no_other_answers_stand_for_those_of_an_index(trains):
    run = store.finished({}, {})
    (run.folder / file_of("index")).unlink()
    with pytest.raises(UserError, match=file_of("index")):
        results.Row.of([run])


def test_a_run_of_another_commit_is_named(trains, monkeypatch, capsys):
    monkeypatch.setattr(store, "commit", lambda: "0ld+")
    store.finished({}, {})
    store.finished({}, {})
    assert "0ld+" not in capsys.readouterr().out
    monkeypatch.setattr(store, "commit", lambda: "new")
    store.finished({}, {})
    assert "stays as commit 0ld+ made it" in capsys.readouterr().out


OUTLIVES = """
import time
from pathlib import Path

Path("log").open("a").write("begin\\n")
until = time.monotonic() + 120
while not Path("go").exists() and time.monotonic() < until:
    time.sleep(0.05)
Path("log").open("a").write("end\\n")
for name in ("metrics.csv", "per_user_exhaustive.npz"):
    (Path("runs/A") / name).touch()
"""


def carry_out(seconds=0, root=None):
    """Carries out runs/A: by the work.py in the folder `root`, or by a fake that takes so many seconds."""

    def train(arguments, lock):
        with open("log", "a") as log:
            log.write("begin " + " ".join(arguments) + "\n")
        Path("runs/A/last.ckpt").touch()
        time.sleep(seconds)
        for name in ("metrics.csv", "per_user_exhaustive.npz"):
            (Path("runs/A") / name).touch()
        with open("log", "a") as log:
            log.write("end\n")
        return 0

    if root is None:
        store.call_work = train
    else:
        store.ROOT = root
    with open("said", "w") as said, contextlib.redirect_stdout(said):
        store._carry_out(Path("runs/A"), "key", [])


def start(*arguments):
    """Another process that does the same; forked, as its imports would take longer than all else."""
    process = multiprocessing.get_context("fork").Process(target=carry_out, args=arguments)
    process.start()
    return process


def end(process):
    process.join(120)
    return process.exitcode


def wait_for(name):
    """Until the file has something in it."""
    until = time.monotonic() + 120
    while not (Path(name).exists() and Path(name).read_text()):
        assert time.monotonic() < until
        time.sleep(0.02)


def log():
    return [line.split() for line in Path("log").read_text().splitlines()]


def test_two_processes_train_a_run_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    processes = [start(1) for _ in range(2)]
    assert [end(process) for process in processes] == [0, 0]
    assert log() == [["begin", "--name", "A"], ["end"]]


def test_the_run_of_a_dead_process_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dead = start(600)
    wait_for("log")
    dead.kill()
    assert end(dead) == -signal.SIGKILL
    assert end(start()) == 0
    assert log() == [["begin", "--name", "A"], ["begin", "--name", "A", "--resume", "1"], ["end"]]


def test_a_training_process_that_outlives_its_runner_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "program"
    program.mkdir()
    (program / "work.py").write_text(OUTLIVES)
    killed = start(0, program)
    wait_for("log")
    killed.kill()
    assert end(killed) == -signal.SIGKILL
    second = start(0, program)
    wait_for("said")
    assert "waiting for runs/A" in Path("said").read_text()
    time.sleep(1)
    assert log() == [["begin"]]
    Path("go").touch()
    assert end(second) == 0 and [line[0] for line in log()] == ["begin", "end", "begin", "end"]


@pytest.fixture
def two(monkeypatch):
    rows = {"plain": {"model": "TwoTower"}, "wide, 1": {"K_u": 1}, "wide, 2": {"K_u": 2}}
    experiment = Experiment(
        "Two models",
        rows,
        {"wide, 1": ("plain",)},
        ("bytes", "epochs"),
        "K_u",
        published={"plain": "31.9"},
        source="somebody, other data",
        beside="film",
    )
    monkeypatch.setitem(runner.EXPERIMENTS, "two", experiment)
    return experiment


def test_tables_hold_means_deviations_tests_and_where_they_are_from(trains, two, capsys):
    experiments.run("two", [0, 1], False, ["--dataset", "films", "--epoch=3"])
    assert [call["--seed"] for call in trains.calls] == ["0"] * 3 + ["1"] * 3
    assert all(call["--epoch"] == "3" for call in trains.calls)
    measured = []
    for call in trains.calls:
        with np.load(Path("runs") / call["--name"] / "per_user_index.npz") as stored:
            measured.append(Metrics(TOPK, {name: stored[name] for name in NAMES}))
    plain, wide = measured[::3], measured[1::3]

    folder = Path("results/films")
    text = (folder / "two-seeds-0,1-epoch-3.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    means = [one.mean("recall", 50) for one in plain]
    assert f"{np.mean(means):.4f} ± {np.std(means, ddof=1):.4f}" in text
    test = compare(averaged(wide), averaged(plain), "recall", 50)
    assert f"| wide, 1 | plain | recall@50 | {test} |" in text
    for part in ("# Two models", "films of the test", "31.9", "somebody, other data", "30 test users", "2 seeds"):
        assert part in text
    assert "python work.py --experiment two --seeds 0,1 --dataset films --epoch 3" in text

    with open(folder / "two-seeds-0,1-epoch-3.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * len(NAMES) * len(TOPK)
    line = next(
        line for line in lines if (line["configuration"], line["metric"], line["k"]) == ("wide, 1", "recall", "50")
    )
    assert float(line["mean"]) == pytest.approx(np.mean([one.mean("recall", 50) for one in wide]))
    assert (line["control"], float(line["p"]), float(line["bytes"])) == ("plain", pytest.approx(test.p), 35)
    assert (folder / "two-seeds-0,1-epoch-3.png").stat().st_size > 0


def test_a_row_can_show_other_answers_of_a_run(trains, monkeypatch):
    rows = {"both": {}, "half": {}}
    monkeypatch.setitem(runner.EXPERIMENTS, "parts", Experiment("Parts", rows, paths={"half": "wide alone"}))
    experiments.run("parts", [0], False, [])
    assert len(trains.calls) == 1
    with open("results/ml-1m/parts.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    means = {(line["configuration"], line["metric"], line["k"]): float(line["mean"]) for line in lines}
    assert means["half", "map", "20"] == pytest.approx(means["both", "map", "20"] / 2)
    assert {line["served by"] for line in lines} == {"index", "wide alone"}


def test_quick_takes_few_rows_of_the_sample(trains, monkeypatch):
    rows = {f"K_u = {n}": {"K_u": n, "epoch": 20} for n in range(1, 11)}
    monkeypatch.setitem(runner.EXPERIMENTS, "ten", Experiment("Ten", rows))
    experiments.run("ten", [0], True, [])
    assert [call["--K_u"] for call in trains.calls] == ["1", "4", "7", "10"]
    assert {(call["--dataset"], call["--epoch"]) for call in trains.calls} == {("sample", "2")}
    typed = Path("results/sample/ten-quick.md").read_text().split("`python work.py ")[1].split("`")[0]
    assert work.parse(typed.split())[1].quick


def test_only_what_an_index_serves_has_its_facts(trains, monkeypatch):
    """In the old tables a table alone, and a model without its index, showed the bytes of the index."""
    each = Experiment("?", {"A": {}, "A alone": {}}, facts=("bytes", "epochs"), paths={"A alone": "wide alone"})
    monkeypatch.setitem(runner.EXPERIMENTS, "one", each)
    experiments.run("one", [0], False, [])
    with open("results/ml-1m/one.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert {(line["configuration"], line["bytes"], line["epochs"]) for line in lines} == {
        ("A", "10.0", "2.0"),
        ("A alone", "", "2.0"),
    }


def test_where_the_index_is_built_makes_another_run(trains):
    assert store.finished({}, {}).folder != store.finished({"index_device": "gpu"}, {}).folder


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("three", [], "choose one of .*accuracy"),
        ("two", ["--K_u", "3"], "--K_u is what the experiment two sets itself"),
        ("two", ["--seed", "3"], "--seed is what"),
        ("two", ["--trained", "runs/A"], "--trained is what"),
        ("two", ["--epoch"], "name value pairs"),
        ("two", ["epoch", "3"], "name value pairs"),
        ("two", ["--epoch", "0"], "--epoch is 0"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_training(trains, two, name, flags, message):
    with pytest.raises(UserError, match=message):
        experiments.run(name, [0], False, flags)
    assert not trains.calls


def test_a_seed_that_is_named_twice_is_no_second_run(trains, two):
    with pytest.raises(UserError, match="--seeds 1,0,1 names one twice"):
        experiments.run("two", [1, 0, 1], False, [])


def test_no_row_has_a_flag_that_its_model_overrules():
    for name, experiment in experiments.EXPERIMENTS.items():
        for label, flags in experiment.rows.items():
            h, _, _ = work.parse(store.arguments_of({**experiment.flags, **flags}))
            if h.model in models.MODELS:
                told = models.MODELS[h.model].prescribes(INTERACTIONS[h.interaction])
                assert not {key for key in told.keys() & flags.keys() if getattr(h, key) != told[key]}, (name, label)


def test_a_specification_names_its_own_rows():
    with pytest.raises(ValueError, match="no row B"):
        Experiment("?", {"A": {}}, {"A": ("B",)})
    with pytest.raises(ValueError, match="where they are from"):
        Experiment("?", {"A": {}}, published={"A": "1"})


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_work_takes_the_flags_of_every_specification(name, capsys):
    for label, flags in experiments.EXPERIMENTS[name].rows.items():
        given = {**runner.QUICK, **flags}
        try:
            settings, _, _ = work.parse(store.arguments_of(given))
        except (UserError, SystemExit) as error:
            pytest.fail(f"{name}, {label}: {error} {capsys.readouterr().err}")
        assert isinstance(settings, work.Hyperparameters)


def test_call_work_runs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROOT", tmp_path)
    (tmp_path / "work.py").write_text("import sys; sys.exit(3 if sys.argv[1:] == ['--a', 'b'] else 0)")
    with open(tmp_path / "lock", "w") as lock:
        assert store.call_work(["--a", "b"], lock) == 3


def test_versions_are_named(tmp_path, monkeypatch):
    assert len(store.commit()) >= 7
    monkeypatch.setattr(store, "ROOT", tmp_path)
    assert store.commit() == "unknown"


def test_a_row_that_needs_what_is_not_installed_is_left_out_and_the_table_says_so(trains, monkeypatch, capsys):
    monkeypatch.setattr(BASELINES["ALS"], "missing", classmethod(lambda cls: "ALS needs a library."))
    rows = {"popular": {"model": "GlobalHot"}, "factors": {"model": "ALS"}}
    monkeypatch.setitem(experiments.EXPERIMENTS, "some", Experiment("What is here?", rows))
    experiments.run("some", [0], False, ["--dataset", "films"])
    assert [call["--model"] for call in trains.calls] == ["GlobalHot"]
    assert "Left out: factors. ALS needs a library." in Path("results/films/some.md").read_text()


def test_a_row_that_needs_more_memory_than_there_is_is_left_out_and_the_table_says_so(trains, monkeypatch):
    monkeypatch.setattr("baselines.ease._free_memory", lambda: -1.0)
    rows = {"popular": {"model": "GlobalHot"}, "EASE": {"model": "EASE"}}
    monkeypatch.setitem(experiments.EXPERIMENTS, "some", Experiment("What is here?", rows))
    experiments.run("some", [0], False, ["--dataset", "films"])
    assert [call["--model"] for call in trains.calls] == ["GlobalHot"]
    assert "items takes 0 GiB" in Path("results/films/some.md").read_text()
    with pytest.raises(UserError, match="EASE of 9 items takes"):
        BASELINES["EASE"]().fit(Ragged.from_rows([[1, 2], [2, 9]]), 9)


def test_the_flags_of_an_experiment_are_those_of_every_row_and_no_path_is_told(trains, monkeypatch, tmp_path):
    rows = {"popular": {"model": "GlobalHot"}, "Markov": {"model": "Markov"}}
    spec = Experiment("Which?", rows, flags={"split": "last-3", "monitor": "recall@20"})
    monkeypatch.setitem(experiments.EXPERIMENTS, "which", spec)
    experiments.run("which", [0], False, ["--dataset", "films", "--source", str(tmp_path / "films.csv")])
    assert [call["--split"] for call in trains.calls] == ["last-3", "last-3"]
    found = Path("results/films/which.md").read_text()
    assert "recall@20" in found and "--source films.csv" in found and str(tmp_path) not in found
    with pytest.raises(UserError, match="--split is what the experiment which sets itself"):
        experiments.run("which", [0], False, ["--split", "user"])
