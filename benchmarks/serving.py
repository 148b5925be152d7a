"""Serving a user without MindSpore: do the codes agree with the model's, and what does a query take?

    python work.py --mode export --checkpoint runs/NAME/best.ckpt
    python benchmarks/serving.py runs/NAME

Compares the codes of query.onnx with those of the checkpoint for all held-out users. Then every one
of them asks once, alone and on one thread, for the best 50 items with the history left out: encoding
and look-up together. The first query with a code that the index lacks also pays for scoring it.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.trained import Trained, on_cpu  # noqa: E402
from retrieval import load_index  # noqa: E402
from retrieval.engines.onnx_query import OnnxQuery  # noqa: E402
from retrieval.served import open_served  # noqa: E402


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of an exported DQMatch run")
    parser.add_argument("--k", type=int, default=50)
    args = parser.parse_args(arguments)
    with on_cpu():
        trained = Trained(args.run, "DQMatch")
        held_out = (trained.data.valid, trained.data.test)
        expected = np.concatenate([trained.query_side.codes(queries) for queries in held_out])  # (U, C)
    encoder = OnnxQuery(args.run / "query.onnx")
    index, recommender = load_index(args.run / "index"), open_served(args.run, threads=1)
    found, seconds = [], []
    for queries in held_out:
        for user in range(len(queries)):
            one = queries.take(np.array([user]))
            found.append(encoder.codes(one.histories, one.users))  # also warms the caches up, as traffic would
            began = time.perf_counter()
            recommender.recommend(one, args.k)
            seconds.append(time.perf_counter() - began)
    codes = np.concatenate(found)
    print(f"{np.sum(codes != expected):,} of {codes.size:,} codes of {len(codes):,} held-out users differ")
    known, ms = index.contains(codes).all(1), 1e3 * np.array(seconds)
    for name, times in (("all codes in the index", ms[known]), ("a code to be scored", ms[~known])):
        if len(times):
            p50, p99 = np.quantile(times, (0.5, 0.99))
            print(f"{name}: {len(times):,} users, p50 {p50:.3f} ms, p99 {p99:.3f} ms")


if __name__ == "__main__":
    main()
