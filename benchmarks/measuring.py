"""Search engines that take turns: queries per second, latencies, and the tables of both."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from data.ragged import Ragged
from errors import UserError
from metric import Metrics


@contextlib.contextmanager
def sentences():
    """A UserError of the body ends the program with its sentence."""
    try:
        yield
    except UserError as error:
        sys.exit(f"error: {error}")


@dataclass(frozen=True)
class Asked:
    """Queries as an engine takes them.

    Attributes:
        points: int64 (U, K) keys or float32 (U, D) vectors. weights: float32 (U, K) of the keys; None: all 1.
        seen: the items to leave out, or None.
    """

    points: np.ndarray
    weights: np.ndarray | None = None
    seen: Ragged | None = None

    def __len__(self) -> int:
        return len(self.points)

    def take(self, rows: np.ndarray) -> Asked:
        weights = None if self.weights is None else self.weights[rows]
        return Asked(self.points[rows], weights, None if self.seen is None else self.seen.take(rows))

    @functools.cached_property
    def singles(self) -> list[Asked]:
        """Every query for itself, cut once so that no measurement pays for it."""
        return [self.take(np.array([row])) for row in range(len(self))]


@dataclass
class Engine:
    """Something that answers queries, what is known of it, and what `compete` found.

    answer(asked, threads) -> ids int32 [U, k], scores float32 [U, k]. recall: the share of the
    best k of its own model's exact ranking that it finds. held_out: `metric.Metrics` of its answers
    to real users. notes: more columns for the table.
    rates: queries/s by way, "single 1" being one caller with one query per call and "batch 2" one
    call for all with two threads. p50_ms, p99_ms: of a single query on one thread.
    """

    name: str
    answer: Callable
    asked: Asked
    recall: float = float("nan")
    bytes: int = 0
    build_seconds: float = float("nan")
    held_out: Metrics | None = None
    notes: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    p50_ms: float = float("nan")
    p99_ms: float = float("nan")

    def numbers(self) -> dict:
        """What goes to a file."""
        others = ("answer", "asked", "held_out")
        return {name: value for name, value in vars(self).items() if name not in others}


def compete(engines: list[Engine], thread_counts, seconds: float, rounds: int) -> None:
    """Fills in rates and latencies; engines take turns round by round, the best round counts.

    What else the machine does disturbs all of them alike that way. seconds: least length of one
    measurement.
    """
    for engine in engines:
        _measure(engine, thread_counts, min(seconds, 0.2))  # compiles, warms
        engine.rates.clear()
    for _ in range(rounds):
        for engine in engines:
            _measure(engine, thread_counts, seconds)


def _measure(engine: Engine, thread_counts, seconds: float) -> None:
    for threads in thread_counts:
        rate, taken = single_rate(engine.answer, engine.asked, threads, seconds)
        if rate > engine.rates.get(f"single {threads}", 0):
            engine.rates[f"single {threads}"] = rate
            if threads == 1:
                engine.p50_ms, engine.p99_ms = np.percentile(taken, [50, 99]) * 1e3
        batch = batch_rate(engine.answer, engine.asked, threads, seconds)
        engine.rates[f"batch {threads}"] = max(batch, engine.rates.get(f"batch {threads}", 0))


def single_rate(answer, asked: Asked, callers: int, seconds: float):
    """One query per call from each of the callers; rate of all, seconds each query took."""
    singles = asked.singles

    def call(first: int) -> list[float]:
        taken, at = [], first
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until or len(taken) < 5:
            answer(singles[at % len(singles)], 1)
            taken.append(time.perf_counter() - began)
            at += callers
        return taken

    began = time.perf_counter()
    if callers == 1:
        taken = call(0)
    else:
        with ThreadPoolExecutor(callers) as pool:
            taken = [one for some in pool.map(call, range(callers)) for one in some]
    return len(taken) / (time.perf_counter() - began), taken


def batch_rate(answer, asked: Asked, threads: int, seconds: float) -> float:
    """All queries in one call, again and again; queries per second."""
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or calls == 0:
        answer(asked, threads)
        calls += 1
    return calls * len(asked) / (time.perf_counter() - began)


def report(ours: list[Engine], others: list[Engine], thread_counts) -> None:
    """Prints what was measured, and the ratio of each of ours to each of the others."""
    ways = [f"{way} {threads}" for way in ("single", "batch") for threads in thread_counts]
    notes = list(dict.fromkeys(name for engine in ours + others for name in engine.notes))
    heads = ["queries/s", "recall", *notes, *ways, "p50 ms", "p99 ms", "MB", "build s"]
    rows = [
        [
            e.name,
            f"{e.recall:.4f}",
            *(e.notes.get(name, "") for name in notes),
            *(f"{e.rates[way]:,.0f}" for way in ways),
            f"{e.p50_ms:.3f}",
            f"{e.p99_ms:.3f}",
            f"{e.bytes / 1e6:.1f}",
            f"{e.build_seconds:.2f}",
        ]
        for e in ours + others
    ]
    show([heads, *rows])
    rows = [
        [
            f"{one.name} / {other.name}",
            *(f"{one.rates[way] / other.rates[way]:.2f}x" for way in ways),
            f"{one.bytes / other.bytes:.2f}x",
        ]
        for other in others
        for one in ours
    ]
    show([["ratio", *ways, "MB"], *rows])


def show(table: list[list[str]]) -> None:
    """Prints rows of text in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for row in table:
        first, *rest = (
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip(), flush=True)
