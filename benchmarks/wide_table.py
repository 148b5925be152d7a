"""Seconds to fit the wide table, in order and without, beside EASE by a dense inverse, measured in turns.

    python benchmarks/wide_table.py [--dataset ml-1m] [--split leave-one-out] [--rounds 3]

All fit the same training sequences on all cores; EASE takes 24 bytes for each pair of items.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from baselines.ease import EASE  # noqa: E402
from benchmarks.item_similarity import seconds  # noqa: E402
from benchmarks.measuring import sentences  # noqa: E402
from data.prepare import prepare  # noqa: E402
from load_csv_dataset import load_catalogue, load_training  # noqa: E402
from wide import ORDERLESS, WideSettings, WideTable  # noqa: E402


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--source", type=Path, help="file or folder of the data, as of work.py")
    parser.add_argument("--split", default="leave-one-out")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the prepared data")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the best counts")
    args = parser.parse_args(arguments)
    with sentences():
        folder = prepare(args.dataset, args.source, out=args.out, split=args.split).folder
        n_items = load_catalogue(folder).n_items
        sequences = load_training(folder / "data.csv", n_items).sequences
    ways = {
        "in order": lambda: WideTable.fit(sequences, n_items),
        "without order": lambda: WideTable.fit(sequences, n_items, WideSettings(**ORDERLESS)),
        "EASE": lambda: EASE().fit(sequences, n_items),
    }
    WideTable.fit(sequences.take(np.arange(10)), n_items, WideSettings(**ORDERLESS))  # compiles
    took = np.array([[seconds(way) for way in ways.values()] for _ in range(args.rounds)])  # (rounds, ways)
    print(f"{args.dataset}, {args.split}: {n_items:,} items, {len(sequences.values):,} interactions")
    for name, best in zip(ways, took.min(0), strict=True):
        print(f"{name:14} {best:6.2f} s   EASE / it {took.min(0)[-1] / best:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
