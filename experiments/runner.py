"""An experiment from its name to its table: what is missing is trained, all of it is compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import baselines
import work
from errors import UserError
from experiments import results, store
from experiments.experiment import Flags
from experiments.specifications import EXPERIMENTS

QUICK = {  # flags that show in a minute whether an experiment runs to its end; their numbers mean nothing
    "dataset": "sample",
    "epoch": 2,
    "pretrain_epoch": 1,
    "hidden": 32,
    "positions_per_user": 3,
    "neg_num": 64,
    "batch_size": 256,
}
QUICK_ROWS = 4
PATHS = ("source", "item_file", "user_file")
WHERE = ("dataset", "source", "item_file", "user_file", "sort_rows")  # flags that the folder of the results stands for


SET_HERE = ("seed", "mode", "name", "checkpoint", "resume", "trained")  # by the runner, of every run


def run(name: str, seeds: Sequence[int], quick: bool, flags: Sequence[str]) -> None:
    """Carries out an experiment and writes results/<dataset>/<name>.csv, .md and .png.

    Args:
        name: a key of EXPERIMENTS.
        seeds: of training; each configuration is trained once per seed.
        quick: few rows, few epochs, the built-in sample.
        flags: of work.py as on its command line, for every configuration.

    Raises:
        UserError: an unknown experiment, a seed twice, a flag that it varies itself, a run that fails.
    """
    if name not in EXPERIMENTS:
        raise UserError(f"--experiment is {name!r}; choose one of {', '.join(EXPERIMENTS)}.")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {','.join(map(str, seeds))} names one twice; a run of the same seed is the same run.")
    experiment, given = EXPERIMENTS[name], _pairs(flags)
    for label, varied in experiment.rows.items():
        if taken := sorted({*SET_HERE, *experiment.flags, *varied} & set(given)):
            raise UserError(f"--{taken[0]} is what the experiment {name} sets itself ({label}); leave it out.")
    labels = _some(list(experiment.rows), QUICK_ROWS) if quick else list(experiment.rows)
    given = dict(experiment.flags) | (QUICK if quick else {}) | given
    rows = {label: dict(varied) for label, varied in experiment.rows.items()}
    for varied in rows.values() if quick else ():
        varied |= {"epoch": QUICK["epoch"]} if "epoch" in varied else {}
    settings, command, _ = work.parse(store.arguments_of(given))
    prepared, _ = store.prepared_data(settings, command)
    n_items = prepared.description.get("statistics", {}).get("items", 0)
    left_out = {label: why for label in labels if (why := _missing(rows[label], n_items))}
    for label, why in left_out.items():
        print(f"left out: {label}. {why}")
    labels = [label for label in labels if label not in left_out]
    for label in labels:  # a flag that is refused is refused before hours of training
        work.parse(store.arguments_of({**given, **rows[label]}))
    found = {label: [] for label in labels}
    for seed in seeds:
        before = []  # of this seed
        for label in labels:
            before.append(store.finished({**given, "seed": seed}, rows[label], before))
            found[label].append(before[-1])
    command = ["python work.py --experiment", name, "--seeds", ",".join(map(str, seeds)), *["--quick", "1"] * quick]
    command += [text for flag, value in _pairs(flags).items() for text in (f"--{flag}", _shown(flag, value))]
    stem = _stem(name, seeds, _pairs(flags), quick)
    results.write(stem, experiment, found, prepared, settings, " ".join(command), left_out)


def _shown(flag: str, value: str) -> str:
    """A flag's value for a reader elsewhere: of a path its last part."""
    return Path(value).name if flag in PATHS else value


def _missing(flags: Flags, n_items: int) -> str:
    """What the model of a row needs for so many items and this machine has not; "" where it has all."""
    name = flags.get("model")
    return baselines.missing(name, n_items) if name in baselines.BASELINES else ""


def _stem(name: str, seeds: Sequence[int], flags: Mapping[str, str], quick: bool) -> str:
    """The name of the files: that of the experiment, and what makes their numbers others than those of its defaults."""
    chosen = [] if tuple(seeds) == work.Command.seeds else [f"seeds-{','.join(map(str, seeds))}"]
    chosen += [f"{flag}-{value}" for flag, value in flags.items() if flag not in WHERE]
    return re.sub(r"[^\w.,-]", "_", "-".join([name, *chosen, *["quick"] * quick]))


def _pairs(flags: Sequence[str]) -> dict[str, str]:
    """["--topk", "1,5", "--K_u=2"] as {"topk": "1,5", "K_u": "2"}."""
    words = [word for flag in flags for word in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    if len(words) % 2 or not all(word.startswith("--") for word in words[::2]):
        raise UserError(f"{' '.join(flags)} cannot be read; flags are --name value pairs.")
    return {name[2:]: value for name, value in zip(words[::2], words[1::2], strict=True)}


def _some(labels: list[str], count: int) -> list[str]:
    """At most so many labels, spread over the list with its first and its last."""
    steps = max(min(count, len(labels)) - 1, 1)
    return list(dict.fromkeys(labels[i * (len(labels) - 1) // steps] for i in range(steps + 1)))
