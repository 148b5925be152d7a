"""Trained runs (runs/NAME/) as benchmarks and experiments need them; imports MindSpore."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time

import numpy as np

import workflow
from benchmarks.measuring import Asked
from errors import UserError
from retrieval import SparseInvertedIndex, load_index
from retrieval.build import build_pruned
from retrieval.pruning import Pruning
from runs import Run


@contextlib.contextmanager
def on_cpu():
    """MindSpore on the CPU, for as long as models are asked; a UserError ends the program with its
    sentence."""
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings
    with workflow.mindspore_on("CPU"):
        try:
            yield
        except UserError as error:
            sys.exit(f"error: {error}")


class Trained(Run):
    """A finished run as a search engine needs it.

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

    def points(self, queries) -> np.ndarray:
        """What a search takes: codes int64 (U, K_u), the vector float32 (U, D) of a TwoTower, or
        the tokens float32 (U, K_u, D) of an AllToAll."""
        if self.model.has_quantiser:
            return self.query_side.codes(queries.histories)
        tokens = self.query_side.tokens(queries.histories)
        return tokens.sum(1) if self.settings.model == "TwoTower" else tokens

    def asked(self, queries, exclude_seen: bool = True) -> Asked:
        """The queries as an engine takes them, encoded."""
        return Asked(self.points(queries), queries.histories if exclude_seen else None)

    def encoding_rate(self, queries) -> float:
        """Users per second from histories to `points`, all in one call."""
        self.points(queries)  # compiles
        began = time.perf_counter()
        self.points(queries)
        return len(queries) / (time.perf_counter() - began)

    def ranking(self, queries, k: int, exclude_seen: bool) -> np.ndarray:
        """The model's own best k by exhaustive scoring: int32 (U, k)."""
        return self.exhaustive().recommend(queries, k, exclude_seen)[0]

    def item_vectors(self) -> np.ndarray:
        """Of a TwoTower: float32 (n_items, D)."""
        return self.model.items.vectors()

    def saved_index(self) -> SparseInvertedIndex:
        """runs/NAME/index in memory, with the codes of the test users that it lacks scored."""
        index, codes = load_index(self.folder / "index", mmap=False), self.points(self.data.test)
        print(
            f"{self.folder}/index: {codes.size - index.contains(codes).sum():,} of {codes.size:,} "
            "codes of the test users were not in it and were scored now"
        )
        return index.extend(self.build(index.missing(codes), index.pruning)[0])

    def build(self, codes, pruning: Pruning) -> tuple[SparseInvertedIndex, float]:
        """An index of these codes, and the seconds that scoring and cutting took."""
        scorer = self.model.scorer()
        began = time.perf_counter()
        index = build_pruned(scorer, codes, self.data.catalogue.n_items, pruning)
        return index, time.perf_counter() - began

    def full_index(self) -> SparseInvertedIndex:
        """The index of the codes of the run and of its test users, nothing pruned."""
        saved = load_index(self.folder / "index")
        codes = np.union1d(saved.codes, self.points(self.data.test))
        unlimited = dataclasses.replace(saved.pruning, threshold=None, max_postings=None)
        return self.build(codes, unlimited)[0]
