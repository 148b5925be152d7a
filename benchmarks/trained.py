"""Trained runs (runs/NAME/) as benchmarks and experiments need them; imports MindSpore."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time

import numpy as np

import workflow
from benchmarks.measuring import Asked, sentences
from errors import UserError
from models import Exhaustive
from retrieval import SparseInvertedIndex, load_index
from retrieval.build import build_pruned
from retrieval.pruning import Pruning
from runs import Run


@contextlib.contextmanager
def on_cpu():
    """MindSpore on the CPU, for as long as models are asked; a UserError ends the program with its sentence."""
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings
    with workflow.mindspore_on("CPU"), sentences():
        yield


class Trained(Run):
    """A finished run whose queries, ranking and indexes engines are measured with.

    Args:
        folder: runs/NAME.
        kind: the model it has to be, "DQMatch" for one.
        data: `runs.Data` of another run on the same data; loaded where there is none.

    Raises:
        UserError: the run is of another model, on other data, or cannot be read.
    """

    def __init__(self, folder, kind: str, data=None):
        super().__init__(folder, data=data)
        if self.settings.model != kind:
            raise UserError(f"{folder} is a run of {self.settings.model}; name a run of {kind} here.")

    def asked(self, queries, exclude_seen: bool = True) -> Asked:
        """The queries as an engine takes them.

        Weighted keys int64 (U, K) of a quantised model, the vector float32 (U, D) of a TwoTower, or the tokens float32
        (U, K_u, D) of an AllToAll.
        """
        seen = queries.histories if exclude_seen else None
        if self.model.has_quantiser:
            keys = self.matcher.keys(queries)
            return Asked(*keys, seen=seen) if isinstance(keys, tuple) else Asked(keys, seen=seen)
        tokens = self.query_side.tokens(queries)
        return Asked(tokens.sum(1) if self.settings.model == "TwoTower" else tokens, seen=seen)

    def encoding_rate(self, queries) -> float:
        """Users per second from histories to `asked`, all in one call."""
        self.asked(queries)  # compiles
        began = time.perf_counter()
        self.asked(queries)
        return len(queries) / (time.perf_counter() - began)

    def ranking(self, queries, k: int, exclude_seen: bool) -> np.ndarray:
        """The run's own best k by exhaustive scoring: int32 (U, k); of a TwoTower by its vectors, without a table."""
        wide = None if self.settings.model == "TwoTower" else self.matcher.wide
        every = Exhaustive(self.model, self.settings.inference_batch_size, wide)
        return every.recommend(queries, k, exclude_seen)[0]

    def item_vectors(self) -> np.ndarray:
        """Of a TwoTower whose interaction is dot: float32 (n_items, D)."""
        if self.model.interaction.name != "dot":
            raise UserError(f"{self.folder} has --interaction {self.model.interaction.name}; name a TwoTower with dot.")
        return self.model.items.vectors()

    def saved_index(self) -> SparseInvertedIndex:
        """runs/NAME/index in memory and float32, with the codes of the test users that it lacks scored."""
        index, keys = load_index(self.folder / "index", mmap=False), self.asked(self.data.test).points
        index = index if index.format == "float32" else index.decode()
        missing = index.missing(keys[keys >= 0])
        print(f"{self.folder}/index: {len(missing):,} codes of the test users were not in it and were scored now")
        return index.extend(self.build(missing, index.pruning)[0]) if len(missing) else index

    def build(self, codes, pruning: Pruning) -> tuple[SparseInvertedIndex, float]:
        """An index of these codes alone, and the seconds that scoring and cutting took."""
        scorer = self.model.scorer()
        began = time.perf_counter()
        index = build_pruned(scorer, codes, self.data.catalogue.n_items, pruning)
        return index, time.perf_counter() - began

    def full_index(self) -> SparseInvertedIndex:
        """The index of the codes of the run and of its test users, nothing pruned, and of the wide table's items."""
        codes = np.union1d(self.index.codes, self.query_side.codes(self.data.test))
        codes = codes[codes < self.model.quantiser.n_codes]
        unlimited = dataclasses.replace(self.index.pruning, threshold=None, max_postings=None)
        return self.matcher.with_items(self.build(codes, unlimited)[0])
