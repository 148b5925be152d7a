"""Finished runs in runs/, found by all that their numbers depend on; what is missing is trained, once."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import work
from baselines import BASELINES, arguments
from config import FREE
from data.prepare import Prepared, prepare
from errors import UserError
from experiments.experiment import Flags
from files import content_digest, digest, fresh
from metric import file_of
from retrieval.search import available_cores
from runs import first_phase
from training import FIRST_PHASE

FORMAT = 8  # raise it when the same settings on the same data give other numbers, or the files of runs change
RECORD = "experiment.json"  # in the folder of a run, written when it has finished
ROOT = Path(__file__).resolve().parents[1]
# By a trained run, but needed again.
NOT_KEPT = ("source", "item_file", "user_file", "sort_rows", "device_target", "index_device")


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        folder: of its results. trained: of the run that they evaluate, the same unless that was evaluated anew.
        record: how it came about: key, arguments, commit, cores, and of the training seconds and resumed; seconds are
            together with those of the run whose first phase was taken over, if any.
    """

    folder: Path
    trained: Path
    record: dict


def finished(flags: Flags, varied: Flags, others: Sequence[Finished] = ()) -> Finished:
    """The run of these settings, carried out now unless runs/ holds it.

    Args:
        flags: of the whole experiment. varied: of this configuration; those about index and evaluation do not train,
            the trained run is evaluated anew under them (a baseline leaves no checkpoint, and is fitted anew).
        others: runs on the same data and seed; of one that trained alike up to its quantiser the first phase is taken
            over.

    Raises:
        UserError: settings that work.py refuses, or a run that fails.
    """
    free = {f.name for f in dataclasses.fields(work.Hyperparameters) if f.metadata["group"] in FREE}
    later = {name: value for name, value in varied.items() if name in free and varied.get("model") not in BASELINES}
    now = {**flags, **{name: value for name, value in varied.items() if name not in later}}
    settings, command, _ = work.parse(arguments_of(now))
    prepared, data = prepared_data(settings, command)
    about = {"format": FORMAT, "data": data, "device": command.device_target}
    about |= {} if command.index_device == "cpu" else {"index_device": command.index_device}
    key = content_digest(about | {"settings": _decisive(settings)})
    stem = f"{settings.model}-{prepared.dataset}-seed{settings.seed}-"
    folder = Path("runs") / (stem + key[:12])
    record = _carry_out(folder, key, arguments_of(now), _alike(settings, others))
    if not later:
        return Finished(folder, folder, record)
    again, _, _ = work.parse(arguments_of({**now, **later}))
    asked = {name: value for name, value in flags.items() if name in NOT_KEPT} | later
    key = content_digest({"of": key, "settings": dataclasses.asdict(again), "index_device": command.index_device})
    arguments = ["--mode", "test", "--checkpoint", str(folder / "best.ckpt"), *arguments_of(asked)]
    test = Path("runs") / (stem + key[:12] + "-test")
    return Finished(
        test, folder, _carry_out(test, key, arguments) | {name: record[name] for name in ("seconds", "resumed")}
    )


def _alike(settings, others: Sequence[Finished]) -> Finished | None:
    """The first of the runs whose first phase is that of the settings, and is kept."""
    for other in others:
        theirs, _, _ = work.parse(_record(other.trained)["arguments"])
        neural = {settings.model, theirs.model}.isdisjoint(BASELINES)
        if neural and first_phase(settings) == first_phase(theirs) and (other.trained / FIRST_PHASE).exists():
            return other
    return None


def _decisive(settings) -> dict:
    """The settings that a run's numbers depend on: of a baseline the measures and what builds it."""
    every = dataclasses.asdict(settings)
    if settings.model not in BASELINES:
        return every
    return {name: every[name] for name in ("model", "topk", "exclude_seen")} | arguments(settings.model, every)


def prepared_data(settings, command) -> tuple[Prepared, str]:
    """The prepared data of work.py's settings, and a digest of what training reads of them."""
    files = command.source, command.item_file, command.user_file
    return _prepared(settings.dataset, settings.split, settings.split_seed, *files, command.sort_rows)


@functools.cache
def _prepared(dataset, split, seed, source, item_file, user_file, sort_rows) -> tuple[Prepared, str]:
    prepared = prepare(
        dataset, source, split=split, seed=seed, item_file=item_file, user_file=user_file, sort_rows=sort_rows
    )
    files = sorted(path for path in prepared.folder.iterdir() if path.suffix in (".csv", ".txt"))
    return prepared, content_digest([(path.name, digest(path)) for path in files])


def commit() -> str:
    """The version of this program: its commit, with "+" where files but tables were changed since."""
    git = ["git", "-C", str(ROOT)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno", "--", ".", ":!results"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + ("+" if changed.stdout else "")


def call_work(arguments: list[str], lock: IO) -> int:
    """Runs work.py; its exit status.

    In a process of its own: what MindSpore keeps is given back, and a run that is killed takes nothing along. The
    process holds the lock as well, so that it is still held if this one is killed and that one goes on.
    """
    command = [sys.executable, str(ROOT / "work.py"), *arguments]
    return subprocess.run(command, pass_fds=[lock.fileno()]).returncode


def _carry_out(folder: Path, key: str, arguments: list[str], alike: Finished | None = None) -> dict:
    """The record of the run in `folder`; whoever gets the lock first carries it out, after the first phase of alike."""
    with _locked(folder / ".experiment.lock") as lock:
        record = _record(folder)
        if record.get("key") == key and _whole(folder):
            if record["commit"] != commit():
                print(f"{folder} stays as commit {record['commit']} made it", flush=True)
            return record
        began, begun_at, cores = time.perf_counter(), commit(), available_cores()
        resume = ["--resume", "1"] if (folder / "last.ckpt").exists() else []
        taken = ["--trained", str(alike.trained)] if alike is not None else []
        if status := call_work([*arguments, "--name", folder.name, *resume, *taken], lock):
            raise UserError(
                f"the run {folder} ended with status {status}: work.py {' '.join(arguments)}; the same command goes on."
            )
        record = {
            "key": key,
            "arguments": arguments,
            "commit": begun_at,
            "cores": cores,
            "seconds": round(time.perf_counter() - began + (alike.record["seconds"] if alike else 0), 1),
            "resumed": bool(resume) or (alike is not None and alike.record["resumed"]),
        }
        with fresh(folder / RECORD, "w") as file:
            json.dump(record, file, indent=2)
        return record


def _whole(folder: Path) -> bool:
    """Whether a finished run still has its results."""
    paths = ["exhaustive"] + ["index"] * (folder / "index.json").exists()
    return all((folder / name).exists() for name in ("metrics.csv", *map(file_of, paths)))


def _record(folder: Path) -> dict:
    try:
        return json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return {}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO]:
    """Holds a lock that the system takes back from a process that dies; waits while another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            print(f"waiting for {path.parent}, on which process {lock.read().strip()} is at work", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock


def arguments_of(flags: Flags) -> list[str]:
    """{"topk": (1, 5)} as ["--topk", "1,5"]."""
    return [text for name, value in flags.items() for text in (f"--{name}", _text(value))]


def _text(value) -> str:
    if isinstance(value, tuple | list):
        return ",".join(map(str, value))
    return "none" if value is None else str(int(value) if isinstance(value, bool) else value)
