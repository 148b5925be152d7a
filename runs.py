"""A finished run, opened in one call: its settings, data, model, index and metrics."""

import dataclasses
import functools
import zipfile
from pathlib import Path

import numpy as np

import models
from baselines import BASELINES
from config import BEST, read_config, same_data, settings_of
from data.prepare import prepare
from errors import UserError
from load_csv_dataset import load_catalogue, load_features, load_queries, load_training
from matcher import Matcher
from metric import Metrics, file_of
from retrieval import load_index
from retrieval.served import INDEX, MANIFEST, read_manifest
from runfolder import LAST, WIDE
from training import FIRST_PHASE, load_checkpoint
from wide import WideTable
from work import Hyperparameters

FIRST_PHASE_READS = ("model", "training", "data")  # groups of settings


class Data:
    """A prepared dataset, loaded.

    Args:
        settings: `work.Hyperparameters`.
        source, item_file, user_file, sort_rows: see `data.prepare.prepare`.

    Attributes:
        prepared: `data.prepare.Prepared`.
        catalogue, features, training: see `load_csv_dataset`.
        valid, test: `Queries`.

    Raises:
        UserError: the data can't be had or read.
    """

    def __init__(self, settings, source=None, item_file=None, user_file=None, sort_rows=False):
        self.prepared = prepare(
            settings.dataset,
            source,
            split=settings.split,
            seed=settings.split_seed,
            item_file=item_file,
            user_file=user_file,
            sort_rows=sort_rows,
        )
        folder = self.prepared.folder
        self.catalogue = load_catalogue(folder)
        self.features = load_features(folder, settings.user_features, settings.item_features)
        n_items = self.catalogue.n_items
        self.training = load_training(folder / "data.csv", n_items, self.features)
        self.valid = load_queries(folder / "valid.csv", n_items, self.features)
        self.test = load_queries(folder / "test.csv", n_items, self.features)


def cut_offs(h, n_items, given):
    """The settings with cut-offs of the metrics that there are items for: of the default ones those up to n_items.

    Raises:
        UserError: more was given.
    """
    if max(h.topk) <= n_items:
        return h
    if "topk" in given:
        raise UserError(f"--topk {max(h.topk)} is more than there are items, {n_items}; leave it out, or give fewer.")
    return dataclasses.replace(h, topk=tuple(k for k in h.topk if k <= n_items))


class Run:
    """A finished training run: its settings, data, model, index and metrics.

    Args:
        folder: runs/NAME.
        source: where its dataset comes from, if it did not come from SPARCODE_DATA or a download.
        data: `Data` of another run on the same data; loaded where there is none.
        changes: settings of index and evaluation to use in place of those of the run.

    Attributes:
        folder, settings (`work.Hyperparameters`), data (`Data`), matcher (`matcher.Matcher` of its best epoch), and the
        matcher's model and query_side.

    Raises:
        UserError: the folder holds no run that can be read, or the data are not those it was trained on.
    """

    def __init__(self, folder, source=None, data=None, **changes):
        self.folder = Path(folder)
        checkpoint = self.folder / BEST
        self.settings = settings_of(checkpoint, Hyperparameters(**changes), set(changes))
        self.data = data or Data(self.settings, source)
        self.settings = cut_offs(self.settings, self.data.catalogue.n_items, changes)
        self.matcher = load_matcher(self.settings, self.data, checkpoint)
        self.model, self.query_side = self.matcher.model, self.matcher.query_side

    @functools.cached_property
    def index(self):
        """The index that the run saved, memory-mapped; see `saved_index`."""
        return saved_index(self.folder)

    def exhaustive(self):
        """A recommender that scores every item."""
        return self.matcher.exhaustive()

    def recommender(self):
        """A recommender through the index of a model that has one, else `exhaustive`."""
        return self.matcher.through(self.index) if self.model.has_quantiser else self.exhaustive()

    def metrics(self, path=None):
        """`metric.Metrics` of the test users as the run saved them: by path "index" or "exhaustive"."""
        return saved_metrics(self.folder, path)


