"""The index on an array library beside the numba path, in one run: building and searching.

    python benchmarks/array_backend.py [--on gpu | numpy | torch] [--items 3416 100000 1000000] ...

gpu is torch or CuPy, whichever sees one; numpy and torch run on the CPU. Building scores the codes
with the release-size scorer of build_index.py (256,256,256), at 3,416 items: the share of the peak
counts the matrix products a pair needs, against square float32 products measured here (bfloat16
ones are shown where the library has them; the index does not use them, they are too coarse).
Searching answers the best 50 items of 4 codes per query in synthetic lists, 2,000 postings per code
(200 at up to 10,000 items) spread evenly over the items; both must give the same answers. Copies
to the device and back count. Best of --rounds; the paths take turns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.build_index import FLOPS_PER_PAIR, build, default_scorer, seconds  # noqa: E402
from benchmarks.measuring import Asked, batch_rate, show  # noqa: E402
from retrieval import (  # noqa: E402
    ArrayIndex,
    ArrayLibrary,
    NoGpuError,
    SparseInvertedIndex,
    build_array_index,
    gpu_library,
)
from retrieval.search import available_cores  # noqa: E402

TOKENS, K, BUILD_ITEMS = 4, 50, 3416
PRODUCTS = 20  # in a row, of the peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", choices=("gpu", "numpy", "torch"), default="gpu")
    parser.add_argument("--items", type=int, nargs="+", default=[3416, 100_000, 1_000_000])
    parser.add_argument("--codes", type=int, default=4096, help="of an index that is searched")
    parser.add_argument("--build_codes", type=int, default=4096, help="scored by the array library")
    parser.add_argument("--numba_codes", type=int, default=64, help="scored by numba")
    parser.add_argument("--batch", type=int, default=20_000, help="queries in a call")
    parser.add_argument("--square", type=int, default=4096, help="side of the products of the peak")
    parser.add_argument("--threads", type=int, default=0, help="of numba; 0: all cores")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a search")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    try:
        library = gpu_library() if args.on == "gpu" else ArrayLibrary(args.on)
    except (NoGpuError, ImportError) as error:
        sys.exit(str(error))
    threads = args.threads or available_cores()
    print(f"{library}; numba on {threads} threads")
    building(library, threads, args)
    searching(library, threads, args)


def building(library: ArrayLibrary, threads: int, args) -> None:
    scorer = default_scorer(BUILD_ITEMS, threads)
    array_scorer = scorer.on(library)
    many, few = np.arange(args.build_codes), np.arange(args.numba_codes)

    def array_scores():
        library.get(array_scorer.array_scores(many)[:1])  # waits for all of it

    def array_build():
        build_array_index(array_scorer, many, relu=True, progress=False)

    pairs_many, pairs_few = len(many) * BUILD_ITEMS, len(few) * BUILD_ITEMS
    best = best_rates(
        {
            "scores, array": (array_scores, pairs_many),
            "scores, numba": (lambda: scorer.scores(few), pairs_few),
            "build, array": (array_build, pairs_many),
            "build, numba": (lambda: build(scorer, few), pairs_few),
        },
        args.rounds,
    )
    peaks = {kind: peak(library, kind, args) for kind in ("float32", "bfloat16") if hasattr(library.xp, kind)}
    for kind, flops in peaks.items():
        print(f"{kind} products of {args.square}: {flops / 1e12:.3f} TFLOP/s on {library.device}")
    rows = [
        [name, f"{rate:,.0f}", f"{rate * FLOPS_PER_PAIR / peaks['float32']:.1%}" if "array" in name else ""]
        for name, rate in best.items()
    ]
    show([[f"{BUILD_ITEMS:,} items", "pairs/s", "of the float32 peak"], *rows])


def peak(library: ArrayLibrary, kind: str, args) -> float:
    """FLOP/s of square matrix products in this type, one after the other."""
    square = library.put(np.random.default_rng(0).standard_normal((args.square,) * 2, np.float32))
    square = library.xp.asarray(square, dtype=getattr(library.xp, kind))

    def multiply():
        with library.full_precision():
            for _ in range(PRODUCTS):
                last = square @ square
        library.get(library.xp.asarray(last[:1], dtype=library.xp.float32))  # waits for all

    flops = 2 * args.square**3 * PRODUCTS
    return best_rates({"peak": (multiply, flops)}, args.rounds)["peak"]


def best_rates(works: dict, rounds: int) -> dict[str, float]:
    """Amounts per second, name -> (work, amount); the first round only compiles and warms."""
    best = dict.fromkeys(works, 0.0)
    for counts in range(rounds + 1):
        for name, (work, amount) in works.items():
            rate = amount / seconds(work)
            best[name] = max(best[name], rate) if counts else 0.0
    return best


def searching(library: ArrayLibrary, threads: int, args) -> None:
    table = [["items", "postings per code", "array queries/s", "numba queries/s", "array / numba"]]
    for n_items in args.items:
        postings = min(200 if n_items <= 10_000 else 2000, n_items)
        index = synthetic_index(n_items, args.codes, postings)
        on_library = ArrayIndex.of(index, library)
        codes = np.random.default_rng(1).integers(0, args.codes, (args.batch, TOKENS))
        pairs = zip(on_library.recommend(codes, K), index.recommend(codes, K), strict=True)
        if not all(np.array_equal(ours, theirs) for ours, theirs in pairs):
            sys.exit(f"The answers differ at {n_items} items; nothing was measured.")
        rates = [0.0, 0.0]
        for _ in range(args.rounds):
            for at, one in enumerate((on_library, index)):
                rate = batch_rate(
                    lambda asked, threads, one=one: one.recommend(asked.points, K, threads=threads),
                    Asked(codes),
                    threads,
                    args.seconds,
                )
                rates[at] = max(rates[at], rate)
        table.append(
            [f"{n_items:,}", f"{postings:,}", *(f"{rate:,.0f}" for rate in rates), f"{rates[0] / rates[1]:.2f}x"]
        )
    show(table)


def synthetic_index(n_items: int, n_codes: int, postings: int) -> SparseInvertedIndex:
    """Lists of equal length, with one item from each of as many stretches of the catalogue."""
    rng = np.random.default_rng(0)
    stretch = n_items // postings
    items = np.arange(postings) * stretch + rng.integers(1, stretch + 1, (n_codes, postings))
    scores = rng.gamma(1.0, 1.0, items.size).astype(np.float32) + np.float32(0.01)
    offsets, floors = np.arange(n_codes + 1) * postings, np.zeros(n_codes, np.float32)
    items = items.astype(np.uint32).ravel()
    return SparseInvertedIndex(np.arange(n_codes), offsets, items, scores, floors, n_items)


if __name__ == "__main__":
    main()
