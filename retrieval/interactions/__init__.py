"""Interactions: how a token of a user and an item become a score. Each formula is written once.

An interaction is a plain class on array operations. Its methods get those that array libraries spell differently as
`xp` (`Operations` for NumPy, torch and CuPy; `models.interactions` has MindSpore's) and its weights as a dictionary
`w`, so that one formula trains in MindSpore's graph, fills an index on NumPy and does so on a GPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from retrieval.interactions.base import Interaction
from retrieval.interactions.cross_net import CrossNet
from retrieval.interactions.dnn import DNN, DNNProduct
from retrieval.interactions.dot import GMF, Bilinear, Cosine, Dot, DotBeside, Tower
from retrieval.interactions.mol import MoL
from retrieval.interactions.operations import Operations
from retrieval.interactions.self_attention import SelfAttention

__all__ = ["INTERACTIONS", "DotBeside", "Interaction", "Operations", "interaction", "settings_of"]

INTERACTIONS = {
    "dot": Dot,
    "GMF": GMF,
    "cosine": Cosine,
    "tower": Tower,
    "bilinear": Bilinear,
    "DNN": DNN,
    "DNNProduct": DNNProduct,
    "CrossNet": CrossNet,
    "SA": SelfAttention,
    "MoL": MoL,
}


def interaction(name: str, settings: Mapping, faster: Mapping | None = None) -> Interaction:
    """The interaction of this name, with a dot product beside it where interaction_dot says so.

    Args:
        name: a key of INTERACTIONS.
        settings: flags and their values; each class takes those that its constructor names.
        faster: classes that compute the same as those of INTERACTIONS, by the same names; taken in their place.

    Raises:
        ValueError: an unknown name, a flag that is missing, or sizes that don't fit.
    """
    if name not in INTERACTIONS:
        raise ValueError(f"unknown interaction {name!r}; choose one of {', '.join(INTERACTIONS)}")
    kind = (faster or {}).get(name, INTERACTIONS[name])
    formula = kind(**settings_of(name, settings, beside=False))
    return DotBeside(formula) if kind.takes_dot and settings.get("interaction_dot", True) else formula


def settings_of(name: str, settings: Mapping, beside: bool = True) -> dict:
    """Those of the settings that the interaction of this name reads.

    Raises:
        ValueError: one that its constructor needs is missing.
    """
    parameters = inspect.signature(INTERACTIONS[name]).parameters
    missing = [key for key, each in parameters.items() if each.default is each.empty and key not in settings]
    if missing:
        raise ValueError(f"the interaction {name} needs {', '.join(missing)}")
    extra = {"interaction_dot"} if beside and INTERACTIONS[name].takes_dot else set()
    return {key: value for key, value in settings.items() if key in parameters or key in extra}
