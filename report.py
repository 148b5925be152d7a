"""What a person sees of a run: tables on the screen, metrics.csv, index.json and curves.png."""

import csv
import json
import time

import numpy as np

from baselines import BASELINES
from data.interactions import MIN_COUNT
from files import fresh
from metric import SURE_USERS, compare, file_of

MOSTLY = 0.5  # of the histories: by chance one in 120 of five items stands by their ids
LEFT_OUT = {  # of the data as found
    "repeated_interactions": "interactions of users with an item that they had already",
    "infrequent_items": f"items with fewer than {MIN_COUNT}",
    "infrequent_users": f"users with fewer than {MIN_COUNT}",
    "interactions_of_these": "interactions of these",
    "users_too_short_for_split": "users too short for the split",
}


def data(prepared, catalogue, valid, test):
    """Where the data comes from, how much there is, and what of it was left out."""
    statistics = prepared.description.get("statistics", {})
    print(f"data: {prepared.label}, split {prepared.description.get('split', 'as found')}")
    if statistics:
        print(
            f"  {statistics['users']:,} users, {catalogue.n_items:,} items, "
            f"{statistics['interactions']:,} interactions ({statistics['density']:.2%} of all pairs); "
            f"users to train {statistics['train_users']:,}, "
            f"validate {statistics['valid_users']:,}, test {statistics['test_users']:,}"
        )
    else:
        print(f"  {catalogue.n_items:,} items; users to validate {len(valid):,}, test {len(test):,}")
    counts = statistics.get("left_out", {})
    if left_out := [f"{counts[name]:,} {what}" for name, what in LEFT_OUT.items() if counts.get(name)]:
        print(f"  left out: {', '.join(left_out)}")
    _doubts(prepared.description, catalogue.n_items)
    if tied := statistics.get("tied_share"):
        print(f"  {tied:.1%} of the interactions have the time of the user's one before: these stand as in the file")


def _doubts(about, n_items):
    """How the files were understood, where that may be wrong."""
    columns, statistics = about.get("columns", {}), about.get("statistics", {})
    if columns.get("not read") or any(ours != theirs for ours, theirs in columns.get("read", {}).items()):
        read = (theirs if ours == theirs else f"{theirs} as {ours}" for ours, theirs in columns["read"].items())
        unread = f"; not read: {', '.join(columns['not read'])}" if columns["not read"] else ""
        print(f"  columns: {', '.join(read)}{unread}")
    for file, known in about.get("items_told_of", {}).items():
        print(f"  titles of {known:,} of {n_items:,} items, from {file}")
    for name, share in statistics.get("unknown_ids", {}).items():
        print(
            f"  NOTE: {share:.0%} of the interactions have the id {name!r}; leave them out if that means none is known"
        )
    if (share := statistics.get("share_by_id", 0)) > MOSTLY:
        print(
            f"  NOTE: in {share:.0%} of the histories items stand by their ids; if that is no order of time, what the "
            "results say of the next item is wrong"
        )


def curves(rows, monitor, label, path):
    """Training loss and validation metric over the epochs, as a picture titled with the data's label."""
    from matplotlib.figure import Figure  # here, as it takes a second to import

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    left.plot(epochs, [row["ranking_loss"] for row in rows], color="tab:blue")
    left.set(xlabel="epoch", ylabel="ranking loss", title="training")
    right.plot(epochs, [row[monitor] for row in rows], color="tab:orange")
    right.set(xlabel="epoch", ylabel=monitor, title="validation users")
    figure.suptitle(label)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    with fresh(path) as file:
        figure.savefig(file, dpi=120, format="png")


def doing(what):
    """What is under way, said before it starts, as it may take long."""
    print(f"{what} ...", flush=True)


def part_of(what, part, whole):
    """Where a part stands for the whole."""
    if part < whole:
        print(f"note: {what}: {part:,} of {whole:,}")


def unused(names, what):
    """Flags that were given and change nothing; said, not refused, for an experiment gives its flags to every row."""
    if names:
        print(f"note: {', '.join(f'--{name}' for name in sorted(names))}: not read by {what}; nothing changes by it")


