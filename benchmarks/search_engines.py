"""Search by the sparse inverted index against two-tower search by faiss, side by side in one run.

    pip install faiss-cpu
    python benchmarks/search_engines.py [--items 3416 100000 1000000] [--threads 1 2] ...
    python benchmarks/search_engines.py --sparcode runs/DQMATCH --two_tower runs/TWOTOWER ...

Both answer "the best 50 items". Without runs, the index looks up 4 codes per query in synthetic
posting lists (4,096 codes with 2,000 postings each, 200 at up to 10,000 items; items spread evenly,
which its cache likes least), as they are and cut to several caps, whose recall is that of the
ranking by the whole lists; and faiss searches synthetic vectors of 64 dimensions by inner
product: Flat, which is exact, and HNSW (M=32) with the smallest efSearch whose recall@50 against
Flat's ranking reaches 0.95 and 0.99 on queries other than the measured ones.

With runs, both serve the test users of one dataset: the index that the DQMatch run saved, with its
postings as they are and cut to several caps, in three formats; and faiss the vectors of the
TwoTower run (efSearch is chosen on validation users). The answers leave out the history, and the
time counts all that takes: the index masks it, faiss fetches as many more results as the history is
long and drops what was seen (--exclude_seen 0 spares both of them that). recall is against the
exhaustive ranking of each one's own model; R@50 is against the held-out items, and p says how
likely the loss (or gain) of R@50 against DQMatch's own exhaustive ranking is chance, by a paired
t-test over users. The test users are repeated to fill a batch.

Encoding a user is left out for both (with runs, its rate is printed), and so is scoring the
posting lists of synthetic ones, which build_index.py measures; build s of a run's index is scoring
all its codes and cutting the lists.

single: one query per call, by as many callers as there are threads. batch: one call for all
queries, with as many threads. Engines take turns, round by round; a rate is that of the best round,
p50 and p99 are of single queries, one thread, in that round. The last lines hold the fastest index
against what it is meant to reach: 3 times HNSW's queries/s at recall 0.95 with 100,000 items or
more; with runs, Flat's in batches, by lists cut without a significant loss of R@50.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.faiss_search import RECALLS, FaissSearch, import_faiss, recall  # noqa: E402
from benchmarks.measuring import Asked, Engine, compete, report  # noqa: E402
from metric import compare, measure  # noqa: E402
from retrieval import SparseInvertedIndex, overlap  # noqa: E402

WIDTH = 64
FORMATS = ("float32", "uint16", "uint8")
HNSW_TARGET = 3.0  # times HNSW's queries/s at the lower recall of RECALLS
FLAT_TARGET = 1.5  # times Flat's queries/s in batches, on trained runs
HNSW_TARGET_FROM = 100_000  # items
SIGNIFICANT, LOSS = 0.05, " loss"


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[3416, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--codes", type=int, default=4096, help="codes of the index")
    parser.add_argument("--postings", type=int, help="per code (default: 200 up to 10,000 items, 2,000 beyond)")
    parser.add_argument("--tokens", type=int, default=4, help="codes per query")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--batch", type=int, default=2000, help="queries measured")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ef_construction", type=int, default=200, help="of HNSW; faiss has 40")
    parser.add_argument(
        "--vectors",
        choices=("clustered", "gaussian"),
        default="clustered",
        help="clustered is easier for HNSW, as trained vectors are",
    )
    parser.add_argument("--sparcode", type=Path, help="folder of a DQMatch run")
    parser.add_argument("--two_tower", type=Path, help="folder of a TwoTower run")
    parser.add_argument(
        "--caps",
        type=int,
        nargs="*",
        default=[1600, 1200, 800, 500, 200, 100],
        help="most postings per code, beside the index as it is",
    )
    parser.add_argument("--exclude_seen", type=int, choices=(0, 1), default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args(arguments)
    import_faiss()
    if (args.sparcode is None) != (args.two_tower is None):
        parser.error("give --sparcode and --two_tower together, a run of DQMatch and of TwoTower")
    synthetic = (compare_synthetic(n_items, args) for n_items in args.items)
    results = [compare_trained(args)] if args.sparcode else list(synthetic)
    if args.json:
        args.json.write_text(json.dumps({"arguments": vars(args), "results": results}, default=str, indent=1))


def compare_synthetic(n_items: int, args) -> dict:
    postings = min(args.postings or (200 if n_items <= 10_000 else 2000), n_items)
    print(
        f"\n{n_items:,} items; {args.codes:,} codes x {postings:,} postings, {args.tokens} codes "
        f"per query; {args.vectors} vectors of {WIDTH}; best {args.k}",
        flush=True,
    )
    items, queries = vectors(n_items, 2 * args.batch, args.vectors)
    tuning, queries = queries[: min(500, args.batch)], queries[args.batch :]
    ours = synthetic_engines(n_items, postings, args)
    others = FaissSearch(items, args.ef_construction).engines(Asked(queries), Asked(tuning), args.k)
    return run(n_items, ours, others, args)


def compare_trained(args) -> dict:
    from benchmarks.trained import Trained, on_cpu

    with on_cpu():
        sparcode = Trained(args.sparcode, "DQMatch")
        two_tower = Trained(args.two_tower, "TwoTower", sparcode.data)
        return _compare_trained(sparcode, two_tower, args)


def _compare_trained(sparcode, two_tower, args) -> dict:
    data, k, exclude_seen = sparcode.data, args.k, bool(args.exclude_seen)
    users, n_items = data.test, data.catalogue.n_items
    rows = np.arange(args.batch) % len(users)
    ranking = sparcode.ranking(users, k, exclude_seen)
    exhaustive = measure(ranking, users.targets, [k])

    index = sparcode.saved_index()
    codes = index.codes[index.codes < sparcode.model.quantiser.n_codes]  # the others are items, which nobody scores
    _, build_seconds = sparcode.build(codes, index.pruning)
    print(
        f"\n{data.prepared.label}: {n_items:,} items, {len(users):,} test users, "
        f"{users.histories.lengths().mean():.0f} items in a history on average, "
        f"{'left out' if exclude_seen else 'not left out'}; best {k}"
    )
    print(
        f"DQMatch by exhaustive scoring: R@{k} {exhaustive.mean('recall', k):.4f}; users encoded "
        f"per second: DQMatch {sparcode.encoding_rate(users):,.0f}, TwoTower "
        f"{two_tower.encoding_rate(users):,.0f}",
        flush=True,
    )

    asked = sparcode.asked(users, exclude_seen)
    longest = index.statistics()["postings_max"]
    ours = []
    for cap in [None, *(cap for cap in args.caps if cap < longest)]:
        began = time.perf_counter()
        cut = index if cap is None else index.prune(max_postings=cap)
        seconds = build_seconds + time.perf_counter() - began
        name = f"index {'as it is' if cap is None else f'of {cap}'}"
        ours += index_engines(name, cut, asked.take(rows), k, seconds)
    for engine in ours:
        judge(engine, asked, ranking, users.targets, exhaustive)

    asked = two_tower.asked(users, exclude_seen)
    faiss = FaissSearch(two_tower.item_vectors(), args.ef_construction)
    others = faiss.engines(asked.take(rows), two_tower.asked(data.valid, exclude_seen), k)
    ranking = two_tower.ranking(users, k, exclude_seen)
    for engine in others:
        judge(engine, asked, ranking, users.targets, exhaustive)
    return run(n_items, ours, others, args)


def judge(engine: Engine, asked: Asked, ranking: np.ndarray, held_out, exhaustive) -> None:
    """Fills in its recall of the ranking of its own model, [U, k], and its metrics on the held-out
    items; notes how those compare with DQMatch's `exhaustive` scoring (`Metrics`)."""
    found, k = engine.answer(asked, 1)[0], ranking.shape[1]
    engine.recall = recall(found, ranking)
    engine.held_out = measure(found, held_out, [k])
    test = compare(engine.held_out, exhaustive, "recall", k)
    loses = test.difference < 0 and test.p < SIGNIFICANT
    engine.notes[f"R@{k}"] = f"{engine.held_out.mean('recall', k):.4f}"
    engine.notes["p"] = f"{test.p:.2g}{LOSS if loses else ''}"


