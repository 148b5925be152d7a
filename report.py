"""What a person sees of a run: tables on the screen, metrics.csv, index.json and curves.png."""

import csv
import json
import os
import time

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from metric import compare

HEADLINE = ("recall", "ndcg", "precision", "hit", "map", "mrr")


def data(prepared, catalogue, valid, test):
    """Where the data comes from and how much there is."""
    statistics = prepared.description.get("statistics", {})
    print(f"data: {prepared.label}, split {prepared.description.get('split', 'as found')}")
    if statistics:
        print(
            f"  {statistics['users']:,} users, {catalogue.n_items:,} items, "
            f"{statistics['interactions']:,} interactions ({statistics['density']:.2%} of all pairs); "
            f"users to train {statistics['train_users']:,}, "
            f"validate {len(valid):,}, test {len(test):,}"
        )
    else:
        print(f"  {catalogue.n_items:,} items; users to validate {len(valid):,}, test {len(test):,}")


def curves(rows, monitor, path):
    """Training loss and validation metric over the epochs, as a picture."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["softmax"] for row in rows], color="tab:blue")
    left.set(xlabel="epoch", ylabel="softmax loss", title="training")
    right.plot(epochs, [row[monitor] for row in rows], color="tab:orange")
    right.set(xlabel="epoch", ylabel=monitor, title="validation users")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    fresh = path.with_suffix(".new.png")
    figure.savefig(fresh, dpi=120)
    os.replace(fresh, path)


def index(built, recommender, queries, k, exclude_seen, folder):
    """Size, shape and speed of the index; also runs/<name>/index.json."""
    started = time.perf_counter()
    recommender.recommend(queries, k, exclude_seen)
    with_encoder = len(queries) / (time.perf_counter() - started)
    share = recommender.missing_codes / max(recommender.query_codes, 1)
    built = built | {"missing_share": share, "queries_per_second": with_encoder}
    print(
        f"index: {built['codes']:,} codes, {built['postings']:,} postings, "
        f"{built['sparsity']:.1%} of the pairs left out, {built['bytes'] / 2**20:.1f} MiB, "
        f"built in {built['build_seconds']:.1f} s\n"
        f"  postings per code: {built['postings_min']:,} to {built['postings_max']:,}, "
        f"median {built['postings_median']:,.0f}, Gini {built['postings_gini']:.2f}\n"
        f"  {with_encoder:,.0f} queries/s with the encoder; "
        f"{recommender.missing_codes:,} of {recommender.query_codes:,} query codes ({share:.1%}) "
        "were not in it and were scored on demand"
    )
    _write_json(folder / "index.json", built)


def codebooks(model, recommender, queries, folder):
    """Health of the codebooks on some queries: codewords and tuples in use, and how evenly."""
    health = codebook_health(model, recommender.encode(queries))
    for number, book in enumerate(health["codebooks"], 1):
        print(
            f"codebook {number}: {book['used']} of {model.quantiser.n_codewords} codewords used by the test users, "
            f"perplexity {book['perplexity']:.0f}"
        )
    print(f"  {health['tuples']:,} different code tuples for {len(queries):,} users x {model.k_u} tokens")
    _write_json(folder / "codebooks.json", health)


def codebook_health(model, codes):
    """Use of the codebooks by codes (U, K_u) int64.

    Returns:
        {"codebooks": [{"used", "perplexity"}, ...], "tuples": number of different codes}. Perplexity is the
        exponential of the entropy of codeword use: N when all are used alike, 1 when one takes all.
    """
    indices = model.quantiser.decode(codes)                                          # (U, K_u, M)
    books = []
    for m in range(indices.shape[-1]):
        share = np.bincount(indices[..., m].ravel(), minlength=model.quantiser.n_codewords) / indices[..., m].size
        used = share[share > 0]
        books.append({"used": len(used), "perplexity": float(np.exp(-(used * np.log(used)).sum()))})
    return {"codebooks": books, "tuples": len(np.unique(codes))}


def results(results, prepared, h, folder):
    """The result tables of the test users and metrics.csv."""
    seen = "history items left out" if h.exclude_seen else "history items may be recommended"
    print(f"\n{h.model}, {h.encoder} encoder, on {prepared.label}; full ranking, {seen}")
    rows = []
    for path, metrics in results.items():
        print(metrics.table(f"test users through the {path}" if path == "index" else "test users, exhaustive scoring"))
        rows += metrics.rows(data=prepared.label, split=h.split, model=h.model, seed=h.seed, path=path)
    if "index" in results:
        k = max(h.topk)
        print(f"cost of pruning, recall@{k}: {compare(results['index'], results['exhaustive'], 'recall', k)}")
    fresh = folder / "metrics.csv.new"
    with open(fresh, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    os.replace(fresh, folder / "metrics.csv")
    for path, metrics in results.items():
        _save_per_user(folder / f"per_user_{path}.npz", metrics)
    if prepared.note:
        print(prepared.note)


def recommendations(catalogue, queries, items, scores):
    """Titles and categories: the end of each history and what is recommended next."""

    def line(item):
        title = catalogue.titles[item] or f"item {catalogue.original_ids[item]}"
        return f"{title}  [{catalogue.categories[item].replace('|', ', ')}]"

    for user in range(len(queries)):
        history = queries.histories[user]
        targets = set(queries.targets[user].tolist())
        print(f"\nuser {user + 1}, history of {len(history)} items, the last ten:")
        for item in history[-10:]:
            print(f"    {line(item)}")
        print("  recommended (* the user did take it later):")
        for rank, (item, score) in enumerate(zip(items[user], scores[user], strict=True), 1):
            if item:
                print(f"  {'*' if item in targets else ' '} {rank:2d}. {line(item)}  {score:.2f}")


def _save_per_user(path, metrics):
    fresh = path.with_suffix(".new.npz")
    np.savez_compressed(fresh, topk=np.array(metrics.topk), **metrics.values)
    os.replace(fresh, path)


def _write_json(path, content):
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(fresh, path)
