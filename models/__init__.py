"""The models, and the one place that builds them."""

import dataclasses
import inspect
from types import SimpleNamespace

import mindspore as ms
import numpy as np

from data.features import Features, FeatureTable
from errors import UserError
from models.AllToAll import AllToAll
from models.DQMatch import DQMatch
from models.encoders import ENCODERS
from models.exhaustive import Exhaustive
from models.features import UserFeatures
from models.interactions import InteractionCell
from models.items import ItemTable
from models.losses import LOSSES
from models.query_side import QuerySide
from models.tokenisers import TOKENISERS
from models.TwoTower import TwoTower
from models.vq import QUANTISERS
from retrieval.interactions import INTERACTIONS, settings_of

__all__ = [
    "MODELS",
    "PARTS",
    "AllToAll",
    "DQMatch",
    "Exhaustive",
    "QuerySide",
    "TwoTower",
    "build",
    "grown",
    "readable",
    "tokeniser_of",
]

MODELS = {"TwoTower": TwoTower, "AllToAll": AllToAll, "DQMatch": DQMatch}
PARTS = {  # what a constructor may ask for by these names, and a setting of the same name chooses
    "model": MODELS,
    "tokeniser": TOKENISERS,
    "encoder": ENCODERS,
    "interaction": INTERACTIONS,
    "quantiser": QUANTISERS,
    "loss": LOSSES,
}


def build(settings, catalogue, features=None):
    """The model that the settings name.

    A part gets what the arguments of its constructor name: another part, or a setting. So a new part is a class and a
    line in its registry.

    Args:
        settings: `work.Hyperparameters`.
        catalogue: `load_csv_dataset.Catalogue`, or anything with `n_items`.
        features: `load_csv_dataset.Features` that the settings name; None where they name none.

    Returns:
        the model; its `read` holds the names of all settings that it was built of.

    Raises:
        UserError: an unknown part, sizes that don't fit together, or features that are not those of the settings.
    """
    ms.set_seed(settings.seed)  # MindSpore's own initialisers
    try:
        builder = _Builder(settings, catalogue, features or Features())
        model = builder.part("model")
    except ValueError as error:
        raise UserError(f"{settings.model} cannot be built: {error}") from error
    model.read = builder.read
    return model


def readable():
    """Names of the settings that some part reads, and another may not."""
    kinds = [kind for known in PARTS.values() for kind in known.values() if inspect.isclass(kind)]
    return {name for kind in kinds for name in arguments(kind)} | {"interaction_dot"}


class _Builder:
    """Gives constructors what they ask for by name."""

    def __init__(self, settings, catalogue, features):
        self.settings = dataclasses.asdict(settings) | {
            "n_items": catalogue.n_items,
            "rng": np.random.default_rng(settings.seed),
            "item_features": features.item,
            "user_features": features.user,
        }
        self.read = set()
        if (bool(settings.item_features), bool(settings.user_features)) != (bool(features.item), bool(features.user)):
            raise ValueError("its features are not those of the settings; load both with the same names")
        model = self._known("model")
        self._known("encoder")
        self.settings |= {"tokeniser": tokeniser_of(settings)} | model.prescribes(self._known("interaction"))

    def part(self, kind):
        """The part of this kind that the settings name, as an object; a loss may be a function, and stays one."""
        found = self._known(kind)
        if kind == "interaction":  # a formula, whatever computes it
            self.read |= settings_of(self.settings[kind], self.settings).keys()
            return InteractionCell(self.settings[kind], self.settings, self.settings["rng"])
        return self._made(found) if inspect.isclass(found) else found

    def _known(self, kind):
        name, known = self.settings[kind], PARTS[kind]
        if name not in known:
            raise UserError(f"unknown {kind} {name!r}; choose one of {', '.join(known)}.")
        return known[name]

    def _made(self, kind):
        return kind(**{name: self._value(name) for name in arguments(kind)})

    def _value(self, name):
        self.read.add(name)
        if name == "items":
            return self._made(ItemTable)
        if name == "users":
            return self._made(UserFeatures) if self.settings["user_features"] else None
        return self.part(name) if name in PARTS else self.settings[name]


def grown(model, settings, links):
    """The same model with more items, whose vectors are means of those that it has.

    Args:
        model: of `build`. settings: those that it was built of; they name no features of items.
        links: weights of the old items in each new one's mean, scipy.sparse (new, old).
    """
    n_new, n_old = links.shape
    users = None if model.users is None else FeatureTable(np.zeros((1, 1), np.int32), model.users.names)
    more = build(settings, SimpleNamespace(n_items=n_old + n_new), Features(users))
    known = {parameter.name: parameter for parameter in model.get_parameters()}
    for parameter in more.get_parameters():
        values = known[parameter.name].asnumpy()
        if parameter.shape != values.shape:  # one row per item, or one more for padding
            values = np.concatenate([values, links @ values[-n_old:]])
        parameter.set_data(ms.Tensor(values, parameter.dtype))
    return more


def tokeniser_of(settings):
    """The name of the tokeniser that the settings mean: theirs, `whole` for a causal encoder, or the model's own.

    A causal encoder has weighed the age of items itself, and trains on every position where there is one token.
    """
    own = "whole" if ENCODERS[settings.encoder].causal else MODELS[settings.model].own_tokeniser
    return settings.tokeniser or own


def arguments(kind):
    """Names of the arguments of a constructor, those of the base classes that a ** stands for before its own."""
    names = []
    for base in inspect.getmro(kind):
        if "__init__" in vars(base):
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
            names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD] + names
            if all(p.kind is not p.VAR_KEYWORD for p in parameters):
                break
    return names
