"""Pairs per second of CodeScorer against the machine's sgemm peak, both measured here, in turns.

    python benchmarks/build_index.py [--items 3416] [--codes 128] [--threads 0] [--rounds 5]

The scorer is the paper's MLP: token 64 + item 256 -> 256, 256, 256 -> 1. The share of
the peak counts the matrix products that a pair needs after the exact split of the first layer;
bias, ReLU and the addition that the split leaves count for nothing. Exits with 1 below the target.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from retrieval import CodeScorer, build_index  # noqa: E402
from retrieval.interactions import interaction  # noqa: E402
from retrieval.search import available_cores  # noqa: E402

TARGET = 0.85
WIDTH, HIDDEN = 64, (256, 256, 256)
SETTINGS = {
    "embedding_size": WIDTH,
    "token_embedding_size": WIDTH,
    "K_i": 4,
    "interaction_hidden": HIDDEN,
    "interaction_dot": False,
}
FLOPS_PER_PAIR = 2 * (HIDDEN[0] * HIDDEN[1] + HIDDEN[1] * HIDDEN[2] + HIDDEN[2])
SQUARES = (512, 1024)  # sizes of the products that measure the peak; the faster one counts


def arguments(description: str) -> argparse.Namespace:
    """The flags of a benchmark that scores codes and items."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--items", type=int, default=3416, help="catalogue size (default: ml-1m)")
    parser.add_argument("--codes", type=int, default=128, help="codes scored per measurement")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each; best counts")
    return parser.parse_args()


def main() -> int:
    args = arguments(__doc__.splitlines()[0])
    threads = args.threads or available_cores()

    scorer = default_scorer(args.items, threads)
    codes = np.arange(args.codes)
    build(scorer, codes[:threads])  # compiles

    peaks, rates, builds = [], [], []
    for _ in range(args.rounds):  # in turns: what else the machine does disturbs all alike
        peaks.append(max(sgemm_flops(threads, size) for size in SQUARES))
        rates.append(args.codes * args.items / seconds(scorer.scores, codes))
        builds.append(args.codes * args.items / seconds(build, scorer, codes))
    shares = [rate * FLOPS_PER_PAIR / peak for rate, peak in zip(rates, peaks, strict=True)]
    rate, peak = max(rates), max(peaks)
    share = rate * FLOPS_PER_PAIR / peak
    best = f"best of {args.rounds}; per round {min(shares):.1%} to {max(shares):.1%}"

    print(f"threads             {threads}, one BLAS thread each")
    print(f"sgemm peak          {peak / 1e9:.0f} GFLOP/s")
    print(f"scorer              {rate / 1e3:.0f}k pairs/s at {FLOPS_PER_PAIR} FLOP per pair")
    print(f"share of peak       {share:.1%} ({best}); target {TARGET:.0%}")
    print(f"build with postings {max(builds) / 1e3:.0f}k pairs/s")
    print(f"65,536 codes        {65536 * args.items / max(builds) / 60:.1f} minutes at this rate")
    return 0 if share >= TARGET else 1


def seconds(work, *arguments) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def build(scorer: CodeScorer, codes):
    return build_index(scorer, codes, scorer.n_items, relu=True, progress=False)


def default_scorer(n_items: int, threads: int) -> CodeScorer:
    """The paper's MLP at its starting values: K_c 256, two codebooks, K_i 4."""
    rng = np.random.default_rng(0)

    weights = interaction("DNN", SETTINGS).weights(rng)
    codewords = rng.standard_normal((2, 256, WIDTH)).astype(np.float32)
    items = rng.standard_normal((n_items, WIDTH)).astype(np.float32)
    return CodeScorer("DNN", SETTINGS, weights, items, codewords=codewords, score_bias=0.0, threads=threads)


def sgemm_flops(threads: int, size: int) -> float:
    """FLOP/s of independent square products, one BLAS thread per core."""
    rng = np.random.default_rng(0)
    operands = [rng.standard_normal((3, size, size)).astype(np.float32) for _ in range(threads)]
    repeats = 48 * 512**3 // size**3

    def multiply(arrays):
        a, b, c = arrays
        for _ in range(repeats):
            np.matmul(a, b, out=c)

    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        list(pool.map(multiply, operands))  # warm
        took = seconds(lambda: list(pool.map(multiply, operands)))
    return threads * repeats * 2 * size**3 / took


if __name__ == "__main__":
    sys.exit(main())