def wide(table, seconds):
    """What the wide table was fitted with."""
    chosen = table.settings
    decays = f"decay of the history {chosen.history_decay:g}, of the targets {chosen.target_decay:g}"
    if chosen.history_decay == 1:
        decays = "items in no order"
    print(
        f"wide table: {len(table.items):,} postings of {table.n_items:,} items; {decays}, l2 {chosen.l2:g}; "
        f"chosen on validation users and fitted in {seconds:.0f} s"
    )


def blend(chosen, tried, k):
    """How well the wide table and the model do together, by the ratio of their spreads."""
    print(f"wide : deep, NDCG@{k} of validation users: " + ", ".join(f"{r:g}: {v:.4f}" for r, v in tried.items()))
    print(f"  chosen: {chosen:g} to 1")


def reach(settings, costs, k):
    """How little of the wide table will do."""
    lookups, postings = settings.lookups, settings.max_postings
    print(f"  looked up: the last {lookups} items, at most {postings} postings each{_changes(costs, k)}")


def lookups(number, found, k):
    """What codes cost, so many of a user."""
    print(f"  {number} codes{_changes(found, k)}")


def _changes(row, k):
    """What `metric.cost` found."""
    return (
        f"; on validation users recall@{k} {row['recall change']:+.4f} (p = {row['recall p']:.2f}), ndcg@{k} "
        f"{row['ndcg change']:+.4f} (p = {row['ndcg p']:.2f})"
    )


def left_whole(n_users):
    """Why no list of the index is shortened or rounded."""
    print(
        f"  {n_users} validation users cannot show that shorter lists cost nothing, which takes {SURE_USERS}: they "
        "stay whole, in float32; --index_format uint8, --max_postings or --max_bytes make the index smaller"
    )


def longest_lists(tried, n_items, k):
    """What the longest lists lose that there may be, where they are shorter than the catalogue."""
    if tried["max_postings"] < n_items:
        print(
            f"  lists of {tried['max_postings']:,} of {n_items:,} items, the longest that are built unasked, change "
            f"recall@{k} of validation users by {tried['recall change']:+.4f}; --max_postings {n_items} holds all of "
            f"them, and --rerank {4 * k} puts the best {4 * k} that they find in the order of their exact scores"
        )


def index(about, asked, missing, recommender, queries, k, exclude_seen, folder):
    """Size, shape and speed of the index; also runs/<name>/index.json.

    Of the codes that the queries look up so many were asked for, and so many were not in it.
    """
    started = time.perf_counter()
    recommender.recommend(queries, k, exclude_seen)
    speed = len(queries) / (time.perf_counter() - started)
    share = missing / max(asked, 1)
    print(
        f"index: {about['codes']:,} codes, {about['postings']:,} postings, "
        f"{about['sparsity']:.1%} of the pairs left out, {about['bytes'] / 2**20:.1f} MiB, "
        f"built in {about['build_seconds']:.1f} s\n"
        f"  postings per code: {about['postings_min']:,} to {about['postings_max']:,}, "
        f"median {about['postings_median']:,.0f}, Gini {about['postings_gini']:.2f}\n"
        f"  {speed:,.0f} queries/s with the encoder; {missing:,} of {asked:,} query codes ({share:.1%}) "
        "were not in it and were scored on demand"
    )
    write_json(folder / "index.json", about | {"missing_share": share, "queries_per_second": speed})


def codebooks(model, codes, data, folder):
    """Health of the codebooks by all codes (R,) that the test users look up; also runs/<name>/codebooks.json."""
    health = codebook_health(model.quantiser, codes)
    for number, book in enumerate(health["codebooks"], 1):
        print(
            f"codebook {number}: {book['used']} of {model.quantiser.n_codewords} codewords used by the test users, "
            f"perplexity {book['perplexity']:.0f}"
        )
    print(f"  {health['tuples']:,} different codes in {len(codes):,} look-ups of {len(data.test):,} queries")
    write_json(folder / "codebooks.json", {"data": data.prepared.label} | health)


