"""What an experiment found, as results/<dataset>/<name>.csv, .md and .png."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.experiment import COLUMNS, Experiment
from experiments.store import Finished
from files import fresh
from metric import NAMES, Metrics, averaged, compare
from runs import saved_metrics


@dataclass(frozen=True)
class Row:
    """One configuration over its seeds.

    Attributes:
        runs: its finished runs. metrics: of the test users, by run.
        path: "index", "exhaustive" or another name under which the runs keep answers.
        facts: numbers of the runs beside the metrics, by name, the mean over the runs.
    """

    runs: Sequence[Finished]
    metrics: Sequence[Metrics]
    path: str
    facts: Mapping[str, float]

    @classmethod
    def of(cls, runs: Sequence[Finished], path: str | None = None) -> Row:
        """Of the answers by `path`; without one, through the index where there is one."""
        path = path or ("index" if (runs[0].folder / "index.json").exists() else "exhaustive")
        each = [_facts(run, path) for run in runs]
        facts = {name: float(np.mean([one[name] for one in each])) for name in each[0] if all(name in o for o in each)}
        return cls(runs, [saved_metrics(run.folder, path) for run in runs], path, facts)

    def mean(self, name: str, k: int) -> float:
        return float(np.mean([metrics.mean(name, k) for metrics in self.metrics]))

    def deviation(self, name: str, k: int) -> float:
        """The standard deviation over the seeds, 0 for one."""
        return float(np.std([metrics.mean(name, k) for metrics in self.metrics], ddof=1)) if len(self.runs) > 1 else 0.0


def write(
    name: str,
    experiment: Experiment,
    found: Mapping[str, Sequence[Finished]],
    prepared,
    settings,
    command: str,
    left_out: Mapping[str, str],
) -> None:
    """Prints the table and writes the three files.

    Args:
        name: of the experiment.
        found: the finished runs by label, one per seed.
        prepared: `data.prepare.Prepared`, the data of all of them.
        settings: `work.Hyperparameters` that all have in common.
        command: what was typed.
        left_out: by label, why a row is missing.
    """
    rows = {label: Row.of(runs, experiment.paths.get(label)) for label, runs in found.items()}
    text = _report(experiment, rows, prepared, settings, command, left_out)
    print(text)
    folder = Path("results") / prepared.dataset
    with fresh(folder / f"{name}.md", "w") as file:
        file.write(text + "\n")
    lines = _lines(experiment, rows, prepared, command)
    with fresh(folder / f"{name}.csv", "w") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    with fresh(folder / f"{name}.png") as file:
        _picture(experiment, rows, _columns(settings, rows)[0], prepared).savefig(file, dpi=120, format="png")


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of the same keys as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(map(str, row.values())) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _report(experiment, rows, prepared, settings, command, left_out) -> str:
    columns = _columns(settings, rows)
    best = {column: max(row.mean(*_cut(column)) for row in rows.values()) for column in columns}
    published = experiment.published if prepared.dataset.startswith(experiment.beside) else {}
    cells = []
    for label, row in rows.items():
        values = {column: _cell(row, column, best[column]) for column in columns}
        facts = {name: _number(row.facts.get(name)) for name in experiment.facts}
        literature = {"published": published.get(label, "")} if published else {}
        cells.append({"": label, **values, **facts, "served by": row.path, **literature})
    seeds, users = len(next(iter(rows.values())).runs), len(next(iter(rows.values())).metrics[0])
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    text = [
        f"# {experiment.question}",
        f"{prepared.label}, split {settings.split}, {users:,} test users; {spread}; the best of a column is bold.",
        markdown(cells),
    ]
    if published:
        text.append(f"Published: {experiment.source}")
    text += [f"Left out: {label}. {why}" for label, why in left_out.items()]
    if tests := [
        {"": label, "against": control, "metric": column, "difference, 95 % interval, paired t-test": test}
        for label, control in _pairs(experiment, rows)
        for column in columns
        for test in [_test(rows, label, control, column)]
    ]:
        text += ["Test user by test user, each one's values averaged over the seeds first:", markdown(tests)]
    records = [run.record for row in rows.values() for run in row.runs]
    commits = ", ".join(sorted({record["commit"] for record in records}))
    cores = ", ".join(map(str, sorted({record["cores"] for record in records})))
    text.append(f"`{command}`; commit {commits}; processor cores {cores}.")
    return "\n\n".join([*text, *([prepared.note] if prepared.note else [])])


def _lines(experiment, rows, prepared, command) -> list[dict]:
    """For the csv: one line per configuration, metric, cut-off and control."""
    lines = []
    controls = {label: [control for own, control in _pairs(experiment, rows) if own == label] for label in rows}
    for label, row in rows.items():
        about = {"data": prepared.label, "configuration": label, "served by": row.path, "seeds": len(row.runs)}
        about |= {name: row.facts.get(name, "") for name in experiment.facts}
        origin = {
            "runs": " ".join(run.folder.name for run in row.runs),
            "commit": " ".join(sorted({run.record["commit"] for run in row.runs})),
            "command": command,
        }
        for name, k in [(name, k) for name in NAMES for k in row.metrics[0].topk]:
            value = {"metric": name, "k": k, "mean": row.mean(name, k), "deviation": row.deviation(name, k)}
            for control in controls[label] or [""]:
                test = dict.fromkeys(("difference", "low", "high", "p"), "")
                if control:
                    found = _test(rows, label, control, f"{name}@{k}")
                    test = {column: getattr(found, column) for column in test}
                lines.append({**about, **value, "control": control, **test, **origin})
    return lines


def _picture(experiment, rows, column, prepared):
    """The first column over the rows, or over x; bars are the standard deviation over the seeds."""
    from matplotlib.figure import Figure  # here, as it takes a second to import

    figure = Figure(
        figsize=(8, max(2.4, 0.45 * len(rows) + 1.2) if experiment.x is None else 4.5), layout="constrained"
    )
    axes = figure.subplots()
    values = {label: (row.mean(*_cut(column)), row.deviation(*_cut(column))) for label, row in rows.items()}
    if experiment.x is None:
        for place, (mean, deviation) in enumerate(values.values()):
            axes.errorbar(mean, place, xerr=deviation, fmt="o", color="#0072B2", capsize=3)
            axes.annotate(f"{mean:.4f}", (mean, place), (0, 5), textcoords="offset points", ha="center", fontsize=8)
        axes.set_yticks(range(len(rows)), list(rows))
        axes.invert_yaxis()
        axes.set_xlabel(f"{column}, test users")
    else:
        series = {}
        for label, row in rows.items():
            x = row.facts.get(experiment.x, experiment.rows[label].get(experiment.x))
            if x is not None:  # the row without a limit has no place on the axis
                series.setdefault(label.split(",")[0], []).append((float(x), *values[label]))
        for label, points in series.items():
            x, mean, deviation = zip(*sorted(points), strict=True)
            axes.errorbar(x, mean, yerr=deviation, marker="o", capsize=3, label=label)
        axes.set_xscale("log" if all(x > 0 for points in series.values() for x, *_ in points) else "linear")
        axes.set(xlabel=experiment.x, ylabel=f"{column}, test users")
        axes.legend()
    axes.grid(alpha=0.3)
    figure.suptitle(f"{experiment.question}\n{prepared.label}", fontsize=10)
    return figure


def _facts(run: Finished, path: str) -> dict[str, float]:
    """Numbers that the folders of a run hold: of its training and, where that is asked, its index."""
    facts = {} if run.record["resumed"] else {"seconds": run.record["seconds"]}
    if (log := run.trained / "log.csv").exists():
        with open(log, encoding="utf-8", newline="") as file:
            facts["epochs"] = len(list(csv.DictReader(file)))
    if path == "index" and (index := run.folder / "index.json").exists():
        facts |= {
            name: value for name, value in json.loads(index.read_text()).items() if isinstance(value, int | float)
        }
    return facts


def _test(rows, label, control, column):
    """`metric.PairedTest` of two configurations."""
    return compare(averaged(rows[label].metrics), averaged(rows[control].metrics), *_cut(column))


def _pairs(experiment, rows) -> list[tuple[str, str]]:
    """(configuration, control) of all that were run."""
    pairs = [(label, control) for label, controls in experiment.controls.items() for control in controls]
    return [pair for pair in pairs if set(pair) <= set(rows)]


def _columns(settings, rows) -> list[str]:
    """The metrics of the table: those of the split, at the largest cut-off where theirs was not measured."""
    topk = next(iter(rows.values())).metrics[0].topk
    cuts = [_cut(column) for column in COLUMNS.get(settings.split, COLUMNS["user"])]
    return list(dict.fromkeys(f"{name}@{k if k in topk else max(topk)}" for name, k in cuts))


def _cut(column: str) -> tuple[str, int]:
    name, _, k = column.partition("@")
    return name, int(k)


def _cell(row: Row, column: str, best: float) -> str:
    mean = row.mean(*_cut(column))
    text = f"{mean:.4f}" + (f" ± {row.deviation(*_cut(column)):.4f}" if len(row.runs) > 1 else "")
    return f"**{text}**" if mean == best else text


def _number(value: float | None) -> str:
    """12,345 or 0.1234; "" for what is not known."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
