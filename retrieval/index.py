"""The sparse inverted index: per code, the items that score above its floor, and by how much.

Stands alone: NumPy and numba, no model, no file format of any framework. Follows figure 2 of the SparCode paper
(precomputed interaction scores in posting lists); the arrays and the floors are this project's own.
"""

from __future__ import annotations

import numbers
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from retrieval import changes, storage
from retrieval.blocks import Scorer
from retrieval.postings import FORMATS, LARGEST_CATALOGUE, Postings
from retrieval.pruning import Pruning
from retrieval.queries import item_ids

DTYPES = {
    "codes": np.int64,
    "offsets": np.int64,
    "items": np.uint32,
    "scores": np.float32,
    "floors": np.float32,
    "cuts": np.float32,
    "removed": np.uint32,
}


class SparseInvertedIndex(Postings):
    """Posting lists of C codes over the items 1..n_items, in compressed rows; exact, immutable.

    Meaning: score(code, item) = floor of the code + stored score, or the floor alone where the item has no posting. A
    code is any key: the code tuple of a token is written as one integer, sum over m of c_m * N^(M-1-m); other kinds of
    keys (items, codewords) take ranges behind these.

    Args:
        codes: int64 (C,), ascending.
        offsets: int64 (C + 1,), where the lists start and end.
        items: uint32 (nnz,), ascending within a list.
        scores: float32 (nnz,) > 0.
        floors: float32 (C,).
        n_items: the items are 1..n_items.
        pruning: how the lists were cut, and how those of codes that join later are.
        cuts: float32 (C,), what a score must exceed its floor by to enter the list; below 0 where the list leaves no
            item out, so that its floor stands for nothing. Left out, they follow from `pruning`, which knows the
            threshold and not where a cap cut.
        removed: uint32, the items, ascending, that this index does not answer for.

    Raises:
        ValueError: the arrays are not such an index.
    """

    format = "float32"
    dtypes = DTYPES

    def __init__(
        self,
        codes: np.ndarray,
        offsets: np.ndarray,
        items: np.ndarray,
        scores: np.ndarray,
        floors: np.ndarray,
        n_items: int,
        pruning: Pruning | None = None,
        cuts: np.ndarray | None = None,
        removed: np.ndarray | None = None,
    ):
        if cuts is None:
            cuts = (pruning or Pruning()).default_cuts(np.asarray(floors))
        if removed is None:
            removed = np.zeros(0, np.uint32)
        values = (codes, offsets, items, scores, floors, cuts, removed)
        self._adopt(dict(zip(DTYPES, values, strict=True)), n_items, pruning)

    def extend(self, other: SparseInvertedIndex) -> SparseInvertedIndex:
        """A new index with the posting lists of both: the same items, no code in common.

        They may be keys of two kinds that were cut by different rules, say code tuples and items. Each list keeps its
        own floor and cut. `pruning` stays that of this index, as a rule for codes that are scored later; what it has
        not cut it cuts only when it is told to (prune), and lists of the other kind that are longer than its cap may
        stay so. Items removed from this index don't come back with the codes of the other.

        Args:
            other: an index of the same items; more may have been removed from this one.

        Returns:
            The joined index.

        Raises:
            ValueError: a code is in both, or the items differ.
        """
        return self._with(**self._joined(self._match_items(other)))

    def add_items(
        self, scorer: Scorer, n_new: int, *, block: int | None = None, progress: bool = False
    ) -> SparseInvertedIndex:
        """A new index of n_new more items, which get the ids n_items + 1, n_items + 2, ...

        The same pruning holds: an item joins the list of a code if it scores above what that code cut, and a list that
        grows beyond max_postings is cut back to its best. Floors stay (an item that leaves a list counts as the floor
        from then on), except that a list which left nothing out until now gets its floor as in a build. So the lists
        hold the items a new build would put there, and scores differ from it only by the floor of what is left out.

        Args:
            scorer: scores(codes int64 (c,)) -> float32 (c, n_new) of the new items alone, column j being item
                n_items + 1 + j; nothing else is scored again.
            n_new: how many items.
            block: codes scored at once; as many as fit 64 MiB unless told.
            progress: show a bar on standard error.

        Returns:
            The grown index.

        Raises:
            ValueError: n_new is no such number, or the scores are none (see build_index).
        """
        if isinstance(n_new, bool) or not isinstance(n_new, int | np.integer) or n_new < 1:
            raise ValueError(f"The number of new items must be at least 1, not {n_new!r}.")
        if self.n_items + n_new > LARGEST_CATALOGUE:
            raise ValueError(f"An index holds at most {LARGEST_CATALOGUE} items.")
        arrays = changes.add_items(self, scorer, int(n_new), block, progress)
        return self._with(**arrays, n_items=self.n_items + int(n_new))

    def remove_items(self, items: ArrayLike) -> SparseInvertedIndex:
        """A new index that never recommends `items` (ids), under no code it holds or gets later.

        Ids of the others stay as they are. Items already removed are passed over; floors stay.

        Raises:
            ValueError: an item is outside 1..n_items.
        """
        gone = np.union1d(self.removed, item_ids(items, self.n_items)).astype(np.uint32)
        return self._with(**changes.drop_items(self, gone), removed=gone)

    def shard(self, n_shards: int) -> list[SparseInvertedIndex]:
        """Indexes of all codes over disjoint ranges of items, about equal in postings.

        Ids and floors stay, so the best k of all shards are the best k of the index (see ShardedIndex), and merge makes
        it whole again.

        Raises:
            ValueError: n_shards is not in 1..n_items.
        """
        whole = isinstance(n_shards, numbers.Integral) and not isinstance(n_shards, bool)
        if not whole or not 1 <= n_shards <= self.n_items:
            raise ValueError(f"There can be 1..{self.n_items} shards of it, not {n_shards}.")
        bounds = changes.even_bounds(self.items, self.n_items, n_shards)
        every = np.arange(1, self.n_items + 1)
        return [
            self.remove_items(np.concatenate([every[: first - 1], every[end - 1 :]]))
            for first, end in zip(bounds, bounds[1:], strict=False)
        ]

    def merge(self, *others: SparseInvertedIndex) -> SparseInvertedIndex:
        """A new index of the items of all of them: same codes, floors, ids, no item in two.

        Exact: its lists are those of all together, so they may pass max_postings if the parts grew apart.

        Raises:
            ValueError: they are no such parts of one.
        """
        for other in others:
            if (other.n_items, other.pruning) != (self.n_items, self.pruning):
                raise ValueError("Only indexes with the same item ids and pruning can be merged.")
            if not np.array_equal(other.codes, self.codes):
                raise ValueError("Only indexes of the same codes can be merged (see extend).")
            if not np.array_equal(other.floors, self.floors):
                raise ValueError("Only indexes with the same floors can be merged.")
        parts = (self, *others)
        held = np.zeros(self.n_items + 1, np.int64)
        for part in parts:
            held += 1
            held[part.removed] -= 1
        if np.any(held[1:] > 1):
            raise ValueError(f"Two of the indexes to merge hold item {np.argmax(held[1:] > 1) + 1}.")
        cuts = np.max([part.cuts for part in parts], axis=0)
        removed = (np.flatnonzero(held[1:] == 0) + 1).astype(np.uint32)
        return self._with(**changes.merge_lists(parts), cuts=cuts, removed=removed)

    def prune(
        self,
        *,
        threshold: float | None = None,
        max_postings: int | None = None,
        keep_share: float | None = None,
        max_bytes: int | None = None,
        format: str = "float32",
    ) -> SparseInvertedIndex:
        """A new index with shorter lists, as if built with these limits, which hold together; nothing is scored again.

        Args:
            threshold: as in Pruning.
            max_postings: as in Pruning.
            keep_share: the share of all (code, item) pairs to keep, by one threshold for all codes.
            max_bytes: the memory it may take in `format`, reached by one threshold for all codes and never exceeded.
            format: the posting format that max_bytes counts.

        Returns:
            The pruned index.

        Raises:
            ValueError: a limit can't be met, or leaves no posting.
        """
        threshold = changes.common_threshold(self, threshold, keep_share, max_bytes, format)
        pruning = self.pruning.tightened(threshold, max_postings)
        pruned = self._with(**changes.prune(self, threshold, max_postings), pruning=pruning)
        if len(self.items) and not len(pruned.items):
            raise ValueError("These limits leave no posting, so the index would be empty; loosen them.")
        return pruned

    def compact(self, format: str) -> Postings:
        """The same lists in less memory; see overlap for what that costs.

        Args:
            format: "uint16" (4 bytes per posting, scores to 1/65535 of the range of their list) or "uint8" (3 bytes,
                1/255).

        Returns:
            A CompactIndex.

        Raises:
            ValueError: there is no such format.
        """
        compact = [name for name in FORMATS if name != self.format]
        if format not in compact:
            raise ValueError(f"Unknown compact format {format!r}; there are {' and '.join(compact)}.")
        return FORMATS[format].of(self, format)

    @classmethod
    def dtypes_of(cls, format: str) -> dict[str, type]:
        """The types of the arrays in a format; see CompactIndex."""
        return DTYPES

    @classmethod
    def load(cls, folder: str | Path, mmap: bool = True) -> SparseInvertedIndex:
        """As load_index, of an exact index only.

        Raises:
            FileNotFoundError: there is no index.
            storage.IndexFileError: it is foreign, damaged, newer, or compact (a ValueError).
        """
        stored = storage.about(folder).get("format", cls.format)
        if stored != cls.format:
            raise storage.IndexFileError(
                f"The index in {folder} has posting format {stored!r}, not {cls.format!r}; read it with load_index."
            )
        return cls._read(folder, mmap, cls.format)


FORMATS["float32"] = SparseInvertedIndex
