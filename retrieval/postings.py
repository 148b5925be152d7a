"""What every posting format shares: finding codes, answering queries, joining and storing lists."""

from __future__ import annotations

from pathlib import Path

import numba
import numpy as np
from numpy.typing import ArrayLike

from retrieval import storage
from retrieval.pruning import Pruning
from retrieval.queries import Histories, histories, integers, item_ids, query_keys
from retrieval.search import EMPTY_SLOT, Searcher
from retrieval.sizes import blocks_of, gini, offsets_of

LARGEST_SCORE = 1e30  # sums of many scores must stay finite
LARGEST_CATALOGUE = 2**31 - 2  # ids leave the index as int32
SMALL_CATALOGUE = 2**26  # a search takes 256 MiB for so many items; a file that claims more must hold something
MOST_ITEMS_PER_POSTING = 1000
FORMATS: dict[str, type[Postings]] = {}  # posting format -> the class that reads and holds it


class Postings:
    """Posting lists of C codes over the items 1..n_items, in one of the formats; immutable.

    A subclass names its format, the types of its arrays, and its arrays' meaning. It calls `_adopt` with them, which
    checks what all formats have in common.
    """

    format: str
    dtypes: dict[str, type]  # of all arrays, which become attributes; of those that every format has:
    codes: np.ndarray  # (C,), rising
    offsets: np.ndarray  # (C * n_blocks + 1,), of the lists in items and scores
    items: np.ndarray  # (P,) of all postings
    scores: np.ndarray  # (P,)
    floors: np.ndarray  # float32 (C,)
    cuts: np.ndarray  # float32 (C,)
    removed: np.ndarray  # ids of items, rising
    n_items: int
    pruning: Pruning

    def _adopt(self, arrays: dict, n_items: int, pruning: Pruning | None) -> None:
        self.n_items = int(n_items)
        self.pruning = pruning or Pruning()
        if not 1 <= self.n_items <= LARGEST_CATALOGUE:
            raise ValueError(f"An index holds 1..{LARGEST_CATALOGUE} items, not {n_items}.")
        for name, dtype in self.dtypes.items():
            setattr(self, name, _read_only(name, arrays[name], dtype))
        codes, offsets, removed = self.codes, self.offsets, self.removed
        if (
            len(offsets) != len(codes) * self.n_blocks + 1
            or len(self.items) != len(self.scores)
            or any(len(getattr(self, name)) != len(codes) for name in self._per_code())
        ):
            raise ValueError("The arrays of the index don't fit together in length.")
        if len(codes) and (codes[0] < 0 or np.any(codes[1:] <= codes[:-1])):
            raise ValueError("Codes must be non-negative, ascending, and each only once.")
        if offsets[0] != 0 or offsets[-1] != len(self.items) or np.any(offsets[1:] < offsets[:-1]):
            raise ValueError("Offsets must rise from 0 to the number of postings.")
        if not np.all(np.abs(self.floors) <= LARGEST_SCORE):
            raise ValueError(f"Floors must be numbers of at most {LARGEST_SCORE:g} in size (one is not).")
        if np.any(np.isnan(self.cuts) | (self.cuts > 2 * LARGEST_SCORE)):
            raise ValueError(f"Cuts must be numbers of at most {2 * LARGEST_SCORE:g} (or -inf).")
        if len(removed) and (removed[0] < 1 or removed[-1] > self.n_items or np.any(removed[1:] <= removed[:-1])):
            raise ValueError("Removed items must be ids of the catalogue, ascending.")
        gone = np.zeros(self.n_items + 1 if len(removed) else 0, bool)  # empty: nothing to find
        gone[removed] = True
        lists = (offsets, self.items, self.scores, self.n_blocks, self.n_items)
        row, fault = _first_bad_posting(*lists, gone, np.float32(LARGEST_SCORE), self.format == "float32")
        if row >= 0:
            raise ValueError(f"The posting list of code {codes[row]} is wrong: {_FAULTS[fault]}.")
        names = ("codes", "offsets", "items", "scores", "floors", "lows", "steps", "dense", "table")
        kernel = {name: getattr(self, name) for name in names if name in arrays}
        # What recommends; another takes its place in an index that answers elsewhere.
        self._on_host = self._searcher = Searcher(**kernel, n_items=self.n_items, n_blocks=self.n_blocks)

    @property
    def n_blocks(self) -> int:
        """Lists per code: more than one where ids count within blocks of items."""
        return blocks_of(self.format, self.n_items)

    def _per_code(self) -> list[str]:
        others = ("codes", "offsets", "items", "scores", "removed", "table")
        return [name for name in self.dtypes if name not in others]

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} codes, {self.lengths().sum()} postings, {self.n_items} items)"

    def lengths(self) -> np.ndarray:
        """How many items each code's list holds, int64 (C,)."""
        return np.diff(self.offsets[:: self.n_blocks])

    # --- asking

    def recommend(
        self,
        codes: ArrayLike,
        k: int,
        seen: Histories | None = None,
        weights: ArrayLike | None = None,
        threads: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best k items of each query by the weighted sum of its keys' scores.

        score(item) = sum over the keys j of the query of w_j * (floor_j + stored_j(item)).

        Args:
            codes: integers (U, K), keys of the index; -1 is an empty slot. Weights of a repeated code add up.
            k: how many items, 1..n_items.
            seen: items to leave out, as an object with offsets (U + 1,) and values (0 is ignored); None: none.
            weights: (U, K) from 0 to 1e6, taken as float32; None: all 1. A slot of weight 0 is empty: it costs no
                list, and its code need not be in the index.
            threads: all cores unless told.

        Returns:
            Item ids int32 (U, k) and scores float32 (U, k): score descending, equal scores by ascending id. Only items
            with a posting under at least one of the keys are recommended, so a query of empty slots gets none;
            unfilled slots hold id 0 and score -inf.

        Raises:
            ValueError: a code is not in the index (see missing, extend), a weight is no such number, k is outside
                1..n_items, or histories don't fit.
        """
        codes, weights = query_keys(codes, weights)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= self.n_items:
            raise ValueError(f"k must be a whole number from 1 to the {self.n_items} items of the index, not {k!r}.")
        seen_offsets, seen_values = histories(seen, len(codes))
        return self._searcher.top_k(codes, weights, int(k), seen_offsets, seen_values, threads)

    def explain(self, codes: ArrayLike, items: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
        """How much each key of a query gave each item: the parts whose sum is the score.

        Args:
            codes: integers (U, K), as of recommend.
            items: ids (U, n), such as recommend returns.
            weights: (U, K), as of recommend.

        Returns:
            float64 (U, n, K): w_j * (floor_j + stored_j(item)); 0 for empty slots and for item 0.

        Raises:
            ValueError: as recommend, and for items that don't fit the queries or the catalogue.
        """
        codes, weights = query_keys(codes, weights)
        items = integers(items)
        if items.ndim != 2 or len(items) != len(codes):
            raise ValueError(f"Items to explain must have the shape ({len(codes)}, n), not {items.shape}.")
        item_ids(items[items != 0], self.n_items)  # for its check
        return self._on_host.shares(codes, weights, items)

    def posting_list(self, code: int) -> tuple[np.ndarray, np.ndarray, np.float32]:
        """What the index holds of one code.

        Args:
            code: a key of the index.

        Returns:
            Item ids uint32, ascending; their stored scores float32; the floor of the code.

        Raises:
            ValueError: the code is not in the index.
        """
        if not self.contains(code):
            raise ValueError(f"Code {code} is not in the index.")
        row = np.searchsorted(self.codes, code)
        return *self._list(row), self.floors[row]

    def _list(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.offsets[row], self.offsets[row + 1])
        return self.items[part], self.scores[part]

    def contains(self, codes: ArrayLike) -> np.ndarray:
        """Whether each of `codes` (integers, any shape) has a posting list: bool, same shape."""
        codes = np.asarray(codes)
        if len(self.codes) == 0:
            return np.zeros(codes.shape, bool)
        row = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return self.codes[row] == codes

    def missing(self, codes: ArrayLike) -> np.ndarray:
        """The codes among `codes` that are not in the index: int64, ascending, each once; empty slots are none."""
        codes = np.unique(integers(codes))
        return codes[~self.contains(codes) & (codes != EMPTY_SLOT)]

    def statistics(self) -> dict:
        """Codes, postings, sparsity (share of pairs without one), bytes, lengths of the lists."""
        lengths = self.lengths()
        known = lengths if len(lengths) else np.zeros(1, np.int64)
        postings = int(lengths.sum())
        pairs = len(self) * self.n_items
        return {
            "format": self.format,
            "codes": len(self),
            "items": self.n_items,
            "postings": postings,
            "sparsity": 1.0 - postings / pairs if pairs else 1.0,
            "bytes": sum(getattr(self, name).nbytes for name in self.dtypes),
            "postings_min": int(known.min()),
            "postings_median": float(np.median(known)),
            "postings_max": int(known.max()),
            "postings_gini": gini(known),
        }

    # --- choosing and joining lists

    def only(self, codes: ArrayLike) -> Postings:
        """A new index of the posting lists of `codes` (integers) alone; those it lacks are passed over.

        Costs what these lists hold, however large the index is.
        """
        codes = np.unique(integers(codes))
        codes = codes[self.contains(codes)]
        return self._with(**self._taken(np.searchsorted(self.codes, codes)))

    def _taken(self, rows: np.ndarray) -> dict:
        """The arrays of the posting lists at some rows, ascending."""
        lists = (rows[:, None] * self.n_blocks + np.arange(self.n_blocks)).ravel()
        starts = self.offsets[lists]
        lengths = self.offsets[lists + 1] - starts
        offsets = offsets_of(lengths)
        at = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        arrays = {name: getattr(self, name)[rows] for name in ("codes", *self._per_code())}
        return {**arrays, "offsets": offsets, "items": self.items[at], "scores": self.scores[at]}

    def _with(self, **changed) -> Postings:
        kept = {name: getattr(self, name) for name in (*self.dtypes, "n_items", "pruning")}
        return type(self)(**{**kept, **changed})

    def _joined(self, other: Postings) -> dict:
        """The arrays of both, of one format: the same items, no code in common."""
        shared = other.codes[self.contains(other.codes)]
        if len(shared):
            raise ValueError(
                f"Both indexes hold code {shared[0]} ({len(shared)} codes in all); extend by new codes only."
            )
        order = np.argsort(np.concatenate([self.codes, other.codes]), kind="stable")
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(other, name)])[order]
            for name in ("codes", *self._per_code())
        }
        lengths = np.concatenate([np.diff(index.offsets).reshape(-1, self.n_blocks) for index in (self, other)])[order]
        offsets = offsets_of(lengths.ravel())
        items = np.empty(offsets[-1], self.dtypes["items"])
        scores = np.empty(offsets[-1], self.dtypes["scores"])
        own = order < len(self)
        for index, rows in ((self, np.flatnonzero(own)), (other, np.flatnonzero(~own))):
            ends = index.offsets[:: self.n_blocks]
            _copy_lists(ends, index.items, index.scores, offsets[rows * self.n_blocks], items, scores)
        return {**arrays, "offsets": offsets, "items": items, "scores": scores, "removed": self.removed}

    def _match_items(self, other: Postings) -> Postings:
        """`other` without the items removed here; a ValueError if its items are others."""
        if other.n_items != self.n_items:
            raise ValueError(f"An index of {self.n_items} items can't be extended by one of {other.n_items} items.")
        if np.array_equal(other.removed, self.removed):
            return other
        if not np.isin(other.removed, self.removed).all():
            raise ValueError("An index can't be extended by one with more items removed from it.")
        return other.remove_items(self.removed)

    # --- on disk

    def save(self, folder: str | Path) -> None:
        """Write the index to `folder`, whole or not at all; an index that stands there is replaced.

        Args:
            folder: where; folders above it are made.

        Raises:
            ValueError: something else stands there.
            OSError: the disk refuses.
        """
        described = about(self.n_items, self.pruning, self.format)
        storage.save(folder, described, {name: getattr(self, name) for name in self.dtypes})

    @classmethod
    def _read(cls, folder, mmap: bool, format: str) -> Postings:
        described, arrays = storage.load(folder, cls.dtypes_of(format), mmap)
        try:
            if described.keys() != {"n_items", "pruning", "format"} or type(described["n_items"]) is not int:
                raise ValueError("Its description does not fit this version.")
            held = len(arrays["items"]) + len(arrays.get("table", ()))
            if described["n_items"] > max(SMALL_CATALOGUE, MOST_ITEMS_PER_POSTING * held):
                raise ValueError(f"It claims {described['n_items']} items, and holds {held} postings.")
            index = cls(**arrays, n_items=described["n_items"], pruning=Pruning(**described["pruning"]))
            if index.format != described["format"]:
                raise ValueError("Its arrays are of another posting format.")
            return index
        except (ValueError, TypeError) as error:
            raise storage.IndexFileError(f"The index in {folder} is damaged; build it anew. {error}") from error


def about(n_items: int, pruning: Pruning, format: str) -> dict:
    """How an index describes itself on disk."""
    return {"n_items": int(n_items), "pruning": pruning.as_dict(), "format": format}


def load_index(folder: str | Path, mmap: bool = True) -> Postings:
    """Read the index in `folder`, of any posting format.

    Args:
        folder: what save or build_to_disk wrote.
        mmap: the arrays stay on disk, and pages come as they are used.

    Returns:
        A SparseInvertedIndex or CompactIndex; every byte of it was checked (size, SHA-256, then meaning).

    Raises:
        FileNotFoundError: there is no index.
        storage.IndexFileError: it is foreign, damaged, or newer (a ValueError).
    """
    format = storage.about(folder).get("format")
    if not isinstance(format, str) or format not in FORMATS:
        raise storage.IndexFileError(f"The index in {folder} is damaged: it has posting format {format!r}.")
    return FORMATS[format]._read(folder, mmap, format)


def _read_only(name: str, array, dtype) -> np.ndarray:
    """The array as a read-only view, not copied; always read-only means one numba signature."""
    array = np.asarray(array)
    if array.ndim != 1 or array.dtype != dtype:
        raise ValueError(
            f"Index array '{name}' must be one row of {np.dtype(dtype)}, not {array.dtype} of shape {array.shape}."
        )
    view = np.ascontiguousarray(array).view(np.ndarray)[:]
    view.flags.writeable = False
    return view


_FAULTS = (
    "an item id is outside the catalogue",
    "its item ids don't ascend",
    "a score is not a positive number",
    "it holds an item that was removed",
)


@numba.njit(nogil=True, cache=True)
def _first_bad_posting(offsets, items, scores, n_blocks, n_items, gone, largest, is_float):
    """All that the search kernel relies on; it reads and writes by these numbers blindly."""
    for at in range(offsets.size - 1):
        row, block = at // n_blocks, at % n_blocks
        before = np.int64(0) if block == 0 else np.int64(-1)
        for p in range(offsets[at], offsets[at + 1]):
            within = np.int64(items[p])
            item = (block << 16) + within
            if item < 1 or item > n_items:
                return row, 0
            if within <= before:
                return row, 1
            if is_float and not (scores[p] > 0 and scores[p] <= largest):  # NaN fails both
                return row, 2
            if gone.size and gone[item]:
                return row, 3
            before = within
    return -1, 0


@numba.njit(nogil=True, cache=True)
def _copy_lists(from_offsets, from_items, from_scores, starts, to_items, to_scores):
    for row in range(starts.size):
        to = starts[row]
        for p in range(from_offsets[row], from_offsets[row + 1]):
            to_items[to] = from_items[p]
            to_scores[to] = from_scores[p]
            to += 1
