"""Seconds for the cosine neighbours of all items, beside those of the implicit library, measured in turns.

    pip install implicit
    python benchmarks/item_similarity.py [--dataset ml-1m] [--split leave-one-out] [--neighbours 100] [--rounds 5]

Both fit the same training sequences on all cores. Exits with 1 where implicit is faster or the neighbours differ.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from baselines.item_knn import ItemKNN  # noqa: E402
from baselines.similarity import incidence  # noqa: E402
from benchmarks.measuring import sentences  # noqa: E402
from data.prepare import prepare  # noqa: E402
from load_csv_dataset import load_catalogue, load_training  # noqa: E402


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ml-1m")
    parser.add_argument("--split", default="leave-one-out")
    parser.add_argument("--out", type=Path, default=Path("data"), help="folder of the prepared data")
    parser.add_argument("--neighbours", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each; the best counts")
    args = parser.parse_args(arguments)
    try:
        from implicit.nearest_neighbours import CosineRecommender
    except ImportError:
        sys.exit("This compares with implicit; `pip install implicit`.")
    with sentences():
        folder = prepare(args.dataset, out=args.out, split=args.split).folder
        n_items = load_catalogue(folder).n_items
        sequences = load_training(folder / "data.csv", n_items).sequences

    def ours() -> ItemKNN:
        return ItemKNN(args.neighbours).fit(sequences, n_items)

    def implicit() -> CosineRecommender:
        model = CosineRecommender(K=args.neighbours + 1)  # an item counts as its own neighbour there
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library scolds the form of an array of its own
            model.fit(incidence(sequences, n_items), show_progress=False)
        return model

    differ = differing_scores(ours().lists, implicit().similarity.tocsr())  # compiles and warms, too
    took = np.array([[seconds(ours), seconds(implicit)] for _ in range(args.rounds)])  # (rounds, 2)
    best = took.min(0)
    print(f"{args.dataset}, {args.split}: {n_items:,} items, {len(sequences.values):,} interactions")
    print(f"ours     {best[0]:.2f} s\nimplicit {best[1]:.2f} s")
    print(f"implicit / ours {best[1] / best[0]:.2f} (best of {args.rounds}; {differ} of {n_items} lists differ)")
    return 0 if best[0] <= best[1] and not differ else 1


def differing_scores(ours, implicit) -> int:
    """Items whose neighbours' scores differ by more than rounding; of equal scores either may be kept."""
    implicit.setdiag(0)
    implicit.eliminate_zeros()
    pairs = zip(np.split(ours.data, ours.indptr[1:-1]), np.split(implicit.data, implicit.indptr[1:-1]), strict=True)
    return sum(len(a) != len(b) or not np.allclose(np.sort(a), np.sort(b), rtol=1e-5) for a, b in pairs)


def seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
