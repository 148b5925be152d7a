"""What a run does, step by step: data -> model -> training -> index -> evaluation -> report."""

import contextlib
import dataclasses
import json
import logging
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
from metric import NAMES, evaluate
from models.onnx_export import export_query_side
from retrieval import (
    ArrayIndex,
    IndexRecommender,
    NoGpuError,
    build_array_index,
    build_index,
    gpu_library,
    load_index,
    save_scorer,
)
from training import QUANTISER_BATCHES, Trainer, load_checkpoint

RUNS = Path("runs")
ALL_CODES_AT_MOST = 2**20  # code tuples that --index_codes all may mean
NEEDS = {  # of MindSpore, by device
    "GPU": "the GPU parts of its pip wheel are for CUDA 11.1 and 11.6 with cuDNN 8, and did not load; install those "
    "and an NVIDIA driver, or stay on CPU and let --index_device gpu put the index on a GPU without MindSpore",
    "Ascend": "the Ascend parts of its pip wheel did not load; install an Ascend NPU's driver and CANN toolkit and "
    "source CANN's set_env.sh, or stay on CPU",
}


def run(h, command):
    """Carries out `work.Command` with `work.Hyperparameters`."""
    modes = {"train": train, "test": test, "recommend": recommend, "export": export}
    with mindspore_on(command.device_target):
        index_library(h, command)  # a missing GPU is said before any long work
        modes[command.mode](h, command)


@contextlib.contextmanager
def mindspore_on(target):
    """MindSpore as all of this program uses it: see `set_device`, and nothing is left in the working directory."""
    # MindSpore writes compiler dumps there unless told where else.
    with tempfile.TemporaryDirectory(prefix="sparcode-") as dumps:
        os.environ.setdefault("MS_OM_PATH", dumps)
        set_device(target)
        yield


def set_device(target):
    """Graph mode on the device where MindSpore is to compute: CPU, GPU or Ascend.

    Raises:
        UserError: the MindSpore that is installed cannot use it on this machine.
    """
    logging.disable(logging.ERROR)  # MindSpore logs every library it misses; the sentence below says it once
    try:
        ms.set_context(mode=ms.GRAPH_MODE, device_target=target)
    except RuntimeError as error:
        sentence = f"--device_target {target}: MindSpore {ms.__version__} cannot use it here; {NEEDS[target]}."
        raise UserError(sentence) from error
    finally:
        logging.disable(logging.NOTSET)


def index_library(h, command):
    """The array library that --index_device names: None is NumPy and numba.

    Raises:
        UserError: there is no GPU, no library that sees it, or none that searches such postings.
    """
    if command.index_device == "cpu":
        return None
    if h.index_format != "float32":
        raise UserError(f"--index_device gpu searches float32 postings; leave out --index_format {h.index_format}.")
    try:
        return gpu_library()
    except NoGpuError as error:
        raise UserError(f"--index_device gpu: {error}") from error


def train(h, command):
    """Trains, builds the index, evaluates on the test users and writes runs/<name>/."""
    data = Data(h, command)
    _check_sizes(h, data)
    folder = _run_folder(h, command, data)
    _keep_config(folder, h, data, command.resume)
    model = models.build(h, data.catalogue.n_items)
    trainer = Trainer(
        model,
        models.QuerySide(model, h.inference_batch_size),
        data.training,
        Validation(model, data.valid, h),
        h,
        folder,
    )
    if command.resume:
        trainer.resume()
    print(f"training {h.model}: {sum(p.size for p in model.trainable_params()):,} parameters, results in {folder}/")
    started = time.perf_counter()
    trainer.run()
    best, seconds = trainer.progress, time.perf_counter() - started
    print(f"best epoch {best.best_epoch}: valid {h.monitor} {best.best:.4f}; trained in {seconds:.0f} s")
    report.curves(best.rows, h.monitor, data.prepared.label, folder / "curves.png")
    _test(model, h, data, folder, index_library(h, command))


def test(h, command):
    """Evaluates a checkpoint on the test users; writes runs/<name>-test/ and leaves the run itself as it is."""
    data, trained = Data(h, command), Path(command.checkpoint).parent
    model = load_model(h, data, command.checkpoint)
    folder = RUNS / (command.name or f"{trained.name}-test")
    if (folder / "best.ckpt").exists():
        raise UserError(f"{folder} is a training run; give another --name.")
    folder.mkdir(parents=True, exist_ok=True)
    _keep_config(folder, h, data, resume=False)
    _test(model, h, data, folder, index_library(h, command))


