"""What a run does, step by step: data -> model -> training -> index -> evaluation -> report."""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import shlex
import tempfile
import time
from pathlib import Path

import mindspore as ms
import numpy as np

import baselines
import models
import report
from baselines import BASELINES
from checks import check_sizes, group, refuse_unused, unread, unread_by_split
from config import BEST, write_config
from data.progress import progress
from data.queries import Queries
from data.ragged import Ragged
from defaults import settled, taken
from errors import UserError
from load_csv_dataset import TrainingSequences
from matcher import Matcher
from metric import SURE_USERS, cost, evaluate
from models.onnx_export import export_query_side
from retrieval import NoGpuError, gpu_library, load_index, save_scorer
from retrieval.engines.export import decoded
from retrieval.served import EXPORTED, MANIFEST, RERANKER, SCORER
from runfolder import TRAINED, WIDE, RunFolder, tie
from runs import Data, cut_offs, load_matcher, require_same_data, require_same_first_phase, saved_index, uses_wide
from training import Trainer, silenced
from wide import WideSettings, WideTable, blend, choose

# Of validation user and item, scored at most: after each epoch, and by an interaction that is no matrix product.
EPOCH_PAIRS, PAIRS = 2**30, 2**24
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
        data = Data(h, command.source, command.item_file, command.user_file, command.sort_rows)
        report.data(data.prepared, data.catalogue, data.valid, data.test)
        h = cut_offs(h, data.catalogue.n_items, given)
        modes[command.mode](h, command, data, set(given))


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
    try:
        with silenced():  # MindSpore logs every library it misses; the sentence below says it once
            ms.set_context(mode=ms.GRAPH_MODE, device_target=target)
    except RuntimeError as error:
        sentence = f"--device_target {target}: MindSpore {ms.__version__} cannot use it here; {NEEDS[target]}."
        raise UserError(sentence) from error


def index_library(h, command):
    """The array library that --index_device names: None is NumPy and numba.

    Raises:
        UserError: there is no GPU, no library that sees it, or none that searches such postings.
    """
    if command.index_device == "cpu":
        return None
    if h.index_format not in (None, "float32"):
        raise UserError(f"--index_device gpu searches float32 postings; leave out --index_format {h.index_format}.")
    try:
        return gpu_library()
    except NoGpuError as error:
        raise UserError(f"--index_device gpu: {error}") from error


def train(h, command, data, given):
    """Trains, builds the index, evaluates on the test users and writes runs/<name>/."""
    if h.model not in BASELINES:
        asked, h = h.neg_num, settled(h, data)
        report.part_of("negatives, of which a training row holds no more", h.neg_num, asked or h.neg_num)
        refuse_unused(h, given)
        check_sizes(h, data)
    if command.trained is not None:
        require_same_first_phase(command.trained, h, data)
    if h.model in BASELINES:
        return fit_baseline(h, command, data, given)
    model = models.build(h, data.catalogue, data.features)
    report.unused(unread(h, model, given, data.training), f"{h.model} with {h.encoder}")
    with _claimed(command, f"{h.model}-{h.encoder}-{data.prepared.dataset}-seed{h.seed}", h, data) as folder:
        if folder.begun:
            folder.require_same(h, data)
        else:
            write_config(folder.path, h, data, command.preset, given)
        wide = fit_wide(h, data)
        trainer = Trainer(
            model,
            models.QuerySide(model, h.inference_batch_size),
            data.training,
            Validation(model, data.valid, h),
            h,
            folder.path,
            lambda: judge_of_codes(model, wide, h, data),
        )
        if folder.begun:
            trainer.resume()
        size = sum(p.size for p in model.trainable_params())
        steps = f"up to {h.epoch} epochs of {trainer.steps:,} steps"
        print(f"training {h.model}: {size:,} parameters, {steps}, results in {folder.path}/")
        started = time.perf_counter()
        trainer.run(command.trained)
        best, seconds = trainer.progress, time.perf_counter() - started
        print(f"best epoch {best.best_epoch}: valid {h.monitor} {best.best:.4f}; trained in {seconds:.0f} s")
        report.curves(best.rows, h.monitor, data.prepared.label, folder.path / "curves.png")
        wide = blended(model, wide, h, data)
        if wide is not None:
            wide.save(folder.path / WIDE)
        matcher = Matcher(model, wide, h)
        tie(folder.path, matcher, (BEST, WIDE))  # so that --mode test can go on where no index can be built
        _test(matcher, h, data, folder.path, index_library(h, command))
        tie(folder.path, matcher, TRAINED)