def first_phase(h):
    """What the first phase of training, which no quantiser takes part in, depends on beside the data: settings by name.

    Args:
        h: `work.Hyperparameters` of a model, not of a baseline.
    """
    read = {f.name: getattr(h, f.name) for f in dataclasses.fields(h) if f.metadata["group"] in FIRST_PHASE_READS}
    read |= {"tokeniser": models.tokeniser_of(h), "exclude_seen": h.exclude_seen}
    read |= models.MODELS[h.model].prescribes(models.PARTS["interaction"][h.interaction])
    return {name: value for name, value in read.items() if name != "model"}


def require_same_first_phase(folder, h, data):
    """Refuses to take over the model of a run whose first phase was another.

    Raises:
        UserError: with the names of the settings that differ; or the run cannot be read.
    """
    before = settings_of(Path(folder) / LAST, h, set())
    if fitted := {h.model, before.model} - set(models.MODELS):
        raise UserError(f"--trained {folder}: {' and '.join(fitted)} is fitted, not trained; leave the flag out.")
    if not (Path(folder) / FIRST_PHASE).is_file():
        raise UserError(f"--trained {folder}: it holds no {FIRST_PHASE}; train it to the end of its first phase.")
    there, here = first_phase(before), first_phase(h)
    differ = [name for name in here if here[name] != there[name]]
    if not same_data(read_config(Path(folder) / "config.json")["data"], data.prepared.description):
        differ = ["data"]
    if differ:
        raise UserError(f"{folder} was trained with other {', '.join(differ)}; use the same, or train anew.")


def saved_index(folder):
    """The index in the folder of a run, memory-mapped.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is damaged or of another run.
    """
    read_manifest(folder, [INDEX])
    return load_index(Path(folder) / "index")


def saved_metrics(folder, path=None):
    """`metric.Metrics` of the test users of a finished run.

    Args:
        folder: runs/NAME.
        path: "index", "exhaustive", "deep alone" or "wide alone"; None is the index where there is one.

    Raises:
        UserError: the run has no such metrics, or their file is damaged.
    """
    folder = Path(folder)
    file = folder / file_of(path or ("index" if (folder / "index.json").exists() else "exhaustive"))
    if not file.is_file():
        raise UserError(f"there is no {file}; the run has not ended, or has no such metrics.")
    try:
        with np.load(file) as stored:
            values = dict(stored)
        topk, queries = values.pop("topk"), values.pop("queries", None)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged ({error}); run --mode test for metrics anew.") from error
    return Metrics(tuple(topk.tolist()), values, queries)


def require_same_data(checkpoint, data):
    """Refuses other data than a checkpoint, or the config.json of a baseline, is of.

    Raises:
        UserError: with both.
    """
    stored = read_config(Path(checkpoint).parent / "config.json")["data"]
    if not same_data(stored, data.prepared.description):
        what = f"{checkpoint} is of {stored.get('source') or stored.get('dataset')}"
        raise UserError(f"{what}, and this is {data.prepared.label} or another version of it; name the same data.")


def load_model(h, data, checkpoint):
    """The model of a checkpoint, on the data it was trained for.

    Raises:
        UserError: the data are others, the checkpoint is damaged, or its quantiser has not started.
    """
    require_same_data(checkpoint, data)
    model = models.build(h, data.catalogue, data.features)
    load_checkpoint(checkpoint, list(model.get_parameters()))
    if model.has_quantiser and not model.is_quantised:
        raise UserError(
            f"{checkpoint} is from before the quantiser started; take best.ckpt, or train past --pretrain_epoch."
        )
    return model


def uses_wide(h):
    """Whether a wide table stands beside the model."""
    return models.MODELS[h.model].own_wide if h.wide is None else h.wide


def load_matcher(h, data, checkpoint):
    """The model of a checkpoint and the wide table beside it.

    Raises:
        UserError: as `load_model`, or the files are not those of one finished run.
    """
    if h.model in BASELINES:
        raise UserError(f"{h.model} leaves no checkpoint; --mode train fits and evaluates it anew.")
    checkpoint = Path(checkpoint)
    folder, wide = checkpoint.parent, None
    model = load_model(h, data, checkpoint)
    tied = [BEST] if checkpoint.name == BEST and (folder / MANIFEST).exists() else []
    try:
        if uses_wide(h):
            read_manifest(folder, [*tied, WIDE])
            wide = WideTable.load(folder / WIDE)
        elif tied:
            read_manifest(folder, tied)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    return Matcher(model, wide, h)
