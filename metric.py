"""Ranking metrics, one value per user; evaluate() measures whatever recommends, as it serves.

With T the set of a user's targets, at cut-off k:
  hit        1 if any of the first k items is in T
  recall     hits among the first k / |T|
  precision  hits among the first k / k
  ndcg       sum of 1/log2(rank + 1) over hits / the same sum for min(|T|, k) hits in front
  map        sum over hits of the precision at their rank / min(|T|, k); 1 for a perfect list
  mrr        1/rank of the first hit, 0 without one
Only item ids and their order count, never the scores, so equal scores can neither help nor harm.
Id 0 is an empty slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NAMES = ("hit", "recall", "precision", "ndcg", "map", "mrr")


@dataclass(frozen=True)
class Metrics:
    """Per-user values: values[name] is float64 [U, len(topk)], users in the order of queries.

    A user with several queries counts once, by their sum over the mean number of queries of a user: so the mean is that
    over the queries, and tests over users see no user twice. `queries` then has how many each asked, [U].
    """

    topk: tuple[int, ...]
    values: dict[str, np.ndarray]
    queries: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values[NAMES[0]])

    def per_user(self, name: str, k: int) -> np.ndarray:
        """The values of one metric: float64 [U]. Raises ValueError for what was not measured."""
        if name not in self.values or k not in self.topk:
            raise ValueError(f"{name}@{k} was not measured; there are {', '.join(self.values)} at {list(self.topk)}.")
        return self.values[name][:, self.topk.index(k)]

    def mean(self, name: str | None = None, k: int | None = None):
        """Mean over users of one metric, or of all as {"recall@50": ...}."""
        if name is not None:
            return float(self.per_user(name, k).mean())
        return {f"{name}@{k}": self.mean(name, k) for name in self.values for k in self.topk}

    def interval(self, name: str, k: int) -> tuple[float, float]:
        """95% interval of the mean (Student's t over users), within 0..1; NaN for a single user.

        Of users with unequal numbers of queries the mean is a ratio of two sums, hits and queries; what varies is how
        far a user's hits are from the mean times his queries (Cochran, "Sampling Techniques", 1977, section 2.11).
        """
        values = self.per_user(name, k)
        if len(values) < 2:
            return float("nan"), float("nan")
        from scipy.special import stdtrit

        mean, off = values.mean(), values
        if self.queries is not None:
            off = values - mean * self.queries / self.queries.mean()
        half = stdtrit(len(values) - 1, 0.975) * off.std(ddof=1) / np.sqrt(len(values))
        return float(max(mean - half, 0.0)), float(min(mean + half, 1.0))

    def rows(self, **labels) -> list[dict]:
        """A csv row per metric and cut-off: the labels, metric, k, mean, low, high, users."""
        rows = []
        for name in self.values:
            for k in self.topk:
                low, high = self.interval(name, k)
                row = {
                    "metric": name,
                    "k": k,
                    "mean": self.mean(name, k),
                    "low": low,
                    "high": high,
                    "users": len(self),
                }
                rows.append({**labels, **row})
        return rows

    def table(self, title: str = "") -> str:
        """A text table: a row per metric, a column per cut-off, cells of mean ± half interval."""
        lines = [["", *(f"@{k}" for k in self.topk)]]
        for name in self.values:
            cells = []
            for k in self.topk:
                low, high = self.interval(name, k)
                mean = self.mean(name, k)
                cells.append(f"{mean:.4f} ±{max(high - mean, mean - low):.4f}" if len(self) > 1 else f"{mean:.4f}")
            lines.append([name, *cells])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        text = [
            "  ".join(
                [
                    line[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
                ]
            )
            for line in lines
        ]
        head = f"{title} ({len(self)} users, ± 95% interval)".strip()
        return "\n".join([head, *(line.rstrip() for line in text)])


@dataclass(frozen=True)
class PairedTest:
    """A paired t-test over users: is the mean of a - b zero?"""

    difference: float
    low: float
    high: float
    t: float
    p: float
    users: int

    def __str__(self) -> str:
        return (
            f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}], t = {self.t:.2f}, p = "
            f"{self.p:.2g}, "
            f"{self.users} users"
        )


def compare(a: Metrics, b: Metrics, name: str, k: int) -> PairedTest:
    """Two-sided paired t-test of one metric of two recommenders on the same users, in one order.

    Raises ValueError when the numbers of users differ or there are fewer than two.
    """
    from scipy.special import stdtr, stdtrit

    first, second = a.per_user(name, k), b.per_user(name, k)
    n = len(first)
    if n != len(second) or n < 2:
        raise ValueError(f"A paired test needs the same users on both sides, two or more; got {n} and {len(second)}.")
    differences = first - second
    mean = float(differences.mean())
    off = differences if a.queries is None else differences - mean * a.queries / a.queries.mean()  # as of `interval`
    error = float(off.std(ddof=1)) / np.sqrt(n)
    with np.errstate(divide="ignore"):  # all users differ by the same amount: infinitely certain
        t = float(np.divide(mean, error)) if mean else 0.0
    half = float(stdtrit(n - 1, 0.975) * error)
    return PairedTest(mean, mean - half, mean + half, t, float(2 * stdtr(n - 1, -abs(t))), n)


ALPHA = 0.05  # a loss with a lower p is significant
SURE_USERS = 100  # of fewer often none changes, which a t-test takes for certainty


def cost(found: Metrics, before: Metrics, k: int, share: float, sure: bool = False) -> tuple[dict, bool]:
    """What a cheaper way of answering costs in recall and NDCG, and whether that is nothing.

    Args:
        found: of the cheaper way. before: of the other, on the same users.
        share: a loss of up to this share of the mean is nothing, unless it is significant.
        sure: ask for more: not that no larger loss is seen, but that none is left in the 95 % interval of the change (a
            test of non-inferiority), of SURE_USERS at least. By the interval alone 2 to 20 validation users of Toys cut
            the table until 500 others lost 1.5 % of NDCG@50, and up to 3.8 %.

    Returns:
        The values, their changes and p in words, for a table; and whether neither loses more than that.
    """
    row, nothing = {}, True
    for name in ("recall", "ndcg"):
        change = compare(found, before, name, k)
        row |= {f"{name}@{k}": found.mean(name, k), f"{name} change": change.difference, f"{name} p": change.p}
        least = -share * before.mean(name, k)
        unseen = change.difference >= least and (change.difference >= 0 or change.p >= ALPHA)
        nothing &= change.users >= SURE_USERS and change.low >= least if sure else unseen
    return row | {"loses nothing": nothing}, nothing


def file_of(path: str) -> str:
    """Where a run keeps the metrics of its test users by a path: "index", "exhaustive", "deep alone", "wide alone"."""
    return f"per_user_{path.replace(' ', '_')}.npz"


def averaged(runs: Sequence[Metrics]) -> Metrics:
    """Each user's values averaged over runs on the same users, so that a test over users sees no run twice.

    Raises:
        ValueError: the runs differ in their users or cut-offs.
    """
    first = runs[0]
    if any(len(run) != len(first) or run.topk != first.topk for run in runs):
        raise ValueError("Runs can only be averaged over the same users and cut-offs.")
    values = {name: np.mean([run.values[name] for run in runs], axis=0) for name in first.values}
    return Metrics(first.topk, values, first.queries)


def evaluate(
    recommender,
    queries,
    topk: Sequence[int] = (1, 5, 10, 20, 50),
    exclude_seen: bool = True,
    block: int = 8192,
) -> Metrics:
    """Metrics of `recommender` on `queries`.

    The recommender is asked once, for all queries, and sees to its own memory; its answer is checked and measured in
    blocks.

    Args:
        recommender: recommend(queries, k, exclude_seen) -> (item ids int (U, k), scores (U, k)), best first, id 0 an
            empty slot; see `recommender.Recommender`.
        queries: histories and targets (rows with .offsets and .values), len(), take(rows).
        topk: cut-offs.
        exclude_seen: whether items of the history are left out.
        block: users whose answer is measured at once.

    Raises:
        ValueError: users without targets, and recommendations that are no ranking: wrong shape, an item twice, a
            history item although exclude_seen, NaN or rising scores.
    """
    topk = _cuts(topk)
    if len(queries) == 0:
        raise ValueError("There are no queries to evaluate.")
    items, scores = recommender.recommend(queries, topk[-1], exclude_seen)
    items, scores = np.asarray(items), np.asarray(scores)
    shape = (len(queries), topk[-1])
    if items.shape != shape or scores.shape != shape or items.dtype.kind not in "iu":
        raise ValueError(
            f"The recommender returned ids {items.dtype} {items.shape} and scores {scores.shape}, not {shape}."
        )
    parts = []
    for start in range(0, len(queries), block):
        users = np.arange(start, min(start + block, len(queries)))
        part, ranked = queries.take(users), items[users].astype(np.int64)
        _refuse_no_ranking(ranked, scores[users], part, exclude_seen, start)
        parts.append(measure(ranked, part.targets, topk))
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in NAMES}
    return by_user(Metrics(topk, values), getattr(queries, "askers", None))


def by_user(found: Metrics, askers: np.ndarray | None) -> Metrics:
    """Metrics of queries as metrics of the users who asked them, of the same means; as they are where each asked one.

    Args:
        found: of Q queries. askers: numbers of users (Q,); None where no two are the same.
    """
    if askers is None:
        return found
    _, users, counts = np.unique(askers, return_inverse=True, return_counts=True)

    def summed(values):  # (Q, K) -> (U, K)
        sums = np.zeros((len(counts), values.shape[1]))
        np.add.at(sums, users, values)
        return sums * (len(sums) / len(values))

    return Metrics(found.topk, {name: summed(values) for name, values in found.values.items()}, counts)


def measure(items, targets, topk: Sequence[int]) -> Metrics:
    """Metrics of ranked item ids [U, >= max(topk)] against targets (.offsets, .values > 0)."""
    topk = _cuts(topk)
    items = np.asarray(items)
    if items.ndim != 2 or items.shape[1] < topk[-1]:
        raise ValueError(f"Metrics at {topk[-1]} need that many ranked items per user, not an array {items.shape}.")
    users, wanted = _flat(targets, len(items))
    if len(wanted) and wanted.min() < 1:
        raise ValueError(f"A target is item {wanted.min()}; items are numbered from 1.")
    base = 1 + max(int(items.max(initial=0)), int(wanted.max(initial=0)))
    truth = np.unique(users * base + wanted)  # a target counts once
    n_targets = np.bincount(truth // base, minlength=len(items))
    if (n_targets == 0).any():
        raise ValueError(f"User {np.flatnonzero(n_targets == 0)[0]} has no target; leave such users out.")

    hits = _within(np.arange(len(items))[:, None] * base + items, truth)  # (U, K); id 0 is no target
    ranks = np.arange(1, items.shape[1] + 1)
    so_far = np.cumsum(hits, axis=1)  # (U, K)
    discounts = 1 / np.log2(ranks + 1)
    dcg = np.cumsum(hits * discounts, axis=1)
    ideal = np.cumsum(discounts)
    precision_sum = np.cumsum(hits * so_far / ranks, axis=1)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)  # rank of the first hit

    def at(k: int) -> tuple:  # in the order of NAMES
        found, reachable = so_far[:, k - 1], np.minimum(n_targets, k)
        return (
            found > 0,
            found / n_targets,
            found / k,
            dcg[:, k - 1] / ideal[reachable - 1],
            precision_sum[:, k - 1] / reachable,
            np.where(first <= k, 1 / first, 0.0),
        )

    columns = [at(k) for k in topk]
    return Metrics(
        topk,
        {name: np.stack([c[i] for c in columns], axis=1).astype(float) for i, name in enumerate(NAMES)},
    )


def _cuts(topk: Sequence[int]) -> tuple[int, ...]:
    cuts = tuple(sorted({int(k) for k in topk}))
    if not cuts or cuts[0] < 1:
        raise ValueError(f"topk must name cut-offs of at least 1, not {list(topk)}.")
    return cuts


def _flat(rows, n_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows as (user int64 [nnz], item int64 [nnz])."""
    offsets = np.asarray(rows.offsets, np.int64)
    if offsets.shape != (n_users + 1,):
        raise ValueError(f"There are {n_users} ranked lists and {len(offsets) - 1} rows of targets or histories.")
    users = np.repeat(np.arange(n_users), np.diff(offsets))
    return users, np.asarray(rows.values[offsets[0] : offsets[-1]], np.int64)


def _within(keys: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which of the keys are among the others: bool of the shape of keys. NumPy's isin would sort them all."""
    if not len(ascending):
        return np.zeros(keys.shape, bool)
    place = np.searchsorted(ascending, keys)
    return ascending[np.minimum(place, len(ascending) - 1)] == keys


def _refuse_no_ranking(items: np.ndarray, scores: np.ndarray, queries, exclude_seen: bool, start: int) -> None:
    """Raises ValueError for ids int64 (U, k) and scores (U, k) that are no ranking; users count from `start`."""

    def refuse(bad: np.ndarray, why: str) -> None:
        if bad.any():
            raise ValueError(f"The recommendations of user {start + np.flatnonzero(bad)[0]} {why}.")

    refuse((items < 0).any(axis=1), "hold a negative item id")
    refuse(np.isnan(scores).any(axis=1), "have scores that are not numbers")
    refuse((scores[:, 1:] > scores[:, :-1]).any(axis=1), "are not in descending order of their scores")
    ordered = np.sort(items, axis=1)
    refuse(
        ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any(axis=1),
        "hold an item twice",
    )
    if exclude_seen:
        users, seen = _flat(queries.histories, len(queries))
        base = 1 + max(int(items.max(initial=0)), int(seen.max(initial=0)))
        known = _within(np.arange(len(items))[:, None] * base + items, np.sort((users * base + seen)[seen > 0]))
        refuse(known.any(axis=1), "hold an item of the history, although seen items are excluded")