def fit_baseline(h, command, data, given):
    """Fits a baseline, evaluates it on the test users and writes runs/<name>/."""
    if not isinstance(data.training, TrainingSequences):
        raise UserError(f"{h.model} needs whole training sequences (user_id,items), not ready rows.")
    read = baselines.arguments(h.model, dataclasses.asdict(h)).keys() | {"model", "dataset", "split", "split_seed"}
    read |= {"topk", "exclude_seen"}
    report.unused(given - (read - unread_by_split(h)), h.model)
    with _claimed(command, f"{h.model}-{data.prepared.dataset}", h, data) as folder:
        write_config(folder.path, h, data, command.preset, given)
        recommender = _fitted(h, data)
        print(f"results in {folder.path}/")
        found = evaluate(recommender, data.test, h.topk, h.exclude_seen)
        report.results({"exhaustive": found}, data.prepared, h, folder.path)
        report.below_popularity(found, _popular(h, data))


def _fitted(h, data):
    """The baseline, fitted to the training sequences."""
    report.doing(f"fitting {h.model}")
    started = time.perf_counter()
    fitted = baselines.fit(h.model, data.training.sequences, data.catalogue.n_items, **dataclasses.asdict(h))
    print(f"{h.model} fitted in {time.perf_counter() - started:.1f} s")
    return fitted


def test(h, command, data, given):
    """Evaluates a checkpoint on the test users; its run stays as it is. Writes runs/<name>-test/, or the next free."""
    matcher = load_matcher(h, data, command.checkpoint)
    report.unused(unread(h, matcher.model, given, data.training), h.model)
    with _claimed(command, f"{Path(command.checkpoint).parent.name}-test", h, data) as folder:
        write_config(folder.path, h, data, command.preset, given)
        _test(matcher, h, data, folder.path, index_library(h, command))


def _claimed(command, usual, h, data):
    """The folder of a run by the name that was asked for, or by its usual one and the first number that is free."""
    return RunFolder.claim(command.name or usual, command.name is not None, command.resume, (h, data))


def recommend(h, command, data, given):
    """Prints, for some test users, the titles of their history and of the ten items recommended next, and why."""
    queries = data.test.take(np.arange(min(command.users, len(data.test))))
    if command.history is not None:
        history = Ragged.from_rows([data.catalogue.find(command.history.split("|"))])
        users = data.features.user and np.zeros((1, data.features.user.values.shape[1]), np.int32)  # of unknown values
        queries = Queries.without_targets(history, users)
    report.unused(given & {"topk"}, "--mode recommend, which shows ten items at most")
    recommender, reasons = _recommender(queries, h, command, data, given)
    items, scores = recommender.recommend(queries, min(10, data.catalogue.n_items, h.rerank or 10), h.exclude_seen)
    report.recommendations(data.catalogue, queries, items, scores, reasons and reasons(queries, items))


def _recommender(queries, h, command, data, given):
    """What recommends, and what tells why: (queries, items) -> parts of the scores as of `recommender.largest`; None
    where scores are no sums."""
    if h.model in BASELINES:
        report.unused(given & group("index"), h.model)
        require_same_data(command.checkpoint, data)
        fitted = _fitted(h, data)
        return fitted, getattr(fitted, "reasons", None)
    matcher = load_matcher(h, data, command.checkpoint)
    if not matcher.model.has_quantiser:
        report.unused(given & group("index"), h.model)
        return matcher.exhaustive(), None
    library = index_library(h, command)
    through = matcher.through(_index_for(queries, matcher, h, command, data, given, library), library)
    return through, functools.partial(matcher.reasons, through)


def _index_for(queries, matcher, h, command, data, given, library):
    """The index that the run saved, or, of another checkpoint or by other flags, one of the codes of some queries."""
    checkpoint = Path(command.checkpoint)
    if checkpoint.name == BEST and not given & (group("index") - {"rerank"}) and checkpoint.with_name("index").exists():
        index = own_index(checkpoint.parent)
        return index if library is None else decoded(index)  # which searches float32
    return matcher.build(np.unique(matcher.query_side.codes(queries)), data.valid, library)[0]


