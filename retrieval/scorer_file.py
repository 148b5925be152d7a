"""A scorer in one file, so that codes an index lacks can be scored where no model is."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from retrieval import storage
from retrieval.scorer import PairScorer

VERSION = 1
PARTS = (  # arguments of PairScorer that it keeps under their names
    "codewords",
    "token_hidden_weight",
    "token_hidden_bias",
    "item_hidden",
    "out_weight",
    "out_bias",
    "item_dot",
    "item_bias",
    "score_bias",
)


def save_scorer(scorer: PairScorer, path) -> None:
    """Write `scorer` to `path` (.npz), whole or not at all. Raises OSError when the disk refuses."""
    parts = {name: getattr(scorer, name, None) for name in PARTS}
    if scorer.has_dot:
        parts["dot_weight"], parts["dot_bias"] = scorer.dot_weight, scorer.dot_bias
    for depth, (weight, bias) in enumerate(getattr(scorer, "layers", ())):
        parts[f"weight_{depth}"], parts[f"bias_{depth}"] = weight, bias
    given = {name: part for name, part in parts.items() if part is not None}
    with storage.new_file(Path(path)) as file:
        np.savez(file, version=VERSION, **given)


def load_scorer(path, threads: int | None = None) -> PairScorer:
    """Read what save_scorer wrote: a scorer of the same scores.

    Raises FileNotFoundError when no file is there, ValueError for one that is foreign, damaged, or
    of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        if int(parts.pop("version")) != VERSION:
            raise ValueError(f"This program reads version {VERSION}.")
        depths = range(sum(name.startswith("weight_") for name in parts))
        layers = [(parts.pop(f"weight_{depth}"), parts.pop(f"bias_{depth}")) for depth in depths]
        if "dot_weight" in parts:
            parts["token_dot"] = parts.pop("dot_weight"), parts.pop("dot_bias")
        return PairScorer(**parts, layers=layers, threads=threads)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a saved scorer, or damaged; export it anew. {error}") from error
