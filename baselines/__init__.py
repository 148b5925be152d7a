"""Published and simple rivals, and the one place that builds them."""

from __future__ import annotations

import inspect

from baselines.als import ALS
from baselines.ease import EASE, WholeEASE
from baselines.global_hot import GlobalHot
from baselines.item_cf import ItemCF
from baselines.item_knn import ItemKNN
from baselines.linear import Linear
from baselines.markov import Markov
from baselines.spark_als import SparkALS
from baselines.swing import Swing
from data.ragged import Ragged
from errors import UserError
from retrieval.queries import item_ids

__all__ = ["BASELINES", "arguments", "fit", "missing"]

BASELINES = {
    "GlobalHot": GlobalHot,
    "ItemCF": ItemCF,
    "Swing": Swing,
    "ItemKNN": ItemKNN,
    "EASE": EASE,
    "WholeEASE": WholeEASE,
    "Markov": Markov,
    "Linear": Linear,
    "ALS": ALS,
    "SparkALS": SparkALS,
}


def missing(name: str, n_items: int = 0) -> str:
    """What this machine lacks to fit the baseline of that name to so many items, as a sentence; "" where nothing."""
    kind = BASELINES[name]
    if hasattr(kind, "missing"):
        return kind.missing()
    return kind.too_large(n_items) if hasattr(kind, "too_large") else ""


def arguments(name: str, settings: dict) -> dict:
    """What the constructor of a baseline gets: the settings that it has by name, and its own defaults."""
    taken = {p.name: settings.get(p.name, p.default) for p in inspect.signature(BASELINES[name]).parameters.values()}
    return {key: value for key, value in taken.items() if value is not inspect.Parameter.empty}


def fit(name: str, sequences: Ragged, n_items: int, **settings):
    """The baseline of that name, fitted.

    Args:
        name: a key of BASELINES.
        sequences: the items of each training user, oldest first.
        n_items: size of the catalogue.
        settings: named like the flags; those that the baseline's constructor does not have are left aside.

    Returns:
        A recommender: recommend(queries, k, exclude_seen) -> ids int32 (U, k), scores float32 (U, k).

    Raises:
        UserError: an unknown name, or a setting that the baseline refuses.
        ValueError: an item of the sequences is outside 1..n_items.
    """
    if name not in BASELINES:
        raise UserError(f"unknown baseline {name!r}; choose one of {', '.join(BASELINES)}.")
    try:
        baseline = BASELINES[name](**arguments(name, settings))
    except ValueError as error:
        raise UserError(f"{name} cannot be fitted: {error}") from error
    item_ids(sequences.values, n_items)
    return baseline.fit(sequences, n_items)