def own_index(folder):
    """The index of a run, mapped.

    Raises:
        UserError: there is none, or it is damaged or of another run.
    """
    try:
        return saved_index(folder)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def export(h, command, data, given):
    """Writes what serves a quantised model without MindSpore, beside its checkpoint and index: the query side as
    query.onnx (see `export_query_side`), scorer.npz for the codes that the index lacks, and with `rerank` reranker.npz
    for its best items."""
    if given := given - {"rerank"}:
        raise UserError(f"--{min(given)} changes nothing in an index that stands; --mode test builds another.")
    checkpoint = Path(command.checkpoint)
    if checkpoint.name != BEST:
        raise UserError(f"{checkpoint} is not what a run builds its index of; export the best.ckpt beside it.")
    path = checkpoint.with_name("query.onnx")
    matcher = load_matcher(h, data, checkpoint)
    model, held = matcher.model, RunFolder.hold(path.parent)
    if held is None:
        raise UserError(f"{path.parent} is being written by another process; wait for it.")
    with held:
        if model.has_quantiser and path.with_name(MANIFEST).exists():  # a new one would vouch for any index
            own_index(path.parent)
        export_query_side(model, path)
        save_scorer(model.scorer(), path.with_name(SCORER))
        path.with_name(RERANKER).unlink(missing_ok=True)
        if h.rerank:
            save_scorer(model.token_scorer(), path.with_name(RERANKER))
        tie(path.parent, matcher, TRAINED + EXPORTED, h.rerank)
    user, known = "", ""
    if model.users is not None:
        user, known = " and user int64 (B, W)", f" --user {shlex.quote(model.users.names[1])}"
    print(
        f"wrote {path}, {path.stat().st_size:,} bytes: history int64 (B, {h.seq_len}){user} -> codes int64 "
        f"and weights float32 (B, {model.codes_per_user})"
    )
    print("the ten best items after a history of items 1, 2, 3, without MindSpore:")
    print("    pip install onnxruntime")
    print(f"    python examples/serve.py {path.parent} 1 2 3{known} --items {data.prepared.folder / 'items.csv'}")