def run(n_items: int, ours: list[Engine], others: list[Engine], args) -> dict:
    compete(ours + others, args.threads, args.seconds, args.rounds)
    report(ours, others, args.threads)
    targets(ours, others, n_items, args)
    return {"items": n_items, "engines": [engine.numbers() for engine in ours + others]}


def targets(ours: list[Engine], others: list[Engine], n_items: int, args) -> None:
    """Prints how far the best of ours is ahead of what it is set against, beside what is asked."""
    flat, *graphs = others
    ways = [f"{way} {threads}" for way in ("single", "batch") for threads in args.threads]
    print()
    if args.sparcode:
        sound = [one for one in ours if not one.notes["p"].endswith(LOSS)]
        batches = [way for way in ways if way.startswith("batch")]
        tell(sound, flat, batches, FLAT_TARGET, f"no significant loss of R@{args.k}")
    elif n_items >= HNSW_TARGET_FROM and graphs:
        sound = [one for one in ours if one.recall >= RECALLS[0]]
        tell(sound, graphs[0], ways, HNSW_TARGET, f"recall of at least {RECALLS[0]}")


def tell(ours: list[Engine], other: Engine, ways: list[str], target: float, what: str) -> None:
    if not ours:
        print(f"no index has {what}; target missed")
        return
    for way in ways:
        best = max(ours, key=lambda one: one.rates[way])
        ratio = best.rates[way] / other.rates[way]
        verdict = "met" if ratio >= target else "missed"
        print(f"{way}: {best.name} (fastest with {what}) / {other.name}: {ratio:.2f}x; target {target:g}x {verdict}")