def recommend(h, command):
    """Prints, for some test users, the titles of their history and of the ten items recommended next."""
    data = Data(h, command)
    model = load_model(h, data, command.checkpoint)
    queries = data.test.take(np.arange(min(command.users, len(data.test))))
    recommender = models.Exhaustive(model, h.inference_batch_size)
    if model.has_quantiser:
        library = index_library(h, command)
        recommender = index_recommender(model, h, build(model, h, data, library), library)
    items, scores = recommender.recommend(queries, min(10, data.catalogue.n_items), h.exclude_seen)
    report.recommendations(data.catalogue, queries, items, scores)


def export(h, command):
    """Writes what serves a quantised model without MindSpore, beside its checkpoint and index: the query side as
    query.onnx, and scorer.npz for the codes that the index lacks."""
    checkpoint = Path(command.checkpoint)
    if checkpoint.name != "best.ckpt":
        raise UserError(f"{checkpoint} is not what a run builds its index of; export the best.ckpt beside it.")
    data = Data(h, command)
    path = checkpoint.with_name("query.onnx")
    model = load_model(h, data, checkpoint)
    export_query_side(model, path)
    save_scorer(model.scorer(), path.with_name("scorer.npz"))
    print(f"wrote {path}, {path.stat().st_size:,} bytes: history int64 (B, {h.seq_len}) -> codes int64 (B, {h.K_u})")
    print("the ten best items after a history of items 1, 2, 3, without MindSpore:")
    print("    pip install onnxruntime")
    print(f"    python examples/serve.py {path.parent} 1 2 3 --items {data.prepared.folder / 'items.csv'}")


class Data:
    """The prepared dataset, loaded.

    Attributes: prepared, catalogue, training, valid and test (`Queries`).
    """

    def __init__(self, h, command):
        self.prepared = prepare(
            h.dataset,
            command.source,
            split=h.split,
            seed=h.split_seed,
            item_file=command.item_file,
            sort_rows=command.sort_rows,
        )
        folder = self.prepared.folder
        self.catalogue = load_catalogue(folder)
        n_items = self.catalogue.n_items
        self.training = load_training(folder / "data.csv", n_items)
        self.valid = load_queries(folder / "valid.csv", n_items)
        self.test = load_queries(folder / "test.csv", n_items)
        if max(h.topk) > n_items:
            raise UserError(f"--topk {max(h.topk)} is more than there are items, {n_items}.")
        report.data(self.prepared, self.catalogue, self.valid, self.test)


class Validation:
    """Called after each epoch: the metrics of the model as it is, on the validation users, by exhaustive scoring."""

    def __init__(self, model, queries, h):
        self.recommender = models.Exhaustive(model, h.inference_batch_size)
        self.queries, self.h = queries, h

    def __call__(self):
        return evaluate(self.recommender, self.queries, self.h.topk, self.h.exclude_seen).mean()


def build(model, h, data, library=None):
    """The inverted index of a quantised model over the codes of one epoch of training histories, or all code tuples.

    It is made on the array library's device if one is given.

    Raises:
        UserError: max_bytes are too few for one posting per code.
    """
    rng = np.random.default_rng([h.seed, h.epoch])
    histories = data.training.histories(rng, h.positions_per_user)
    codes, uses = np.unique(models.QuerySide(model, h.inference_batch_size).codes(histories), return_counts=True)
    codes = codes[np.argsort(-uses, kind="stable")]  # the warmest first
    if h.index_codes == "all":
        codes = np.append(codes, np.setdiff1d(np.arange(h.K_c**h.num_codebooks), codes))
    codes = codes[: h.max_codes]
    options = {"relu": h.score_bias is not None, "max_postings": h.max_postings, "keep_share": h.keep_share}
    if library is None:
        index = build_index(model.scorer(), codes, data.catalogue.n_items, **options)
    else:
        print(f"index by {library}")
        index = build_array_index(model.scorer().on(library), codes, **options)
    if h.max_bytes is not None:
        try:
            index = index.prune(max_bytes=h.max_bytes, format=h.index_format)
        except ValueError as error:
            raise UserError(f"--max_bytes: {error}") from error
    return index if h.index_format == "float32" else index.compact(h.index_format)