class Validation:
    """Called after each epoch: the metrics of the model as it is, on the validation users, by exhaustive scoring.

    EPOCH_PAIRS of user and item are scored at most, of users at even distances: of 54,000 items 20,000 users take 14 s
    on one core, and all 136,000 took 96 s. Where a score is no matrix product they are PAIRS: on Toys a mixture of
    logits took six times as long to validate as to train.
    """

    def __init__(self, model, queries, h):
        self.recommender, self.h = models.Exhaustive(model, h.inference_batch_size), h
        pairs = EPOCH_PAIRS if model.linear else PAIRS
        self.queries = queries.at_most(max(pairs // model.items.n_items, 1))
        report.part_of("validation users after each epoch", len(self.queries), len(queries))

    def __call__(self):
        return evaluate(self.recommender, self.queries, self.h.topk, self.h.exclude_seen).mean()


def fit_wide(h, data):
    """The wide table of the training sequences, or None where the settings want none.

    Its decays and penalty are those that recommend best to validation users, alone and with seen items left out,
    whatever is evaluated: chosen with them left in, the table ranked worse beside the model (last-3 of MovieLens-1M,
    NDCG@50 of validation users -.0040, p = 1e-8).
    """
    if not uses_wide(h):
        return None
    if not isinstance(data.training, TrainingSequences):
        raise UserError("the wide table needs whole training sequences (user_id,items); use --wide 0 with ready rows.")
    report.doing("choosing and fitting the wide table")
    started = time.perf_counter()
    start = WideSettings(max_postings=h.wide_postings, lookups=min(WideSettings.lookups, h.wide_lookups))
    sequences, n_items = data.training.sequences, data.catalogue.n_items
    with progress("choosing the wide table", None, " settings tried") as reached:
        tried = itertools.count(1)
        chosen = choose(
            sequences, n_items, data.valid, start, h.wide_lookups, max(h.topk), tell=lambda *_: reached(next(tried))
        )
    table = WideTable.fit(sequences, n_items, chosen)
    report.wide(table, time.perf_counter() - started)
    return table


def judge_of_codes(model, wide, h, data):
    """A judge of the codes that the model is about to have, see `Quantiser.start`, or None where nothing is to be
    chosen: NDCG of validation users, and whether they lose nothing against the model as it is, without codes."""
    if h.token_lookups is not None or h.index_loss is None:
        return None
    report.doing("choosing how many codes a user looks up")
    n_items, k = data.catalogue.n_items, max(h.topk)
    valid = blend.some_of(data.valid, n_items, blend.MOST_USERS * n_items if model.linear else PAIRS)
    if wide is not None:
        _, _, (weight, _, _) = _weighed(model, wide, h, data)
        wide = wide.scaled(weight)
    exhaustive = models.Exhaustive(model, h.inference_batch_size, wide)
    before = evaluate(exhaustive, valid, h.topk, h.exclude_seen)

    def judge(lookups):
        found, nothing = cost(evaluate(exhaustive, valid, h.topk, h.exclude_seen), before, k, h.index_loss)
        report.lookups(lookups, found, k)
        return found[f"ndcg@{k}"], nothing

    return judge


def blended(model, wide, h, data):
    """The wide table on the scale at which it and the model together rank validation users best, and as little of it
    as loses no more than `index_loss` there; None for None."""
    if wide is None:
        return None
    report.doing("choosing the weight of the wide table")
    k = max(h.topk)
    valid, deep, (weight, ratio, tried) = _weighed(model, wide, h, data)
    report.blend(ratio, tried, k)
    wide = wide.scaled(weight)
    if h.index_loss is not None and weight:
        wide, costs = blend.cut(deep, wide, valid, k, h.exclude_seen, h.index_loss, _above(h))
        report.reach(wide.settings, costs, k)
    return wide


def _weighed(model, wide, h, data):
    """Some validation users, their scores by the model alone, and what `blend.choose_weight` finds by them."""
    valid = blend.some_of(data.valid, data.catalogue.n_items)
    deep = models.Exhaustive(model, h.inference_batch_size).scores(valid)
    table = wide.scores(valid.histories)
    return valid, deep, blend.choose_weight(deep, table, valid, max(h.topk), h.exclude_seen, _above(h))


def _above(h):
    """What a score must exceed to be recommended: with a bias under the ReLU, 0 says nothing."""
    return -math.inf if h.score_bias is None else 0.0


def _test(matcher, h, data, folder, library):
    """The result tables: exhaustive scoring of the test users and, for a quantised model, the index as it was saved."""
    model, wide, exhaustive = matcher.model, matcher.wide, matcher.exhaustive()

    def of(recommender):
        return evaluate(recommender, data.test, h.topk, h.exclude_seen)

    report.doing(f"evaluating {len(data.test):,} test queries by exhaustive scoring")
    results = {"exhaustive": of(exhaustive)}
    if wide is not None:
        results["deep alone"] = of(models.Exhaustive(model, h.inference_batch_size))
        results["wide alone"] = of(wide)
    if model.has_quantiser:
        saved, about = _build(matcher, h, data, folder / "index", library)
        report.doing("evaluating through the index")
        recommender = matcher.through(saved, library)
        results["index"] = of(recommender)
        codes, weights = matcher.query_side.keys(data.test)
        codes = codes[weights > 0]
        known = saved.contains(codes)
        sizes = len(known), int((~known).sum())
        report.index(about, *sizes, recommender, data.test, max(h.topk), h.exclude_seen, folder)
        report.codebooks(model, codes, data, folder)
    report.results(results, data.prepared, h, folder)
    report.below_popularity(results.get("index", results["exhaustive"]), _popular(h, data))
    if model.has_quantiser:
        report.cost(results["index"], results["exhaustive"])


def _build(matcher, h, data, folder, library):
    """Builds the index and saves it; what was saved, and what is told of it."""
    report.doing("choosing the limits of the index and building it")
    started = time.perf_counter()
    codes = matcher.codes_in_use(data.training, np.random.default_rng([h.seed, h.epoch]))
    if h.index_codes == "all":
        codes = np.append(codes, np.setdiff1d(np.arange(matcher.model.quantiser.n_codes), codes))
    index, tried = matcher.build(codes[: h.max_codes], data.valid, library)
    seconds = time.perf_counter() - started
    if tried and data.valid.n_users < SURE_USERS:
        report.left_whole(data.valid.n_users)
    elif tried and h.max_postings is None and not tried[0]["loses nothing"]:
        report.longest_lists(tried[0], data.catalogue.n_items, max(h.topk))
    try:
        index.save(folder)
    except ValueError as error:
        raise UserError(str(error)) from error
    about = index.statistics() | {"data": data.prepared.label, "build_seconds": seconds, "limits_tried": tried}
    return load_index(folder), about


def _popular(h, data):
    """The metrics of the most popular items on the test users."""
    hot = baselines.fit("GlobalHot", taken(data.training), data.catalogue.n_items)
    return evaluate(hot, data.test, h.topk, h.exclude_seen)
