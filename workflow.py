"""What a run does, step by step: data -> model -> training -> index -> evaluation -> report."""

import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import mindspore as ms
import numpy as np

import models
import report
from data.prepare import prepare
from errors import UserError
from load_csv_dataset import load_catalogue, load_queries, load_training
from metric import evaluate
from retrieval import IndexRecommender, build_index
from training import Trainer, load_checkpoint

RUNS = Path("runs")
ALL_CODES_AT_MOST = 2**20  # code tuples that --index_codes all may mean


def run(h, command, given):
    """Carries out `work.Command` with `work.Hyperparameters`; `given` names the flags that were set by hand."""
    modes = {"train": train, "test": test, "recommend": recommend}
    if command.mode not in modes:
        raise UserError(f"--mode is {command.mode!r}; choose one of {', '.join(modes)}.")
    # MindSpore writes compiler dumps into the working directory unless told where else.
    os.environ.setdefault("MS_OM_PATH", tempfile.mkdtemp(prefix="sparcode-"))
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    modes[command.mode](h, command, given)


def train(h, command, given):
    """Trains, builds the index, evaluates on the test users and writes runs/<name>/."""
    started = time.perf_counter()
    data = Data(h, command)
    folder = RUNS / (command.name or f"{h.model}-{h.encoder}-{data.prepared.dataset}-seed{h.seed}")
    folder.mkdir(parents=True, exist_ok=True)
    _keep_config(folder, h, data, command.resume)
    model = models.build(h, data.catalogue.n_items)
    trainer = Trainer(
        model, models.QuerySide(model, h.inference_batch_size), data.training,
        Validation(model, data.valid, h), h, folder,
    )
    if command.resume:
        trainer.resume()
    print(f"training {h.model}: {sum(p.size for p in model.trainable_params()):,} parameters, results in {folder}/")
    trainer.run()
    best = trainer.progress
    seconds = time.perf_counter() - started
    print(f"best epoch {best.best_epoch}: valid {h.monitor} {best.best:.4f}; trained in {seconds:.0f} s")
    report.curves(best.rows, h.monitor, folder / "curves.png")
    _test(model, h, data, folder)


def test(h, command, given):
    """Evaluates a checkpoint on the test users."""
    h, folder = _stored(h, command, given)
    data = Data(h, command)
    _test(_load_model(h, data, command.checkpoint), h, data, folder)


def recommend(h, command, given):
    """Prints, for some test users, the titles of their history and of the ten items recommended next."""
    h, _ = _stored(h, command, given)
    data = Data(h, command)
    model = _load_model(h, data, command.checkpoint)
    queries = data.test.take(np.arange(min(command.users, len(data.test))))
    if model.is_quantised:
        recommender = build_recommender(model, h, data)
    else:
        recommender = models.Exhaustive(model, h.inference_batch_size)
    items, scores = recommender.recommend(queries, 10, h.exclude_seen)
    report.recommendations(data.catalogue, queries, items, scores)


class Data:
    """The prepared dataset, loaded.

    Attributes: prepared, catalogue, training, valid and test (`Queries`).
    """

    def __init__(self, h, command):
        self.prepared = prepare(
            h.dataset, command.source, split=h.split, seed=h.split_seed, item_file=command.item_file
        )
        folder = self.prepared.folder
        self.catalogue = load_catalogue(folder)
        n_items = self.catalogue.n_items
        self.training = load_training(folder / "data.csv", n_items)
        self.valid = load_queries(folder / "valid.csv", n_items)
        self.test = load_queries(folder / "test.csv", n_items)
        report.data(self.prepared, self.catalogue, self.valid, self.test)


class Validation:
    """Called after each epoch: the metrics of the model as it is, on the validation users, by exhaustive scoring."""

    def __init__(self, model, queries, h):
        self.recommender = models.Exhaustive(model, h.inference_batch_size)
        self.queries, self.h = queries, h

    def __call__(self):
        return evaluate(self.recommender, self.queries, self.h.topk, self.h.exclude_seen).mean()


def build_recommender(model, h, data):
    """The inverted index of a quantised model, as a recommender.

    Codes: those of one epoch of training histories, or all code tuples. A query code that is not among them is scored
    when it is asked for.
    """
    query_side = models.QuerySide(model, h.inference_batch_size)
    if h.index_codes == "all":
        n_codes = h.K_c**h.num_codebooks
        if n_codes > ALL_CODES_AT_MOST:
            raise UserError(f"--index_codes all means {n_codes:,} codes; lower K_c or num_codebooks, or choose used.")
        codes = np.arange(n_codes)
    else:
        rng = np.random.default_rng([h.seed, h.epoch])
        codes = np.unique(query_side.codes(data.training.histories(rng, h.positions_per_user)))
    scorer = model.scorer()
    index = build_index(
        scorer, codes, data.catalogue.n_items, relu=h.score_bias is not None,
        max_postings=h.max_postings, keep_share=h.keep_share,
    )
    return IndexRecommender(index, lambda queries: query_side.codes(queries.histories), scorer)


def _test(model, h, data, folder):
    """The result tables: exhaustive scoring of the test users and, for a quantised model, the index."""
    exhaustive = models.Exhaustive(model, h.inference_batch_size)
    results = {"exhaustive": evaluate(exhaustive, data.test, h.topk, h.exclude_seen)}
    if model.is_quantised:
        started = time.perf_counter()
        recommender = build_recommender(model, h, data)
        seconds = time.perf_counter() - started
        recommender.index.save(folder / "index")
        built = recommender.index.statistics() | {"build_seconds": seconds}
        results["index"] = evaluate(recommender, data.test, h.topk, h.exclude_seen)
        report.index(built, recommender, data.test, max(h.topk), h.exclude_seen, folder)
        report.codebooks(model, recommender, data.test, folder)
    report.results(results, data.prepared, h, folder)


def _keep_config(folder, h, data, resume):
    """Writes config.json; a run that goes on must have the settings it began with."""
    config = {"hyperparameters": dataclasses.asdict(h), "data": data.prepared.description}
    path = folder / "config.json"
    if resume and path.exists():
        before = json.loads(path.read_text())
        now = json.loads(json.dumps(config["hyperparameters"]))
        changed = [k for k, v in now.items() if before["hyperparameters"].get(k) != v]
        if changed or before["data"].get("sha256") != config["data"].get("sha256"):
            what = ", ".join(changed) or "data"
            raise UserError(f"{folder} was begun with other {what}; use the same, or another --name.")
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(fresh, path)


def _stored(h, command, given):
    """Hyper-parameters of the checkpoint, with the flags that concern index and evaluation taken from this call."""
    from work import Hyperparameters, check, load_config

    if command.checkpoint is None:
        raise UserError(f"--mode {command.mode} needs --checkpoint, for example runs/NAME/best.ckpt.")
    groups = {f.name: f.metadata["group"] for f in dataclasses.fields(Hyperparameters)}
    fixed = [name for name in given if groups[name] not in ("index", "evaluation", "data")]
    if fixed:
        raise UserError(f"--{fixed[0]} cannot change a trained model; leave it out, its value is in config.json.")
    stored = load_config(command.checkpoint)
    return check(dataclasses.replace(stored, **{k: getattr(h, k) for k in given})), Path(command.checkpoint).parent


def _load_model(h, data, checkpoint):
    model = models.build(h, data.catalogue.n_items)
    load_checkpoint(checkpoint, list(model.get_parameters()))
    return model
