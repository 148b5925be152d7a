"""Built pairs per second of each interaction: scores of codes and items for an index, beside the dot product's.

    python benchmarks/built_pairs.py [--items 3416] [--codes 128] [--threads 0] [--rounds 5]

Every interaction has the default settings of work.py and starting values, one codebook, and no bias.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.build_index import arguments, seconds  # noqa: E402
from retrieval import CodeScorer  # noqa: E402
from retrieval.interactions import INTERACTIONS, interaction  # noqa: E402
from retrieval.search import available_cores  # noqa: E402
from work import Hyperparameters  # noqa: E402


def main() -> int:
    args = arguments(__doc__.splitlines()[0])
    codes, threads = np.arange(args.codes), args.threads or available_cores()
    scorers = {name: scorer_of(name, args.items, args.codes, threads) for name in INTERACTIONS}
    least = dict.fromkeys(scorers, np.inf)
    for round_ in range(args.rounds + 1):
        for name, scorer in scorers.items():
            took = seconds(scorer.scores, codes)
            least[name] = min(least[name], took) if round_ else np.inf  # the first one compiles
    pairs = args.codes * args.items
    print(f"{args.items:,} items, {args.codes} codes, threads {threads}; best of {args.rounds}\n")
    print("| interaction | built pairs/s | time of a pair, of the dot product's |\n|---|---|---|")
    for name, took in least.items():
        label = f"{name} + dot" if INTERACTIONS[name].takes_dot else name
        print(f"| {label} | {pairs / took:,.0f} | {took / least['dot']:,.1f} |")
    return 0


def scorer_of(name: str, n_items: int, n_codes: int, threads: int) -> CodeScorer:
    settings, rng = dataclasses.asdict(Hyperparameters()), np.random.default_rng(0)
    codewords = rng.standard_normal((1, n_codes, settings["token_embedding_size"])).astype(np.float32)
    items = rng.standard_normal((n_items, settings["embedding_size"])).astype(np.float32)
    weights = interaction(name, settings).weights(rng)
    return CodeScorer(name, settings, weights, items, codewords=codewords, threads=threads)


if __name__ == "__main__":
    sys.exit(main())
