"""End to end at a million items: build to disk, load, shrink, search; seconds and peak memory.

    python benchmarks/million_items.py [--items 1000000] [--codes 4096] [--postings 2000]

The catalogue is synthetic. The scorer is a product of 64-d vectors with ReLU, so that the run
measures the index; build_index.py measures the scorer of the model. Peak memory is the resident set
of the process (in each stage, where Linux can tell, and otherwise up to it), mapped pages of the
index included. Exits with 1 if the build takes more memory than build_to_disk states.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from retrieval import CodeScorer, build_to_disk, load_index, overlap  # noqa: E402
from retrieval.blocks import BLOCK_BYTES  # noqa: E402

WIDTH, TOKENS, K = 64, 4, 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--codes", type=int, default=4096, help="two codebooks; a square number")
    parser.add_argument("--postings", type=int, default=2000, help="at most, per code")
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--folder", help="where to put the index (default: a temporary folder)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        return run(args, Path(folder))


def run(args, folder: Path) -> int:
    n_codes = int(np.sqrt(args.codes)) ** 2
    print(f"{args.items:,} items, {n_codes:,} codes, at most {args.postings:,} postings each")
    print(f"{'stage':<28} {'seconds':>9} {'peak MB':>9}")
    with stage("compile (a tiny build)"):
        options = {"relu": True, "max_postings": 50, "progress": False}
        index = build_to_disk(dot_scorer(500, 16), range(16), 500, folder / "tiny", **options)
        for one in (index, index.compact("uint8")):
            one.recommend([[0, 1, 2, 3]], 10)
    with stage("catalogue and scorer"):
        scorer = dot_scorer(args.items, n_codes)
    before = resident()
    with stage("build to disk") as built:
        index = build_to_disk(
            scorer, range(n_codes), args.items, folder / "index", relu=True, max_postings=args.postings
        )
    stated = 3 * max(BLOCK_BYTES, 4 * args.items) + 64 * n_codes + (16 << 20)
    on_disk = sum(path.stat().st_size for path in (folder / "index").iterdir())
    del index
    with stage("load (mapped, checked)"):
        index = load_index(folder / "index")
    with stage("load (into memory, checked)"):
        load_index(folder / "index", mmap=False)
    with stage("compact uint8 and save"):
        index.compact("uint8").save(folder / "compact")
    with stage("load compact"):
        compact = load_index(folder / "compact")
    codes = np.random.default_rng(1).integers(0, n_codes, (args.queries, TOKENS))
    for name, one in (("exact", index), ("uint8", compact)):
        with stage(f"{name}: {args.queries:,} queries") as searched:
            one.recommend(codes, K)
        rate = args.queries / searched["seconds"]
        taken = [seconds(one.recommend, query[None], K, threads=1) for query in codes[:500]]
        p50, p99 = np.percentile(taken, [50, 99]) * 1e3
        print(f"  {rate:,.0f} queries/s in a batch; single p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    lost = overlap(index, compact, codes[:500], K)
    sizes = index.statistics()
    print(f"postings            {sizes['postings']:,} (sparsity {sizes['sparsity']:.4%})")
    small = compact.statistics()["bytes"]
    print(
        f"on disk             {on_disk / 1e6:.0f} MB; uint8 {small / 1e6:.0f} MB "
        f"with {lost['overlap']:.4f} of the best {K} kept"
    )
    mapped = on_disk if built["peak"] else 0
    taken = built["peak"] - before
    print(
        f"memory of the build {taken / 1e6:.0f} MB more than before it; stated at most "
        f"{stated / 1e6:.0f} MB and the mapped index, {mapped / 1e6:.0f} MB"
    )
    return 0 if taken <= stated + mapped else 1


def dot_scorer(n_items: int, n_codes: int) -> CodeScorer:
    rng = np.random.default_rng(0)
    side = int(np.sqrt(n_codes))

    def normal(*shape):
        return rng.standard_normal(shape, np.float32)

    codewords, items = normal(2, side, WIDTH), normal(n_items, WIDTH) / np.float32(np.sqrt(WIDTH))
    settings = {"embedding_size": WIDTH, "token_embedding_size": WIDTH}
    return CodeScorer("dot", settings, {}, items, codewords=codewords, score_bias=-1.0)


class stage:
    """Prints what its block took: {"seconds", "peak" bytes}."""

    def __init__(self, name: str):
        self.name, self.took = name, {}

    def __enter__(self) -> dict:
        reset_peak()
        self.began = time.perf_counter()
        return self.took

    def __exit__(self, *error) -> None:
        self.took.update(seconds=time.perf_counter() - self.began, peak=peak())
        if not any(error):
            print(f"{self.name:<28} {self.took['seconds']:>9.2f} {self.took['peak'] / 1e6:>9.0f}", flush=True)


def reset_peak() -> None:
    with contextlib.suppress(OSError):  # else the peak counts from the start of the process
        Path("/proc/self/clear_refs").write_text("5")


def resident() -> int:
    return _status("VmRSS") or peak()


def peak() -> int:
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int | None:
    """Bytes of an entry of /proc/self/status, or None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def seconds(work, *arguments, **options) -> float:
    began = time.perf_counter()
    work(*arguments, **options)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
