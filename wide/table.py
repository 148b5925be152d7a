"""Wide item-to-item tables in closed form: each of a user's last items votes for what comes next.

    score(user, item) = sum over the last items h of the user, of age a (newest 0), of history_decay^a * W[h, item]
    W = (X'X + l2 I)^-1 X'Y

over all training positions: a row of X holds the items before the position, weighted history_decay^age; a row of Y the
position's item and those after it, weighted target_decay^distance. Where order says nothing both decays are 1: a row
of X holds all items of a user, and one of Y all the others. That alone makes popular items too strong, for an item that
the user has is never among its targets; so column j is multiplied by the share of item j that the others leave
unexplained, which is EASE: W = -P_ij / P_jj off the diagonal, P = (X'X + l2 I)^-1. Ridge regression from items to items
after EASE (Steck, WWW 2019) and SLIST (Choi et al., WWW 2021). The inverse is sparse, as in SANSA (Spišák et al.,
RecSys 2023): each of its rows is solved among an item's strongest neighbours, which recommends as well as the whole
inverse and takes no memory that is quadratic in the items. Needs NumPy, SciPy and numba only.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from scipy import sparse

from data.progress import progress
from data.queries import Queries
from data.ragged import Ragged
from files import fresh
from metric import measure
from recommender import recommend_by_scores
from retrieval.lists import best_of_product, in_blocks, product
from retrieval.ranking import top_k
from wide.inverse import local_inverse
from wide.pairs import Pairs, block_cuts

LADDERS = {  # what `choose` tries
    "history_decay": (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "target_decay": (0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95),
    "l2": (30.0, 100.0, 300.0, 1000.0, 3000.0),
    "neighbours": (64, 128, 256),  # without order
}
ORDER = 0.9  # order may say little where the best decay of a history is at least this
ORDERLESS = {"history_decay": 1.0, "target_decay": 1.0, "lookups": 200, "neighbours": 128}
CELLS = 2**26  # scores of validation users that are held at once
REACH = ({"history_decay": 0.95, "lookups": 50}, {"history_decay": 0.98, "lookups": 100})


@dataclass(frozen=True)
class WideSettings:
    """What a table is fitted with.

    Attributes:
        history_decay: weight of an item relative to the one after it, among those that vote; above 0, at most 1.
        target_decay: weight of a target relative to the one before it; 0: the next item is the only target; 1 if and
            only if history_decay is: order says nothing, and items before an item count as those after it.
        l2: ridge penalty, in training positions.
        max_postings: most items kept in a row of the table.
        lookups: most items of a history that vote.
        neighbours: items around each item that the inverse takes into account.
    """

    history_decay: float = 0.8
    target_decay: float = 0.5
    l2: float = 300.0
    max_postings: int = 400
    lookups: int = 20
    neighbours: int = 32

    def __post_init__(self):
        if not 0 < self.history_decay <= 1:
            raise ValueError(f"history_decay is {self.history_decay}; it must be above 0 and at most 1.")
        if not 0 <= self.target_decay <= 1:
            raise ValueError(f"target_decay is {self.target_decay}; it must lie between 0 and 1.")
        if (self.history_decay == 1) != (self.target_decay == 1):
            raise ValueError("history_decay and target_decay are 1 together, where order says nothing, or neither is.")
        if not self.l2 > 0:
            raise ValueError(f"l2 is {self.l2}; the regression needs a penalty above 0.")
        for name in ("max_postings", "lookups", "neighbours"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Integral) or value < 1:
                raise ValueError(f"{name} is {value}; it must be a whole number of at least 1.")


class WideTable:
    """A fitted table as posting lists: row h holds what item h votes for.

    Attributes:
        offsets: int64 (n_items + 2,); row h stands at offsets[h] .. offsets[h + 1]; row 0, padding, is empty.
        items: int32 (nnz,), item ids, rising within a row.
        values: float32 (nnz,), above 0; an item that is not in a row scores 0 there.
        occurrences: float32 (n_items + 1,), each item's entry on the diagonal of X'X; `add_items` needs it.
        settings: the WideSettings.
        scale: what the regression's scores were multiplied by; None where an older file does not tell.
    """

    def __init__(self, offsets, items, values, occurrences, settings: WideSettings, scale: float | None = 1.0):
        self.offsets, self.items = np.asarray(offsets, np.int64), np.asarray(items, np.int32)
        self.values, self.occurrences = np.asarray(values, np.float32), np.asarray(occurrences, np.float32)
        self.settings, self.scale = settings, scale

    @classmethod
    def fit(cls, sequences: Ragged, n_items: int, settings: WideSettings | None = None) -> WideTable:
        """The table of training sequences: ids 1..n_items, oldest first."""
        with progress("fitting the wide table", n_items, " items") as reached:
            return cls.of(Pairs(sequences, n_items), settings or WideSettings(), reached)

    @classmethod
    def of(
        cls,
        pairs: Pairs,
        settings: WideSettings,
        reached: Callable[[int], None] = lambda items: None,
        items: np.ndarray | None = None,
    ) -> WideTable:
        """The table of counted pairs.

        Args:
            reached: called with the number of rows that are done.
            items: the ids whose rows are wanted, others stay empty; None: all.
        """
        wanted = np.ones(pairs.n_items, bool) if items is None else np.isin(np.arange(1, pairs.n_items + 1), items)
        gram, cross = pairs.gram(settings.history_decay), pairs.cross(settings.history_decay, settings.target_decay)
        inverse = local_inverse(gram, settings.l2, settings.neighbours)
        unexplained = np.ones(pairs.n_items, np.float32)
        if settings.history_decay == 1:
            whole = in_blocks(lambda *block: inverse(np.arange(*block)), block_cuts(pairs.n_items))
            inverse = whole.__getitem__
            unexplained = 1 / (whole.diagonal() * (gram.diagonal() + np.float32(settings.l2)))

        def rows(first: int, last: int) -> sparse.csr_matrix:
            own = inverse(np.arange(first, last)).multiply(wanted[first:last, None]).tocsr()
            own.eliminate_zeros()
            return best_of_product(own, cross, unexplained, settings.max_postings)

        lists = _posting_lists(in_blocks(rows, block_cuts(pairs.n_items), reached))
        return cls(*lists, np.append(0, gram.diagonal()), settings)

    @property
    def n_items(self) -> int:
        return len(self.offsets) - 2

    def keys(self, histories: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """What queries look up, the newest item in the last column.

        Returns:
            item ids int64 (U, lookups), 0 an empty slot, and their weights float32 (U, lookups), there 0.
        """
        return _keys(histories, self.settings)

    def weights(self) -> np.ndarray:
        """By how much the last items of a history count, oldest first, float64 (lookups,)."""
        return self.settings.history_decay ** np.arange(self.settings.lookups - 1, -1, -1.0)

    def cut(self, lookups: int, max_postings: int) -> WideTable:
        """The same table read less: fewer items of a history are looked up, and the rows keep their highest values."""
        lists = self.offsets, self.items, self.values
        if max_postings < self.settings.max_postings:
            lists = _posting_lists(_shortened(self.matrix, max_postings))
        settings = replace(self.settings, lookups=lookups, max_postings=max_postings)
        return WideTable(*lists, self.occurrences, settings, self.scale)

    def scaled(self, factor: float) -> WideTable:
        """The same table with all scores times a factor."""
        scale, values = None if self.scale is None else self.scale * factor, self.values * np.float32(factor)
        return WideTable(self.offsets, self.items, values, self.occurrences, self.settings, scale)

    def recommend(self, queries: Queries, k: int, exclude_seen: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """The table alone as a recommender; see `recommender.Recommender`."""
        return recommend_by_scores(lambda each: self.scores(each.histories), queries, k, exclude_seen, self.n_items)

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """The table as float32 (n_items, n_items), row and column j are item j + 1; kept, as a table is asked block of
        users by block of users."""
        return sparse.csr_matrix((self.values, self.items - 1, self.offsets[1:]), shape=(self.n_items, self.n_items))

    def scores(self, histories: Ragged) -> np.ndarray:
        """Scores of all items, float32 (U, n_items); column j is item j + 1."""
        return (_votes(*self.keys(histories), self.n_items) @ self.matrix).toarray()

    def add_items(self, sequences: Ragged, n_items: int) -> WideTable:
        """A table of the items 1..n_items, the new ones by their first interactions, the old ones as they were.

        One step of the regression from the old table. A new item's row: what followed it, beyond what the old items
        that stood beside it account for. Its column: how often it followed each old item, against all the occurrences
        of that item in training, and all of it made so small that old items say no more of it than of each other.

        Args:
            sequences: the histories of all who took a new item, whole.
            n_items: at least the table's.

        Raises:
            ValueError: n_items is less, or the table's scale is not known.
        """
        if self.scale is None:
            raise ValueError("the file of this table does not tell its scale; new items need one of this version.")
        old, new = np.arange(self.n_items), np.arange(self.n_items, n_items)
        if n_items < len(old):
            raise ValueError(
                f"n_items is {n_items}, but the table holds {len(old)} items; none can be taken away here."
            )
        pairs, decay = Pairs(sequences, n_items), self.settings.history_decay
        gram, cross = pairs.gram(decay), pairs.cross(decay, self.settings.target_decay)
        occurrences = np.concatenate([self.occurrences[1:], gram.diagonal()[new]])
        step = sparse.diags(1 / (occurrences + self.settings.l2)).tocsr()
        columns = step[old][:, old] @ cross[old][:, new] * np.float32(self.scale)
        columns = columns @ sparse.diags(self._shares(columns, occurrences).astype(np.float32))
        table = sparse.hstack([self.matrix, columns], format="csr")  # (old, n_items)
        rows = step[new][:, new] @ (cross[new] * np.float32(self.scale) - gram[new][:, old] @ table)
        table = sparse.vstack([table, rows], format="csr")
        lists = _posting_lists(_shortened(table, self.settings.max_postings))
        return WideTable(*lists, np.append(0, occurrences), self.settings, self.scale)

    def _shares(self, columns: sparse.csr_matrix, occurrences: np.ndarray) -> np.ndarray:
        """How much of each new item's column (n_old, n_new) to keep, at most 1: (n_new,).

        Each old item alone tells of a new one all that they have in common, and what several of them tell is the same.
        So much of it is kept that the old items together, as often as they occur, say as much of a new item for each
        of its own occurrences as they say of each other.
        """
        by_old = occurrences[: self.n_items]
        usual = (by_old @ self.matrix).sum() / by_old.sum()
        said = by_old @ columns
        return np.minimum(usual * occurrences[self.n_items :] / np.maximum(said, np.finfo(np.float32).tiny), 1)

    def save(self, path: str | Path) -> None:
        """Write an .npz of plain arrays, whole or not at all."""
        arrays = {name: getattr(self, name) for name in ("offsets", "items", "values", "occurrences")}
        scale = np.nan if self.scale is None else self.scale
        with fresh(path) as file:
            np.savez(file, **arrays, **asdict(self.settings), scale=np.float64(scale))

    @classmethod
    def load(cls, path: str | Path) -> WideTable:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            settings = WideSettings(**{name: arrays[name].item() for name in WideSettings.__dataclass_fields__})
            lists = (arrays[name] for name in ("offsets", "items", "values", "occurrences"))
            scale = float(arrays["scale"]) if "scale" in arrays.files else np.nan
            return cls(*lists, settings, None if np.isnan(scale) else scale)


def choose(
    sequences: Ragged,
    n_items: int,
    validation: Queries,
    start: WideSettings | None = None,
    lookups: int = ORDERLESS["lookups"],
    k: int = 50,
    max_users: int = 2000,
    tell: Callable[[WideSettings, float], None] = lambda settings, value: None,
) -> WideSettings:
    """The decays, penalty, reach and neighbours that recommend best to validation users, seen items left out.

    One setting after the other climbs from `start` along its ladder as long as it gains; the targets' decay, the
    cheapest to try, again after each of the others. Where order says little, all pairs of a user's items are better,
    ORDERLESS: these are tried where the decay of a history is ORDER or higher, and wherever they are better by as few
    neighbours already, which is soon tried. If they are worse, and the decay that high, a longer look-back is tried,
    along REACH.

    Args:
        lookups: most items of a history that vote; `start` has those of its own.
        k: what counts is the mean NDCG@k.
        max_users: of more users those at even distances are asked.
        tell: called with all that is tried and its value.
    """
    validation = validation.at_most(min(max_users, max(CELLS // n_items, 1)))
    pairs = Pairs(sequences, n_items)
    gram = lru_cache(1)(pairs.gram)

    @lru_cache(1)
    def regressed(settings: WideSettings) -> sparse.csr_matrix:
        """Queries through the inverse, (U, n_items): all that differs between targets is the last product."""
        votes = _votes(*_keys(validation.histories, settings), n_items)
        items = np.unique(votes.indices)
        inverse = local_inverse(gram(settings.history_decay), settings.l2, settings.neighbours)
        cuts = block_cuts(len(items))
        return votes[:, items] @ in_blocks(lambda first, last: inverse(items[first:last]), cuts)

    def scores(settings: WideSettings) -> np.ndarray:
        if settings.history_decay == 1:  # as the table is: its values below 0, and its smallest, rank far worse
            looked_up = np.unique(validation.histories.tail(settings.lookups))
            return WideTable.of(pairs, settings, items=looked_up).scores(validation.histories)
        cross = pairs.cross(settings.history_decay, settings.target_decay)
        return _product(regressed(replace(settings, target_decay=0.0)), cross)

    @lru_cache(None)
    def value(settings: WideSettings) -> float:
        ndcg = ndcg_of(scores(settings), validation, k)
        tell(settings, ndcg)
        return ndcg

    def climbed(best: WideSettings, name: str) -> WideSettings:
        ladder = [replace(best, **{name: step}) for step in sorted({*LADDERS[name], getattr(best, name)})]
        return _climb(ladder, best, value)

    best = start or WideSettings()
    for name in ("target_decay", "history_decay", "target_decay", "l2", "target_decay"):
        best = climbed(best, name)
    orderless = replace(best, **ORDERLESS | {"lookups": min(ORDERLESS["lookups"], lookups)})
    flat, quick = best.history_decay >= ORDER, replace(orderless, neighbours=best.neighbours)
    if (flat or value(quick) > value(best)) and value(orderless) > value(best):
        return climbed(climbed(orderless, "l2"), "neighbours")
    further = [replace(best, **step) for step in REACH if flat and step["lookups"] <= lookups]
    return _climb([best, *further], best, value)


def ndcg_of(scores: np.ndarray, queries: Queries, k: int) -> float:
    """Mean NDCG@k of scores (U, n_items), seen items left out."""
    ids, _ = top_k(scores, min(k, scores.shape[1]), queries.histories)
    return measure(ids, queries.targets, [k]).mean("ndcg", k)


def _climb(ladder: Sequence, start, value: Callable[..., float]):
    """From `start` along the ladder, up and then down, as long as the value rises."""
    place = ladder.index(start)
    for direction in (1, -1):
        while 0 <= place + direction < len(ladder) and value(ladder[place + direction]) > value(ladder[place]):
            place += direction
    return ladder[place]


def _keys(histories: Ragged, settings: WideSettings) -> tuple[np.ndarray, np.ndarray]:
    items = histories.tail(settings.lookups).astype(np.int64)
    weights = settings.history_decay ** np.arange(settings.lookups - 1, -1, -1.0)
    return items, np.where(items > 0, weights, 0).astype(np.float32)


def _votes(items: np.ndarray, weights: np.ndarray, n_items: int) -> sparse.csr_matrix:
    """Keys as a matrix, (U, n_items)."""
    users, slots = np.nonzero(items)
    return sparse.csr_matrix((weights[users, slots], (users, items[users, slots] - 1)), shape=(len(items), n_items))


def _shortened(table: sparse.csr_matrix, max_postings: int) -> sparse.csr_matrix:
    """The highest values above 0 of each row."""
    same, ones = sparse.identity(table.shape[0], np.float32, "csr"), np.ones(table.shape[1], np.float32)

    def rows(first: int, last: int) -> sparse.csr_matrix:
        return best_of_product(same[first:last], table, ones, max_postings)

    return in_blocks(rows, block_cuts(table.shape[0]))


def _posting_lists(table: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets (n_items + 2,), item ids and values of a table; row 0 is empty."""
    return np.append(0, table.indptr), table.indices + 1, table.data


def _product(left: sparse.csr_matrix, right: sparse.csr_matrix) -> np.ndarray:
    """left @ right; matrices that are hardly sparse multiply faster as arrays."""
    if all(m.nnz > m.shape[0] * m.shape[1] / 10 for m in (left, right)):
        return left.toarray() @ right.toarray()
    return product(left, right)