def index_recommender(model, h, index, library=None):
    """The index as a recommender for histories; a code that it lacks is scored when it is asked for.

    It answers on the array library's device if one is given.
    """
    query_side, scorer = models.QuerySide(model, h.inference_batch_size), model.scorer()
    if library is not None:
        index, scorer = ArrayIndex.of(index, library), scorer.on(library)
    return IndexRecommender(index, lambda queries: query_side.codes(queries.histories), scorer)


def _test(model, h, data, folder, library):
    """The result tables: exhaustive scoring of the test users and, for a quantised model, the index as it was saved."""
    exhaustive = models.Exhaustive(model, h.inference_batch_size)
    results = {"exhaustive": evaluate(exhaustive, data.test, h.topk, h.exclude_seen)}
    if model.has_quantiser:
        started = time.perf_counter()
        index = build(model, h, data, library)
        seconds = time.perf_counter() - started
        index.save(folder / "index")
        stored = load_index(folder / "index")
        recommender = index_recommender(model, h, stored, library)
        results["index"] = evaluate(recommender, data.test, h.topk, h.exclude_seen)
        valid = [
            evaluate(each, data.valid, h.topk, h.exclude_seen)
            for each in (index_recommender(model, h, stored, library), exhaustive)
        ]
        about = index.statistics() | {"data": data.prepared.label, "build_seconds": seconds}
        report.index(about, recommender, data.test, max(h.topk), h.exclude_seen, folder)
        report.codebooks(model, recommender, data, folder)
    report.results(results, data.prepared, h, folder)
    if model.has_quantiser:
        report.cost("test", results["index"], results["exhaustive"])
        report.cost("validation", *valid)


def _check_sizes(h, data):
    """What the data must be large enough for, said before training and not after."""
    if h.monitor not in (monitors := [f"{name}@{k}" for name in NAMES for k in h.topk]):
        raise UserError(f"--monitor is {h.monitor!r}; choose one of {', '.join(monitors)}.")
    if h.model != "DQMatch":
        return
    if h.index_codes == "all" and h.K_c**h.num_codebooks > ALL_CODES_AT_MOST:
        raise UserError(f"--index_codes all means {h.K_c}^{h.num_codebooks} codes, too many; choose used.")
    steps = min(data.training.steps(h.batch_size, h.positions_per_user), QUANTISER_BATCHES)
    if steps * h.batch_size * h.K_u < h.K_c:
        raise UserError(f"--K_c {h.K_c} is more than the tokens of the training histories; lower K_c.")


def _run_folder(h, command, data):
    """Where a training run goes. Nothing is written over: without a --name, the next free one is taken."""
    name = command.name or f"{h.model}-{h.encoder}-{data.prepared.dataset}-seed{h.seed}"
    folder = RUNS / name
    if command.resume:
        return folder
    if folder.exists() and command.name:
        raise UserError(f"{folder} exists; continue it with --resume 1, give another --name, or delete it.")
    number = 2
    while folder.exists():
        folder, number = RUNS / f"{name}-{number}", number + 1
    folder.mkdir(parents=True)
    return folder


def _keep_config(folder, h, data, resume):
    """Writes config.json; a run that goes on must have the settings and the data it began with."""
    path = folder / "config.json"
    config = {"hyperparameters": dataclasses.asdict(h), "data": data.prepared.description}
    if resume:
        if not path.exists():
            raise UserError(f"there is no run {folder} to resume; leave out --resume, or name the run.")
        before = json.loads(path.read_text())
        now = json.loads(json.dumps(config["hyperparameters"]))
        changed = [name for name, value in now.items() if before["hyperparameters"].get(name) != value]
        if changed or before["data"] != config["data"]:
            what = ", ".join(changed) or "data"
            raise UserError(f"{folder} was begun with other {what}; use the same, or another --name.")
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(config, indent=2) + "\n")
    os.replace(fresh, path)


def load_model(h, data, checkpoint):
    """The model of a checkpoint, on the data it was trained for."""
    stored = json.loads((Path(checkpoint).parent / "config.json").read_text())["data"]
    if stored != data.prepared.description:
        raise UserError(
            f"{checkpoint} was trained on {stored.get('source')}, and this is {data.prepared.label} or another "
            "version of it; name the same --source."
        )
    model = models.build(h, data.catalogue.n_items)
    load_checkpoint(checkpoint, list(model.get_parameters()))
    if model.has_quantiser and not model.is_quantised:
        raise UserError(f"{checkpoint} is from before the quantiser started; train past --pretrain_epoch.")
    return model
