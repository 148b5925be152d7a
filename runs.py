"""Runs: the folder of a run, what ties its files together, and a finished run opened in one call."""

import dataclasses
import fcntl
import functools
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np

import models
from baselines import BASELINES
from data.prepare import prepare
from errors import UserError
from files import content_digest, fresh, sweep
from load_csv_dataset import load_catalogue, load_features, load_queries, load_training
from matcher import Matcher
from metric import Metrics, file_of
from retrieval import load_index
from retrieval.served import EXPORTED, INDEX, MANIFEST, read_manifest, write_manifest
from training import FIRST_PHASE, load_checkpoint
from wide import WideTable
from work import Hyperparameters, check

RUNS = Path("runs")
WIDE = "wide.npz"
BEST, LAST = "best.ckpt", "last.ckpt"
TRAINED = BEST, WIDE, INDEX  # files of a run that belong together, beside those EXPORTED
RESULTS = ("per_user_*.npz", "metrics.csv", "*index.json", "codebooks.json", WIDE, *EXPORTED, MANIFEST)  # beside index/
VERSION = 7  # of config.json
FIRST_PHASE_READS = ("model", "training", "data")  # groups of settings
FREE = ("index", "evaluation")  # groups of settings that a trained model does not depend on
MEANT = {  # what an older version meant by saying nothing, and what a newer one no longer says
    1: {
        "encoder_shortcut": True,
        "tokeniser": None,
        "interaction_dot": True,
        "error_feedback": True,
        "loss": "softmax",
        "lr_decay": True,
        "att_layer": 2,
        "num_heads": 1,
        "interaction_layers": 2,
        "interaction_components": 4,
        "interaction_temperature": 0.05,
        "wide": False,
        "wide_lookups": 20,
        "wide_postings": 400,
        "index_loss": None,
        "user_features": [],
        "item_features": [],
    },
    2: {"token_lookups": 1},
    3: {"negatives": "popular", "ccl_weight": 10.0, "ccl_margin": 0.9, "gbce_t": 0.75},
    4: {"rotation": False},
    5: {"rerank": 0},
    6: {"next_items": 1},
}


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


class RunFolder:
    """A folder runs/NAME that one process at a time trains in.

    A folder without a checkpoint holds nothing that could be resumed: whoever claims it starts anew in it. What a
    process that was killed in it left half written is cleaned away.

    Attributes:
        path: the folder. begun: whether it holds a run to go on with. has_results: whether it tells of one that ended.
    """

    def __init__(self, path, lock):
        self.path, self._lock = path, lock
        self.begun = any((path / name).exists() for name in (BEST, LAST))
        self.has_results = (path / "metrics.csv").exists()
        sweep(path)

    @classmethod
    def hold(cls, path):
        """The folder, locked until the `with` block is left or the process ends; None if another process holds it."""
        lock = open(path / ".lock", "w")  # noqa: SIM115 (held as long as the folder is)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError:
            lock.close()
            return None
        return cls(path, lock)

    @classmethod
    def claim(cls, name, named, resume, asked=None):
        """The folder to train in, locked until the `with` block is left or the process ends.

        Args:
            name: of the folder. named: whether a user chose it; if not, the next free one is taken.
            resume: whether to go on with the run in it; where no user chose the name, with the latest that has not
                ended of all that would have it.
            asked: settings and data of what comes. A baseline or a test under a chosen name may be repeated; one of
                other settings or data is kept. None: it may go.

        Raises:
            UserError: there is nothing to resume, the name is taken, or another process trains there.
        """
        path, number = RUNS / name, 2
        if resume and not named:
            path = _latest(path)
        if resume and not path.is_dir():
            raise UserError(f"there is no run {path} to resume; leave out --resume, or name the run.")
        while True:
            path.mkdir(parents=True, exist_ok=True)
            folder = cls.hold(path)
            ended = folder is not None and folder.has_results and not folder.begun
            others = ended and named and asked is not None and bool(folder.changed(*asked))
            taken = folder is not None and (folder.begun or others or (ended and not named))
            if folder is not None and (not others if resume else not taken):
                if not folder.begun:
                    folder.clear()
                return folder
            if folder is not None:
                folder.release()
            if named or resume:
                what = "exists" if folder else "is being trained by another process"
                raise UserError(f"{path} {what}; give another --name. A stopped training goes on with --resume 1.")
            path, number = RUNS / f"{name}-{number}", number + 1

    def clear(self):
        """Takes away the results of what stood here before: a baseline, or a test."""
        shutil.rmtree(self.path / "index", ignore_errors=True)
        for pattern in RESULTS:
            for old in self.path.glob(pattern):
                old.unlink()

    def release(self):
        """Let others train here."""
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.release()

    def require_same(self, h, data):
        """Refuses to go on under other settings or on other data than the run was begun with.

        Raises:
            UserError: with the names of the settings that differ.
        """
        if changed := self.changed(h, data):
            what = ", ".join(changed)
            raise UserError(f"{self.path} was begun with other {what}; use the same, or another --name.")

    def changed(self, h, data):
        """What differs from the run that stands here: "data", which many settings follow, or settings by name."""
        before = read_config(self.path / "config.json")
        if not _same_data(before["data"], data.prepared.description):
            return ["data"]
        now = json.loads(json.dumps(dataclasses.asdict(h)))
        return [name for name, value in now.items() if before["hyperparameters"].get(name) != value]


