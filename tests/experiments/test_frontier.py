"""The frontier: known points of it, and the files it writes."""

import csv

import numpy as np
import pytest

from experiments import frontier

SMALL = """--sparcode runs/DQMatch --two_tower runs/TwoTower --all_to_all runs/AllToAll --caps 10 100 5000 --k 20
    --batch 300 --seconds 0.01 --rounds 1""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def rows(trained):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        frontier.main(SMALL)
    for name in ("frontier.md", "frontier.png"):
        assert (trained / "results" / name).stat().st_size > 0
    with open(trained / "results" / "frontier.csv", encoding="utf-8") as file:
        return {(row["engine"], row["setting"]): row for row in csv.DictReader(file)}


def recall(trained, model):
    """R@20 that the run itself has reported for exhaustive scoring."""
    with open(trained / "runs" / model / "metrics.csv", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if (row["metric"], row["k"]) == ("recall", "20")]
    return next(float(row["mean"]) for row in found if row["path"] == "exhaustive")


def test_exact_engines_reach_what_their_model_reaches(rows, trained):
    """The run's own index was capped at 300; "all" is built anew and is exhaustive scoring again."""
    for engine, model in (
        (("SparCode float32", "all"), "DQMatch"),
        (("two-tower Flat", ""), "TwoTower"),
        (("all-to-all", "every item"), "AllToAll"),
    ):
        assert float(rows[engine]["R@20"]) == pytest.approx(recall(trained, model), abs=1e-5), engine
        assert float(rows[engine]["recall"]) == pytest.approx(1, abs=1e-3), engine
    assert rows["SparCode float32", "all"]["p"] == "1"


def test_shorter_lists_take_less_memory_and_keep_less_of_the_ranking(rows):
    for format in ("float32", "uint8"):
        mine = [rows[f"SparCode {format}", setting] for setting in ("10", "100", "all")]
        for column in ("MB", "recall", "postings per code"):
            values = [float(row[column]) for row in mine]
            assert values == sorted(values) and values[0] < values[1], column
    assert float(rows["SparCode uint8", "100"]["MB"]) < float(rows["SparCode float32", "100"]["MB"])
    assert all(float(row["queries/s"]) > 0 for row in rows.values())
    assert ("SparCode float32", "5000") not in rows  # a cap beyond the catalogue is no point of its own


def test_labels_of_the_picture_do_not_overlap(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = [{"setting": str(cap), "x": x, "y": x} for cap, x in ((25, 1), (800, 2), (1200, 2.01), (2400, 2.02))]
    axes.plot([row["x"] for row in rows], [row["y"] for row in rows])
    frontier._label_caps(axes, rows, "x", "y", (6, 4))
    assert {text.get_text() for text in axes.texts} == {"25", "2400"}
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert not boxes[0].overlaps(boxes[1])


def test_all_to_all_takes_no_item_twice_and_none_of_the_history(rows, trained, monkeypatch):
    monkeypatch.chdir(trained)
    from benchmarks.trained import Trained, on_cpu

    with on_cpu():
        run = Trained("runs/AllToAll", "AllToAll")
        asked = run.asked(run.data.test)
        args = type("Args", (), {"k": 20})
        (engine,) = frontier.all_to_all_engines(run, asked, args)
        ids, scores = engine.answer(asked, 1)
    assert all(len(np.unique(row)) == 20 for row in ids)
    assert not any(np.isin(row, asked.seen[user]).any() for user, row in enumerate(ids))
    assert (np.diff(scores, axis=1) <= 0).all()
