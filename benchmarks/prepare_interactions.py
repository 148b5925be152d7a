"""Preparing a synthetic interactions file: seconds and peak memory.

    python -m benchmarks.prepare_interactions [rows]

Writes the file (10 million rows by default) into a temporary folder, prepares it in a process of
its own, and prints what that took. Exits with 1 beyond the limits the project has set itself.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

ROWS, USERS, ITEMS = 10_000_000, 100_000, 50_000
MAX_SECONDS, MAX_MIB = 90, 6 * 1024


def write_interactions(path: Path, rows: int) -> None:
    """Users of uneven zeal, items of uneven popularity, rows in order of time."""
    rng = np.random.default_rng(0)
    scale = rows / ROWS
    users, items = max(int(USERS * scale), 100), max(int(ITEMS * scale), 100)
    with open(path, "w", encoding="utf-8") as out:
        for start in range(0, rows, 1_000_000):
            count = min(1_000_000, rows - start)
            table = {
                "user_id": (users * rng.random(count) ** 1.5).astype(np.int64),
                "item_id": (items * rng.random(count) ** 3).astype(np.int64),
                "timestamp": start + np.arange(count),
            }
            pd.DataFrame(table).to_csv(out, header=start == 0, index=False)


def measure(source: Path, out: Path) -> tuple[float, float, float, dict]:
    """Prepare, then load; seconds of both and the peak of this process, in MiB."""
    from data.prepare import prepare
    from load_csv_dataset import load_training

    start = time.perf_counter()
    prepared = prepare("synthetic", source, out)
    prepared_at = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    load_training(prepared.folder / "data.csv", prepared.description["statistics"]["items"])
    loaded_at = time.perf_counter()
    return prepared_at - start, loaded_at - prepared_at, peak, prepared.description["statistics"]


def main(rows: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "interactions.csv"
        write_interactions(source, rows)
        spawn = multiprocessing.get_context("spawn")  # a fresh process: the peak is its own
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            call = pool.submit(measure, source, Path(folder) / "data")
            seconds, load_seconds, peak, statistics = call.result()
        size = source.stat().st_size / 2**20
    print(f"{rows:,} rows ({size:.0f} MiB): {statistics}")
    print(f"prepare {seconds:.1f} s (limit {MAX_SECONDS}), peak {peak:.0f} MiB (limit {MAX_MIB})")
    print(f"load data.csv {load_seconds:.1f} s")
    return int(seconds > MAX_SECONDS or peak > MAX_MIB)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