def _latest(path):
    """Of a folder of RUNS and those that are numbered after it, NAME-2 and on, the last with a run that has not ended;
    if all have, the last with one."""
    usual = re.compile(re.escape(path.name) + "(?:-([0-9]+))?")
    numbered = [(int(name[1] or 1), other) for other in RUNS.glob("*") if (name := usual.fullmatch(other.name))]
    begun = [other for _, other in sorted(numbered) if any((other / name).exists() for name in (BEST, LAST))]
    running = [other for other in begun if not (other / "metrics.csv").exists()]
    return (running or begun or [path])[-1]


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
    if not _same_data(read_config(Path(folder) / "config.json")["data"], data.prepared.description):
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


def settings_of(checkpoint, h, given):
    """Hyper-parameters a checkpoint was trained with; only flags about index and evaluation are taken from this call.

    Args:
        checkpoint: a file in the folder of the run; of a baseline, which is fitted anew, its config.json.
        h: `work.Hyperparameters` of this call. given: names of those that were given.

    Raises:
        UserError: another flag was given, config.json is missing, unreadable or of a later version, or there can be no
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
    """The contents of a config.json, brought up to this version.

    Raises:
        UserError: it is missing, unreadable, changed since it was written, or of a later version.
    """
    path = Path(path)
    try:
        config = json.loads(path.read_text())
        version, settings = config.get("version", 1), config["hyperparameters"]
        if not isinstance(settings, dict) or not isinstance(config["data"], dict):
            raise ValueError("hyperparameters and data must be objects")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); it must stand beside the checkpoint.") from error
    if not isinstance(version, int) or version not in range(1, VERSION + 1):
        raise UserError(f"{path} is of version {version}, this program knows {VERSION}; use the program that wrote it.")
    checksum = config.pop("sha256", None)
    if (version, checksum) != (1, None) and checksum != content_digest(config):
        raise UserError(f"{path} was changed after the run; put the original back, or train anew.")
    for older in range(version, VERSION):
        settings = MEANT[older] | settings
    if version == 1 and settings.get("interaction_hidden") == []:
        settings["interaction"] = "bilinear"  # which version 1 called a DNN without a hidden layer
    if version < 3 and settings.get("tokeniser") is None and settings.get("model") != "TwoTower":
        settings["tokeniser"] = "segments"  # which other models had for their own
    config["hyperparameters"] = settings
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


def _same_data(one, other):
    """Whether two descriptions are of the same data to a model, whichever version prepared them; one that is empty, as
    older versions had it of files as found, tells nothing."""
    keys = {"dataset", "split", "seed", "sha256"} | ({"users_sha256"} & set(one) & set(other))
    return not one or all(one.get(key) == other.get(key) for key in keys)


def require_same_data(checkpoint, data):
    """Refuses other data than a checkpoint, or the config.json of a baseline, is of.

    Raises:
        UserError: with both.
    """
    stored = read_config(Path(checkpoint).parent / "config.json")["data"]
    if not _same_data(stored, data.prepared.description):
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


def tie(folder, matcher, names, rerank=0):
    """Writes the manifest of those of the named files that the folder of a run holds by now; see `write_manifest`."""
    times = matcher.model.quantiser.times if matcher.model.has_quantiser else 1
    there = [name for name in names if (Path(folder) / name).exists()]
    write_manifest(folder, there, matcher.item_keys, rerank, times)