# --- what is searched


def synthetic_engines(n_items: int, postings: int, args) -> list[Engine]:
    rng = np.random.default_rng(0)
    lists = [rng.choice(n_items, postings, replace=False, shuffle=False) for _ in range(args.codes)]
    items = (np.sort(lists, axis=1) + 1).astype(np.uint32).ravel()
    scores = rng.gamma(1.0, 1.0, len(items)).astype(np.float32) + np.float32(0.01)
    offsets = np.arange(args.codes + 1) * postings
    floors = np.zeros(args.codes, np.float32)
    codes = rng.integers(0, args.codes, (args.batch, args.tokens))
    SparseInvertedIndex(
        np.arange(2), offsets[:3], items[: offsets[2]], scores[: offsets[2]], floors[:2], n_items
    ).compact("uint8")  # compiles
    began = time.perf_counter()
    index = SparseInvertedIndex(np.arange(args.codes), offsets, items, scores, floors, n_items)
    seconds, asked = time.perf_counter() - began, Asked(codes)
    engines = index_engines("index", index, asked, args.k, seconds)
    for cap in args.caps:  # shorter lists find less, as HNSW does with a smaller efSearch
        if cap < postings:
            cut = index.prune(max_postings=cap)
            engines += index_engines(f"index of {cap}", cut, asked, args.k, seconds, ("uint8",), index)
    return engines


def index_engines(name: str, index, asked: Asked, k: int, seconds: float, formats=FORMATS, whole=None) -> list[Engine]:
    """The index in several formats; recall is against its exact form, or `whole`; seconds what that took."""
    engines, some = [], asked.take(np.arange(min(500, len(asked))))
    for format in formats:
        began = time.perf_counter()
        one = index if format == "float32" else index.compact(format)
        engine = index_engine(f"{name} {format}", one, asked, k)
        engine.build_seconds = seconds + time.perf_counter() - began
        engine.recall = overlap(whole or index, one, some.points, k, some.seen, some.weights)["overlap"]
        engines.append(engine)
    return engines


def index_engine(name: str, index, asked: Asked, k: int) -> Engine:
    def answer(queries: Asked, threads: int):
        return index.recommend(queries.points, k, queries.seen, queries.weights, threads)

    return Engine(name, answer, asked, bytes=index.statistics()["bytes"])


def vectors(n_items: int, n_queries: int, kind: str):
    """Items and queries, float32 of length 1. Clustered: around one centre per 100 items, with as
    much noise as signal; a query is drawn like an item."""
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal((n_items + n_queries, WIDTH), np.float32)
    if kind == "clustered":
        centres = rng.standard_normal((max(2, n_items // 100), WIDTH), np.float32)
        drawn += centres[rng.integers(0, len(centres), len(drawn))]
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn[:n_items], drawn[n_items:]


if __name__ == "__main__":
    main()