def codebook_health(quantiser, codes):
    """Use of the codebooks by codes, int64 of any shape.

    Returns:
        {"codebooks": [{"used", "perplexity"}, ...], "tuples": number of different codes}. Perplexity is the
        exponential of the entropy of codeword use: N when all are used alike, 1 when one takes all.
    """
    indices = quantiser.decode(codes)  # (..., M)
    books = []
    for m in range(indices.shape[-1]):
        share = np.bincount(indices[..., m].ravel(), minlength=quantiser.n_codewords) / indices[..., m].size
        used = share[share > 0]
        books.append({"used": len(used), "perplexity": float(np.exp(-(used * np.log(used)).sum()))})
    return {"codebooks": books, "tuples": len(np.unique(codes))}


def results(found, prepared, h, folder):
    """The result tables of the test users, metrics.csv and per_user_*.npz.

    Args:
        found: {"exhaustive" or "index": `metric.Metrics`}.
    """
    seen = "history items left out" if h.exclude_seen else "history items may be recommended"
    encoder = "" if h.model in BASELINES else h.encoder
    name = f"{h.model}, {encoder} encoder," if encoder else h.model
    print(f"\n{name} on {prepared.label}; full ranking, {seen}")
    labels = {"data": prepared.label}
    labels |= {name: getattr(h, name) for name in ("split", "split_seed", "model", "encoder", "seed", "exclude_seen")}
    labels["encoder"] = encoder
    limits = ("max_codes", "max_postings", "keep_share", "max_bytes", "index_format")
    rows = []
    for path, metrics in found.items():
        how = {"index": "through the index", "exhaustive": "exhaustive scoring"}.get(
            path, f"{path}, exhaustive scoring"
        )
        print(metrics.table(f"test users, {how}"))
        of_index = {name: getattr(h, name) if path == "index" else "" for name in limits}
        rows += metrics.rows(**labels, **of_index, path=path)
    with fresh(folder / "metrics.csv", "w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for path, metrics in found.items():
        _save_per_user(folder / file_of(path), metrics)
    if prepared.note:
        print(prepared.note)


def below_popularity(found, popular):
    """A warning where what was trained is worse than recommending the most popular items to everyone.

    Args:
        found, popular: `metric.Metrics` of the same users.
    """
    floor = popular.mean()
    below = [
        f"{name} {value:.4f} < {floor[name]:.4f}"
        for name, value in found.mean().items()
        if round(value, 4) < round(floor[name], 4)
    ]
    if below:
        print(
            f"WARNING: worse than recommending the most popular items to everyone: {', '.join(below)}; train longer, "
            "or look for the setting that spoils it"
        )


def cost(index, exhaustive):
    """What pruning and rounding cost in recall; index and exhaustive: `metric.Metrics` of the test users."""
    k = max(index.topk)
    print(f"cost of the index, recall@{k}: {compare(index, exhaustive, 'recall', k)}")


def recommendations(catalogue, queries, items, scores, reasons=None):
    """Titles and categories: the end of each history and what is recommended next, and why.

    Args:
        reasons: of `matcher.Matcher.reasons`, or None.
    """

    def line(item):
        categories = catalogue.categories[item].replace("|", ", ")
        return catalogue.name(item) + (f"  [{categories}]" if categories else "")

    for user in range(len(queries)):
        history, targets = queries.histories[user], set(queries.targets[user].tolist())
        print(f"\nuser {user + 1}, history of {len(history)} items, the last ten:")
        for item in history[-10:]:
            print(f"    {line(item)}")
        print("  recommended (* the user did take it later):" if targets else "  recommended:")
        for rank, (item, score) in enumerate(zip(items[user], scores[user], strict=True), 1):
            if item:
                print(f"  {'*' if item in targets else ' '} {rank:2d}. {line(item)}  {score:.2f}")
                if reasons:
                    print(f"         {_because(catalogue, reasons[user][rank - 1])}")


def _because(catalogue, parts):
    """The largest parts of a score in words."""
    said = [
        f"{share:.2f} by " + (f"token {number}" if item is None else f"{catalogue.name(item)}")
        for item, number, share in parts
    ]
    return "; ".join(said) or "no part above 0"


def _save_per_user(path, metrics):
    with fresh(path) as file:
        asked = {} if metrics.queries is None else {"queries": metrics.queries}
        np.savez_compressed(file, topk=np.array(metrics.topk), **metrics.values, **asked)


def write_json(path, content):
    """Writes a JSON file, whole or not at all."""
    with fresh(path, "w") as file:
        file.write(json.dumps(content, indent=2) + "\n")
