"""Accuracy, speed and memory on one picture:
`python -m experiments.frontier --sparcode runs/A --two_tower runs/B --all_to_all runs/C`.

Takes a trained run of each model on the same data and writes results/frontier.csv, .md and .png:

- SparCode: the index of the DQMatch run over all its codes, with 25 .. all items per posting list at most, in float32
  and in uint8;
- two-tower: faiss over the vectors of the TwoTower run, Flat, and HNSW at the efSearch that finds 95 % and 99 % of
  Flat's answer on the validation users;
- all-to-all: the AllToAll run scores every item for the user's tokens, without an index.

What is timed is the way from codes, a vector or tokens to the best 50 items with the history left out; encoding the
history is not. Queries/s are those of one batch (the test users repeated) on all cores that the process may use; p50
and p99 are of one query per call on one core. All-to-all has none: its scorer is made for many tokens at once, and
spends most of a single query on holding the BLAS to one thread. Engines take turns and the best round counts.

R@50 is of the held-out items of the test users, low and high its 95 % interval, p of a paired t-test against DQMatch's
exhaustive scoring. recall is against the exhaustive ranking of the same model. MB is what is searched: posting lists;
vectors and graph; the item side of the interaction.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.faiss_search import FaissSearch, import_faiss
from benchmarks.measuring import Engine, compete
from benchmarks.search_engines import index_engine, judge
from benchmarks.trained import Trained, on_cpu
from experiments.results import markdown
from files import fresh
from metric import measure
from retrieval import frontier
from retrieval.ranking import top_k
from retrieval.search import available_cores

CAPS = (25, 50, 100, 200, 400, 800, 1200, 1600, 2400)
EF_CONSTRUCTION = 200
LOOKS = {  # Okabe and Ito's colours, which colour-blind readers can tell apart; the shapes differ too
    "SparCode float32": {"color": "#0072B2", "marker": "o", "linestyle": "-"},
    "SparCode uint8": {"color": "#56B4E9", "marker": "s", "linestyle": "--"},
    "two-tower Flat": {"color": "#D55E00", "marker": "D", "linestyle": ""},
    "two-tower HNSW": {"color": "#E69F00", "marker": "^", "linestyle": ""},
    "all-to-all": {"color": "#009E73", "marker": "*", "linestyle": ""},
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparcode", required=True, help="folder of a DQMatch run")
    parser.add_argument("--two_tower", required=True, help="folder of a TwoTower run")
    parser.add_argument("--all_to_all", required=True, help="folder of an AllToAll run")
    parser.add_argument("--caps", type=int, nargs="+", default=CAPS, help="most postings per code")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--batch", type=int, default=2000, help="queries in a batch")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(arguments)
    import_faiss()
    with on_cpu():
        sparcode = Trained(args.sparcode, "DQMatch")
        two_tower = Trained(args.two_tower, "TwoTower", sparcode.data)
        all_to_all = Trained(args.all_to_all, "AllToAll", sparcode.data)
        users, engines = sparcode.data.test, []
        exhaustive = measure(sparcode.ranking(users, args.k, True), users.targets, [args.k])
        for trained, make in (
            (sparcode, sparcode_engines),
            (two_tower, two_tower_engines),
            (all_to_all, all_to_all_engines),
        ):
            asked, ranking = trained.asked(users), trained.ranking(users, args.k, True)
            for engine in make(trained, asked.take(np.arange(args.batch) % len(users)), args):
                judge(engine, asked, ranking, users.targets, exhaustive)
                engines.append(engine)
        compete(engines, sorted({1, available_cores()}), args.seconds, args.rounds)
    rows = [row(engine, args.k) for engine in engines]
    text = markdown(rows)
    print(text)
    results = Path("results")
    with fresh(results / "frontier.md", "w") as file:
        file.write(text + "\n")
    with fresh(results / "frontier.csv", "w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    title = f"{sparcode.data.prepared.label}: {len(users):,} test users, history left out"
    picture(rows, f"R@{args.k}", title, results / "frontier.png")


def sparcode_engines(trained, asked, args):
    """The unpruned index and what is left of it under every cap, in both formats."""
    caps = sorted(cap for cap in args.caps if cap < trained.data.catalogue.n_items)
    limits = [*({"max_postings": cap} for cap in caps), {}]
    settings = [limit | format for format in ({}, {"format": "uint8"}) for limit in limits]
    engines = []
    for cut in frontier(trained.full_index(), settings, lambda index: index_engine("", index, asked, args.k)):
        engine = cut["value"]
        engine.notes |= {
            "engine": f"SparCode {cut['format']}",
            "setting": str(cut["setting"].get("max_postings", "all")),
            "postings per code": f"{cut['postings_per_code']:.0f}",
            "sparsity": f"{cut['sparsity']:.2%}",
        }
        engines.append(engine)
    return engines


def two_tower_engines(trained, asked, args):
    """faiss over the vectors of a TwoTower."""
    faiss = FaissSearch(trained.item_vectors(), EF_CONSTRUCTION)
    engines = faiss.engines(asked, trained.asked(trained.data.valid), args.k)
    for engine in engines:
        kind, _, setting = engine.name.removeprefix("faiss ").partition(" ")
        engine.notes |= {"engine": f"two-tower {kind}", "setting": setting}
    return engines


def all_to_all_engines(trained, asked, args):
    """The interaction over all items, summed over tokens beside the wide table, masked, and the best k taken."""
    scorer, settings, wide = trained.model.scorer(), trained.settings, trained.matcher.wide

    def answer(asked, threads):  # the scorer takes all cores, whatever it is told
        n_users, n_tokens, width = asked.points.shape  # (U, K_u, D)
        scores = scorer.token_scores(asked.points.reshape(-1, width))  # (U * K_u, n_items)
        rows = np.arange(len(scores)).reshape(n_users, n_tokens)
        if wide is not None:
            rows = np.concatenate([rows, len(scores) + np.arange(n_users)[:, None]], 1)
            scores = np.concatenate([scores, wide.scores(asked.seen)])
        return top_k(scores, args.k, asked.seen, rows=rows)

    first = settings.interaction_hidden[:1] if settings.interaction == "DNN" else ()  # its layer, of items alone
    item_width = settings.token_embedding_size + sum(first)
    size = 4 * trained.data.catalogue.n_items * item_width
    if wide is not None:
        size += wide.offsets.nbytes + wide.items.nbytes + wide.values.nbytes
    return [Engine("", answer, asked, bytes=size, notes={"engine": "all-to-all", "setting": "every item"})]


def row(engine, k):
    """One line of the table: what the engine is, how good, how fast and how large."""
    low, high = engine.held_out.interval("recall", k)
    has_latency = engine.notes["engine"] != "all-to-all"
    return {
        "engine": engine.notes["engine"],
        "setting": engine.notes["setting"],
        f"R@{k}": round(engine.held_out.mean("recall", k), 5),
        "low": round(low, 5),
        "high": round(high, 5),
        "p": engine.notes["p"],
        "recall": round(engine.recall, 4),
        "queries/s": round(engine.rates[f"batch {available_cores()}"]),
        "p50 ms": round(engine.p50_ms, 4) if has_latency else "",
        "p99 ms": round(engine.p99_ms, 4) if has_latency else "",
        "MB": round(engine.bytes / 1e6, 2),
        "postings per code": engine.notes.get("postings per code", ""),
        "sparsity": engine.notes.get("sparsity", ""),
    }


def picture(rows, quality, title, path):
    """Quality against speed (left) and memory (right); the number beside a point is its cap."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    columns, label_at = ("queries/s", "MB"), ((6, 4), (4, -13))  # beside the curve, which falls or rises
    for axes, column, offset in zip(panels, columns, label_at, strict=True):
        for kind, look in LOOKS.items():
            mine = [row for row in rows if row["engine"] == kind]
            x, y = [row[column] for row in mine], [row[quality] for row in mine]
            axes.plot(x, y, label=kind, markersize=14 if look["marker"] == "*" else 7, **look)
        axes.set_xscale("log")
        axes.margins(x=0.08, y=0.08)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        _label_caps(axes, [row for row in rows if row["engine"] == "SparCode float32"], column, quality, offset)
    cores = available_cores()
    panels[0].set(xlabel=f"queries per second, one batch, {cores} core{'s' * (cores > 1)}", ylabel=quality)
    panels[1].set(xlabel="MB that are searched")
    panels[1].legend(loc="lower right")
    figure.suptitle(f"{title}\nnumbers: most postings per code")
    with fresh(path) as file:
        figure.savefig(file, dpi=120, format="png")


def _label_caps(axes, rows, column, quality, offset):
    """Writes caps beside their points, the longest lists first, and leaves out what would overlap."""
    taken = []
    for row in reversed(rows):
        place = axes.transData.transform((row[column], row[quality]))  # pixels
        if all(abs(place - other)[0] > 38 or abs(place - other)[1] > 16 for other in taken):
            point = (row[column], row[quality])
            axes.annotate(row["setting"], point, textcoords="offset points", xytext=offset)
            taken.append(place)


def _short(value, _):
    """50,000 as 50k, for ticks."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


if __name__ == "__main__":
    main()
