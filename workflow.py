"""What a run does, step by step: data -> model -> training -> index -> evaluation -> report."""

import contextlib
import logging
import os
import tempfile
import time
from pathlib import Path

import mindspore as ms
import numpy as np

import models
import report
from errors import UserError
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
from runs import RUNS, Data, RunFolder, load_model, write_config
from training import QUANTISER_BATCHES, Trainer

ALL_CODES_AT_MOST = 2**20  # code tuples that --index_codes all may mean
NEEDS = {  # of MindSpore, by device
    "GPU": "the GPU parts of its pip wheel are for CUDA 11.1 and 11.6 with cuDNN 8, and did not load; install those "
    "and an NVIDIA driver, or stay on CPU and let --index_device gpu put the index on a GPU without MindSpore",
    "Ascend": "the Ascend parts of its pip wheel did not load; install an Ascend NPU's driver and CANN toolkit and "
    "source CANN's set_env.sh, or stay on CPU",
}


def run(h, command, given=()):
    """Carries out `work.Command` with `work.Hyperparameters`; given: names of those that were given as flags."""
    modes = {"train": train, "test": test, "recommend": recommend, "export": export}
    with mindspore_on(command.device_target):
        index_library(h, command)  # a missing GPU is said before any long work
        data = Data(h, command.source, command.item_file, command.sort_rows)
        report.data(data.prepared, data.catalogue, data.valid, data.test)
        modes[command.mode](h, command, data, given)


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


def train(h, command, data, given):
    """Trains, builds the index, evaluates on the test users and writes runs/<name>/."""
    _check_sizes(h, data)
    model = models.build(h, data.catalogue)
    name = command.name or f"{h.model}-{h.encoder}-{data.prepared.dataset}-seed{h.seed}"
    with RunFolder.claim(name, command.name is not None, command.resume) as folder:
        trainer = Trainer(
            model,
            models.QuerySide(model, h.inference_batch_size),
            data.training,
            Validation(model, data.valid, h),
            h,
            folder.path,
        )
        if folder.begun:
            folder.require_same(h, data)
            trainer.resume()
        else:
            write_config(folder.path, h, data, command.preset, given)
        size = sum(p.size for p in model.trainable_params())
        print(f"training {h.model}: {size:,} parameters, results in {folder.path}/")
        started = time.perf_counter()
        trainer.run()
        best, seconds = trainer.progress, time.perf_counter() - started
        print(f"best epoch {best.best_epoch}: valid {h.monitor} {best.best:.4f}; trained in {seconds:.0f} s")
        report.curves(best.rows, h.monitor, data.prepared.label, folder.path / "curves.png")
        _test(model, h, data, folder.path, index_library(h, command))


def test(h, command, data, given):
    """Evaluates a checkpoint on the test users; writes runs/<name>-test/ and leaves the run itself as it is."""
    model = load_model(h, data, command.checkpoint)
    folder = RUNS / (command.name or f"{Path(command.checkpoint).parent.name}-test")
    if (folder / "last.ckpt").exists():
        raise UserError(f"{folder} is a training run; give another --name.")
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, h, data, command.preset, given)
    _test(model, h, data, folder, index_library(h, command))


def recommend(h, command, data, given):
    """Prints, for some test users, the titles of their history and of the ten items recommended next."""
    model = load_model(h, data, command.checkpoint)
    queries = data.test.take(np.arange(min(command.users, len(data.test))))
    recommender = models.Exhaustive(model, h.inference_batch_size)
    if model.has_quantiser:
        library = index_library(h, command)
        recommender = index_recommender(model, h, build(model, h, data, library), library)
    items, scores = recommender.recommend(queries, min(10, data.catalogue.n_items), h.exclude_seen)
    report.recommendations(data.catalogue, queries, items, scores)


def export(h, command, data, given):
    """Writes what serves a quantised model without MindSpore, beside its checkpoint and index: the query side as
    query.onnx, and scorer.npz for the codes that the index lacks."""
    checkpoint = Path(command.checkpoint)
    if checkpoint.name != "best.ckpt":
        raise UserError(f"{checkpoint} is not what a run builds its index of; export the best.ckpt beside it.")
    path = checkpoint.with_name("query.onnx")
    model = load_model(h, data, checkpoint)
    export_query_side(model, path)
    save_scorer(model.scorer(), path.with_name("scorer.npz"))
    print(
        f"wrote {path}, {path.stat().st_size:,} bytes: history int64 (B, {h.seq_len}) -> codes int64 (B, {model.K_u})"
    )
    print("the ten best items after a history of items 1, 2, 3, without MindSpore:")
    print("    pip install onnxruntime")
    print(f"    python examples/serve.py {path.parent} 1 2 3 --items {data.prepared.folder / 'items.csv'}")


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
    if not models.MODELS[h.model].has_quantiser:
        return
    if h.index_codes == "all" and h.K_c**h.num_codebooks > ALL_CODES_AT_MOST:
        raise UserError(f"--index_codes all means {h.K_c}^{h.num_codebooks} codes, too many; choose used.")
    steps = min(data.training.steps(h.batch_size, h.positions_per_user), QUANTISER_BATCHES)
    if steps * h.batch_size * h.K_u < h.K_c:
        raise UserError(f"--K_c {h.K_c} is more than the tokens of the training histories; lower K_c.")
