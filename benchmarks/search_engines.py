"""Search by the sparse inverted index against two-tower search by faiss, side by side in one run.

    pip install faiss-cpu
    python benchmarks/search_engines.py [--items 3416 100000 1000000] [--threads 1 2] ...

Both answer "the best 50 items". The index looks up 4 codes per query in synthetic posting lists
(4,096 codes with 2,000 postings each, 200 at up to 10,000 items; items spread evenly, which its
cache likes least). faiss searches synthetic vectors of 64 dimensions by inner product: Flat, which
is exact, and HNSW (M=32) with the smallest efSearch whose recall@50 against Flat's ranking reaches
0.95 and 0.99 on queries other than the measured ones. The recall of the index is against its own
exact ranking. Encoding a user is left out for both, and so is scoring the posting lists, which
build_index.py measures.

single: one query per call, by as many callers as there are threads. batch: one call for all
queries, with as many threads. Engines take turns, round by round; a rate is that of the best round,
p50 and p99 are of single queries, one thread, in that round.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from retrieval import SparseInvertedIndex, overlap  # noqa: E402

WIDTH, M = 64, 32
RECALLS = (0.95, 0.99)
LARGEST_EF = 16384
FORMATS = ("float32", "uint16", "uint8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[3416, 100_000, 1_000_000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--codes", type=int, default=4096, help="codes of the index")
    parser.add_argument("--postings", type=int, help="per code (default: 200 up to 10,000 items, "
                        "2,000 beyond)")  # fmt: skip
    parser.add_argument("--tokens", type=int, default=4, help="codes per query")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--batch", type=int, default=2000, help="queries measured")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ef_construction", type=int, default=200, help="of HNSW; faiss has 40")
    parser.add_argument("--vectors", choices=("clustered", "gaussian"), default="clustered",
                        help="clustered is easier for HNSW, as trained vectors are")  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    args = parser.parse_args()
    faiss = import_faiss()
    results = [compare(faiss, n_items, args) for n_items in args.items]
    if args.json:
        args.json.write_text(json.dumps({"arguments": vars(args), "results": results}, default=str,
                                        indent=1))  # fmt: skip


def import_faiss():
    try:
        import faiss
    except ImportError:
        sys.exit("This benchmark compares with faiss, which is missing: pip install faiss-cpu")
    return faiss


def compare(faiss, n_items: int, args) -> dict:
    postings = min(args.postings or (200 if n_items <= 10_000 else 2000), n_items)
    print(f"\n{n_items:,} items; {args.codes:,} codes x {postings:,} postings, {args.tokens} codes "
          f"per query; {args.vectors} vectors of {WIDTH}; best {args.k}", flush=True)  # fmt: skip
    engines = index_engines(n_items, postings, args) + faiss_engines(faiss, n_items, args)
    for engine in engines:
        measure(engine, args.threads, min(args.seconds, 0.2))  # compiles, warms
        engine["rates"].clear()
    for _ in range(args.rounds):
        for engine in engines:
            measure(engine, args.threads, args.seconds)
    report(engines, args.threads)
    kept = ("name", "recall", "bytes", "build_seconds", "rates", "p50_ms", "p99_ms")
    return {"items": n_items, "engines": [{name: e[name] for name in kept} for e in engines]}


# --- engines: what answers query number i, and all queries


def index_engines(n_items: int, postings: int, args) -> list[dict]:
    rng = np.random.default_rng(0)
    lists = [rng.choice(n_items, postings, replace=False, shuffle=False) for _ in range(args.codes)]
    items = (np.sort(lists, axis=1) + 1).astype(np.uint32).ravel()
    scores = rng.gamma(1.0, 1.0, len(items)).astype(np.float32) + np.float32(0.01)
    offsets = np.arange(args.codes + 1) * postings
    floors = np.zeros(args.codes, np.float32)
    codes = rng.integers(0, args.codes, (args.batch, args.tokens))
    SparseInvertedIndex(np.arange(2), offsets[:3], items[: offsets[2]], scores[: offsets[2]],
                        floors[:2], n_items).compact("uint8")  # compiles  # fmt: skip
    engines = []
    for format in FORMATS:
        began = time.perf_counter()
        if format == "float32":
            exact = index = SparseInvertedIndex(
                np.arange(args.codes), offsets, items, scores, floors, n_items
            )
        else:
            index = exact.compact(format)
        seconds = time.perf_counter() - began
        found = overlap(exact, index, codes[:500], args.k)["overlap"]

        def answer(queries, threads, index=index):
            index.recommend(queries, args.k, threads=threads)

        engines.append(engine(f"index {format}", answer, codes, found,
                              index.statistics()["bytes"], seconds))  # fmt: skip
    return engines


def faiss_engines(faiss, n_items: int, args) -> list[dict]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    items, queries = vectors(n_items, 2 * args.batch, args.vectors)
    tuning, queries = queries[: min(500, args.batch)], queries[args.batch :]
    faiss.omp_set_num_threads(cores)
    began = time.perf_counter()
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(items)
    flat_seconds = time.perf_counter() - began
    began = time.perf_counter()
    hnsw = faiss.IndexHNSWFlat(WIDTH, M, faiss.METRIC_INNER_PRODUCT)
    hnsw.hnsw.efConstruction = args.ef_construction
    hnsw.add(items)
    hnsw_seconds = time.perf_counter() - began
    print(f"HNSW built in {hnsw_seconds:.1f} s by {cores} threads", flush=True)
    wanted, tuned_for = flat.search(queries, args.k)[1], flat.search(tuning, args.k)[1]

    def flat_answer(some, threads):
        faiss.omp_set_num_threads(threads)  # holds for the calling thread alone
        flat.search(some, args.k)

    engines = [engine("faiss Flat", flat_answer, queries, 1.0, faiss_bytes(faiss, flat),
                      flat_seconds)]  # fmt: skip
    size = faiss_bytes(faiss, hnsw)
    for target in RECALLS:
        ef, reached = smallest_ef(faiss, hnsw, tuning, tuned_for, args.k, target)
        if ef is None:
            print(f"HNSW does not reach recall {target}: {reached:.3f} at efSearch {LARGEST_EF}")
            continue
        parameters = faiss.SearchParametersHNSW(efSearch=ef)

        def hnsw_answer(some, threads, parameters=parameters):
            faiss.omp_set_num_threads(threads)
            hnsw.search(some, args.k, params=parameters)

        found = recall(hnsw.search(queries, args.k, params=parameters)[1], wanted)
        engines.append(
            engine(f"HNSW {target} (ef {ef})", hnsw_answer, queries, found, size, hnsw_seconds)
        )
    return engines


def engine(name: str, answer, queries, recall: float, size: int, seconds: float) -> dict:
    return {"name": name, "answer": answer, "queries": queries, "recall": recall, "bytes": size,
            "build_seconds": seconds, "rates": {}, "p50_ms": None, "p99_ms": None}  # fmt: skip


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


def smallest_ef(faiss, hnsw, queries, wanted, k: int, target: float):
    """The smallest efSearch that reaches the recall, to an eighth, or None; and what it reaches."""

    def reached(ef: int) -> float:
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        return recall(hnsw.search(queries, k, params=parameters)[1], wanted)

    high = k
    while (found := reached(high)) < target:
        if high >= LARGEST_EF:
            return None, found
        high = min(2 * high, LARGEST_EF)
    low = high // 2 if high > k else high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        if (there := reached(middle)) >= target:
            high, found = middle, there
        else:
            low = middle
    return high, found


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([np.isin(w, f).mean() for f, w in zip(found, wanted, strict=True)]))


def faiss_bytes(faiss, index) -> int:
    return int(faiss.serialize_index(index).nbytes)


# --- measuring


def measure(engine: dict, thread_counts, seconds: float) -> None:
    """Queries per second of each way to ask; the best of this and earlier rounds stays."""
    answer, queries = engine["answer"], engine["queries"]
    for threads in thread_counts:
        rate, taken = single_rate(answer, queries, threads, seconds)
        if rate > engine["rates"].get(f"single {threads}", 0):
            engine["rates"][f"single {threads}"] = rate
            if threads == 1:
                engine["p50_ms"], engine["p99_ms"] = np.percentile(taken, [50, 99]) * 1e3
        batch = batch_rate(answer, queries, threads, seconds)
        engine["rates"][f"batch {threads}"] = max(
            batch, engine["rates"].get(f"batch {threads}", 0)
        )


def single_rate(answer, queries, callers: int, seconds: float):
    """One query per call from each of the callers; rate of all, seconds each query took."""

    def call(first: int) -> list[float]:
        taken, at = [], first
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until or len(taken) < 5:
            one = at % len(queries)
            answer(queries[one : one + 1], 1)
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


def batch_rate(answer, queries, threads: int, seconds: float) -> float:
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds or calls == 0:
        answer(queries, threads)
        calls += 1
    return calls * len(queries) / (time.perf_counter() - began)


def report(engines: list[dict], thread_counts) -> None:
    ways = [f"{way} {threads}" for way in ("single", "batch") for threads in thread_counts]
    heads = ["queries/s", "recall", *ways, "p50 ms", "p99 ms", "MB", "build s"]
    rows = [
        [e["name"], f"{e['recall']:.4f}", *(f"{e['rates'][way]:,.0f}" for way in ways),
         "-" if e["p50_ms"] is None else f"{e['p50_ms']:.3f}",
         "-" if e["p99_ms"] is None else f"{e['p99_ms']:.3f}",
         f"{e['bytes'] / 1e6:.1f}", f"{e['build_seconds']:.2f}"]
        for e in engines
    ]  # fmt: skip
    show([heads, *rows])
    ours = [e for e in engines if e["name"].startswith("index")]
    rows = [
        [f"{e['name']} / {other['name']}", "",
         *(f"{e['rates'][way] / other['rates'][way]:.2f}x" for way in ways), "", "",
         f"{e['bytes'] / other['bytes']:.2f}x", ""]
        for other in engines if other not in ours for e in ours
    ]  # fmt: skip
    show([["ratio", "", *ways, "", "", "MB", ""], *rows])


def show(table: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print()
    for row in table:
        first, *rest = (
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip(), flush=True)


if __name__ == "__main__":
    main()
