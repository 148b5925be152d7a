"""TwoTower, AllToAll and DQMatch on one dataset, several seeds: `python -m experiments.accuracy`.

Trains what is not yet in runs/accuracy-<model>-<seed>/, then writes results/accuracy.md: mean and standard deviation
over seeds, and a paired t-test over the test users, each user's metric averaged over seeds first.
"""

import argparse
import os
from pathlib import Path

import numpy as np

import work
from metric import Metrics, compare

MODELS = ("TwoTower", "AllToAll", "DQMatch")
COLUMNS = ("recall", "ndcg", "precision")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--k", type=int, default=50, help="cut-off of the metrics")
    options, flags = parser.parse_known_args()  # all other flags go to work.py
    found = {model: [result(model, seed, flags) for seed in options.seeds] for model in MODELS}
    text = "\n".join([*table(found, options.k), "", *tests(found, options.k)])
    print(text)
    target = Path("results/accuracy.md")
    target.parent.mkdir(exist_ok=True)
    fresh = target.with_suffix(".new")
    fresh.write_text(text + "\n", encoding="utf-8")
    os.replace(fresh, target)


def result(model, seed, flags):
    """`Metrics` of the test users of one run, through the index where there is one."""
    folder = Path("runs") / f"accuracy-{model}-{seed}"
    if not (folder / "metrics.csv").exists():
        resume = ["--resume", "1"] if folder.exists() else []
        status = work.main(["--model", model, "--seed", str(seed), "--name", folder.name, *resume, *flags])
        if status:
            raise SystemExit(status)
    path = folder / ("per_user_index.npz" if model == "DQMatch" else "per_user_exhaustive.npz")
    with np.load(path) as stored:
        return Metrics(tuple(stored["topk"].tolist()), {name: stored[name] for name in stored if name != "topk"})


def table(found, k):
    """Rows of a Markdown table, mean ± standard deviation over seeds."""
    rows = [f"| model | {' | '.join(f'{name}@{k}' for name in COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for model, runs in found.items():
        cells = []
        for name in COLUMNS:
            values = [run.mean(name, k) for run in runs]
            spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.4f}{spread}")
        rows.append(f"| {model} | {' | '.join(cells)} |")
    return rows


def tests(found, k):
    """DQMatch against the others: paired t-test over users, and the share of AllToAll's recall that it keeps."""
    averaged = {
        model: Metrics(runs[0].topk, {name: np.mean([run.values[name] for run in runs], 0) for name in runs[0].values})
        for model, runs in found.items()
    }
    lines = [
        f"DQMatch - {other}, {name}@{k}: {compare(averaged['DQMatch'], averaged[other], name, k)}"
        for other in ("TwoTower", "AllToAll")
        for name in COLUMNS
    ]
    kept = averaged["DQMatch"].mean("recall", k) / averaged["AllToAll"].mean("recall", k)
    return [*lines, f"DQMatch keeps {kept:.1%} of AllToAll's recall@{k}."]


if __name__ == "__main__":
    main()
