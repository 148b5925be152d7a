"""The models, and the one place that builds them."""

import mindspore as ms
import numpy as np

from errors import UserError
from models.AllToAll import AllToAll
from models.DQMatch import DQMatch
from models.encoders import ENCODERS
from models.exhaustive import Exhaustive
from models.query_side import QuerySide
from models.TwoTower import TwoTower
from models.vq import QUANTISERS
from retrieval.interactions import INTERACTIONS

__all__ = ["MODELS", "AllToAll", "DQMatch", "Exhaustive", "QuerySide", "TwoTower", "build"]

MODELS = {"TwoTower": TwoTower, "AllToAll": AllToAll, "DQMatch": DQMatch}


def build(hyperparameters, n_items):
    """The model that the hyper-parameters name.

    Args:
        hyperparameters: `work.Hyperparameters`.
        n_items: size of the catalogue.

    Raises:
        UserError: an unknown model, encoder or interaction, or sizes that don't fit together.
    """
    h = hyperparameters
    for kind, name, known in (
        ("model", h.model, MODELS),
        ("encoder", h.encoder, ENCODERS),
        ("interaction", h.interaction, INTERACTIONS),
        ("quantiser", h.quantiser, QUANTISERS),
    ):
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}; choose one of {', '.join(known)}.")
    settings = {
        "n_items": n_items,
        "embedding_size": h.embedding_size,
        "embedding_std": h.embedding_std,
        "encoder": h.encoder,
        "hidden": h.hidden,
        "dropout": h.dropout,
        "history_dropout": h.history_dropout,
        "l2": h.l2,
        "seq_len": h.seq_len,
        "rng": np.random.default_rng(h.seed),
    }
    if h.model != "TwoTower":
        settings |= {
            "k_u": h.K_u,
            "k_i": h.K_i,
            "token_size": h.token_embedding_size,
            "interaction": h.interaction,
            "interaction_hidden": h.interaction_hidden,
            "interaction_dot": h.interaction_dot,
            "score_bias": h.score_bias,
        }
    if h.model == "DQMatch":
        settings |= {
            "quantiser": h.quantiser,
            "num_codebooks": h.num_codebooks,
            "codewords": h.K_c,
            "ema_decay": h.ema_decay,
            "restart_below": h.restart_below,
            "beta": h.beta,
        }
    ms.set_seed(h.seed)  # MindSpore's own initialisers
    try:
        return MODELS[h.model](**settings)
    except ValueError as error:
        raise UserError(f"{h.model} cannot be built: {error}") from error
