"""The ten best items after a history, without MindSpore: what it needs is numpy, numba and onnxruntime.

    python work.py --mode export --checkpoint runs/NAME/best.ckpt
    python examples/serve.py runs/NAME 1 2 3 --items data/ml-1m/FOLDER/items.csv

Codes of the history that the index lacks are scored with runs/NAME/scorer.npz, as a run does.
"""

import argparse
import csv
import sys
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from retrieval.engines.onnx_query import OnnxQuery  # noqa: E402
from retrieval.served import open_served  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("run", type=Path, help="folder with manifest.json, query.onnx, scorer.npz and index/")
parser.add_argument("history", type=int, nargs="+", help="item ids, oldest first")
parser.add_argument("--items", help="items.csv, for the titles")
parser.add_argument("--user", nargs="*", help="what is known of the user, as in gender=F age=25; needed by some runs")
args = parser.parse_args()
titles = {}
try:
    if args.items:
        with open(args.items, encoding="utf-8", newline="") as file:
            titles = {int(row["id"]): row["title"] for row in csv.DictReader(file)}
except (KeyError, OSError, TypeError, ValueError, csv.Error) as error:
    sys.exit(f"error: {args.items} cannot be read ({error!r}); give the items.csv of the prepared data.")
try:
    history = SimpleNamespace(offsets=[0, len(args.history)], values=args.history)
    users = None if args.user is None else OnnxQuery(args.run / "query.onnx").user(args.user)
    served = open_served(args.run)
    items, scores = served.recommend(SimpleNamespace(histories=history, users=users), min(10, served.most))
except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
for item, score in zip(items[items > 0], scores[items > 0], strict=True):
    print(f"{item:8d}  {score:9.4f}  {titles.get(item, '')}")
