"""What an item costs as the catalogue grows: building, bytes, loading and searching, 10k to 1M items.

    python benchmarks/growth.py [--items 10000 30000 100000 300000 1000000] [--postings 500] ...

The catalogues are those of million_items.py: synthetic, with a scorer that is a product of 64-d
vectors. The codes and the postings per code stay the same for all sizes, as with a cap; building
then scores more pairs for every item, while the lists that are stored and searched stay as long as
they were and spread over more items.

Per number of items: seconds to build to disk, bytes of the index, seconds to load it (every byte is
checked) mapped and into memory, microseconds per query of a batch, and the peak memory of the
build, which build_to_disk bounds. The last line is the slope of a line through the logarithms: 1 is
in proportion to the items, 0 is no growth at all, and above 1 an item costs more the more there
are. Fixed costs make it smaller, in the small catalogues most of all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import Asked, batch_rate, show  # noqa: E402
from benchmarks.million_items import TOKENS, K, dot_scorer, peak, reset_peak, seconds  # noqa: E402
from retrieval import build_to_disk, load_index  # noqa: E402

LOADS = 3  # the fastest one counts
SPARE = 20  # items per posting: enough score above 0 for the list of every code to reach the cap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 30_000, 100_000, 300_000, 1_000_000])
    parser.add_argument("--codes", type=int, default=4096, help="two codebooks; a square number")
    parser.add_argument("--postings", type=int, default=500, help="per code, at every size")
    parser.add_argument("--queries", type=int, default=5000, help="in a batch")
    parser.add_argument("--threads", type=int, default=1, help="of the search")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a search")
    parser.add_argument("--folder", help="where to put the indexes (default: a temporary folder)")
    args = parser.parse_args()
    sizes = sorted(set(args.items))
    if len(sizes) < 2 or sizes[0] < SPARE * args.postings:
        parser.error(f"--items takes two sizes or more, each at least {SPARE} times --postings")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        grow(sizes[0], args, Path(folder))  # compiles
        table = [grow(n_items, args, Path(folder)) for n_items in sizes]
    names = list(table[0])
    rows = [
        [f"{n_items:,}", *(f"{row[name]:.4g}" for name in names)] for n_items, row in zip(sizes, table, strict=True)
    ]
    slopes = [f"{exponent(sizes, [row[name] for row in table]):+.2f}" for name in names]
    show([["items", *names], *rows, ["slope", *slopes]])
    per_item = [
        f"{row['build s'] / n_items * 1e6:.3g} us and {row['MB'] / n_items * 1e6:.4g} bytes"
        for n_items, row in zip(sizes, table, strict=True)
    ]
    print(f"\nper item, at {sizes[0]:,} and at {sizes[-1]:,} items: {per_item[0]}; {per_item[-1]}")


def grow(n_items: int, args, folder: Path) -> dict[str, float]:
    """One catalogue: build its index, load it, search it, remove it."""
    n_codes = int(np.sqrt(args.codes)) ** 2
    scorer = dot_scorer(n_items, n_codes)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        reset_peak()
        built = seconds(
            build_to_disk,
            scorer,
            range(n_codes),
            n_items,
            Path(place) / "index",
            relu=True,
            max_postings=args.postings,
            progress=False,
        )
        memory = peak()
        mapped, copied = (
            min(seconds(load_index, Path(place) / "index", mmap=mmap) for _ in range(LOADS)) for mmap in (True, False)
        )
        index = load_index(Path(place) / "index", mmap=False)
    codes = np.random.default_rng(1).integers(0, n_codes, (args.queries, TOKENS))

    def answer(asked: Asked, threads: int):
        return index.recommend(asked.points, K, threads=threads)

    answer(Asked(codes[:64]), args.threads)  # touches the accumulators
    rate = batch_rate(answer, Asked(codes), args.threads, args.seconds)
    sizes = index.statistics()
    return {
        "build s": built,
        "MB": sizes["bytes"] / 1e6,
        "postings per code": sizes["postings"] / n_codes,
        "load mapped s": mapped,
        "load s": copied,
        "us per query": 1e6 / rate,
        "peak MB": memory / 1e6,
    }


def exponent(sizes, costs) -> float:
    """The b of costs ~ a * sizes^b that fits best in logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


if __name__ == "__main__":
    main()
