"""config.json of a run: the settings it was trained with, where they come from, and the data."""

import dataclasses
import json
from pathlib import Path

from baselines import BASELINES
from errors import UserError
from files import content_digest, fresh
from work import Hyperparameters, check

VERSION = 8  # of config.json
BEST = "best.ckpt"
FREE = ("index", "evaluation")  # groups of settings that a trained model does not depend on


def settings_of(checkpoint, h, given):
    """Hyper-parameters a checkpoint was trained with; only flags about index and evaluation are taken from this call.

    Args:
        checkpoint: a file in the folder of the run; of a baseline, which is fitted anew, its config.json.
        h: `work.Hyperparameters` of this call. given: names of those that were given.

    Raises:
        UserError: another flag was given, config.json is missing, unreadable or of another version, or there can be no
            checkpoint.
    """
    if Path(checkpoint).is_dir():
        names = f"{Path(checkpoint) / BEST}, or a baseline's config.json"
        raise UserError(f"{checkpoint} is a folder; name the checkpoint in it, {names}.")
    fields = {f.name: f for f in dataclasses.fields(Hyperparameters)}
    for name in sorted(given):
        if fields[name].metadata["group"] not in FREE:
            raise UserError(f"--{name} cannot change a trained model; leave it out, its value is in config.json.")
    path = Path(checkpoint).parent / "config.json"
    stored = dict(read_config(path)["hyperparameters"])
    if stored.get("model") in BASELINES and Path(checkpoint).name != path.name:
        what = f"{path.parent} is of {stored['model']}, which leaves no checkpoint"
        raise UserError(f"{what}; give {path} to --mode recommend, which fits it anew.")
    if set(stored) != set(fields):
        unknown = ", ".join(sorted(set(stored) ^ set(fields)))
        raise UserError(f"{path} has other settings than this version: {unknown}; train anew.")
    stored = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    try:
        return check(Hyperparameters(**stored | {name: getattr(h, name) for name in given}))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_config(path):
    """The contents of a config.json.

    Raises:
        UserError: it is missing, unreadable, changed since it was written, or of another version.
    """
    path = Path(path)
    try:
        config = json.loads(path.read_text())
        version = config.get("version", 1)
        if not isinstance(config["hyperparameters"], dict) or not isinstance(config["data"], dict):
            raise ValueError("hyperparameters and data must be objects")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); it must stand beside the checkpoint.") from error
    if version != VERSION:
        what = f"{path} is of version {version}, this program reads {VERSION}"
        raise UserError(f"{what}; use the program that wrote it, or train anew.")
    if config.pop("sha256", None) != content_digest(config):
        raise UserError(f"{path} was changed after the run; put the original back, or train anew.")
    return config


def write_config(folder, h, data, preset="best", given=()):
    """Writes config.json of a run: settings, where they come from, and the data, with a digest of it all.

    Args:
        folder: of the run.
        h: `work.Hyperparameters`. data: `Data`. preset, given: the preset and the names of the flags beside it.
    """
    config = {
        "version": VERSION,
        "preset": preset,
        "flags": sorted(given),
        "hyperparameters": dataclasses.asdict(h),
        "data": data.prepared.description,
    }
    config = json.loads(json.dumps(config))
    with fresh(Path(folder) / "config.json", "w") as file:
        file.write(json.dumps(config | {"sha256": content_digest(config)}, indent=2) + "\n")


def same_data(one, other):
    """Whether two descriptions are of the same data to a model."""
    keys = {"dataset", "split", "seed", "sha256"} | ({"users_sha256"} & set(one) & set(other))
    return all(one.get(key) == other.get(key) for key in keys)
