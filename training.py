"""The training loop: epochs, validation, early stop, checkpoints and exact resume. It knows no model by name."""

import contextlib
import csv
import functools
import hashlib
import json
import logging
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from tqdm import tqdm

import files
from data import progress as shown
from errors import UserError

QUANTISER_TOKENS = 2**15  # that start the quantiser, or those of an epoch
FIRST_PHASE = "first_phase.ckpt"  # its best epoch
EXPLOSIVE = ("lr", "embedding_std", "neg_power", "beta", "l2")  # settings that, too large, end in no number
MINUTE = 60.0  # seconds between two lines of a log about an epoch
STUCK_EPOCHS = 5  # a loss that has not fallen by 1 % after so many more epochs is stuck


class TrainStep(nn.Cell):
    """One optimiser step as one graph: returns the loss and its ranking part, what `--loss` names."""

    def __init__(self, model, optimizer):
        super().__init__(auto_prefix=False)  # parameters keep the names they have in the model
        self.model, self.optimizer = model, optimizer
        self.value_and_grad = ms.value_and_grad(model, None, optimizer.parameters, has_aux=True)

    def construct(self, history, positive, negative, log_expected, noise, quantised, shapes, user=None):
        """As `BaseModel.construct`."""
        (loss, ranking), gradients = self.value_and_grad(
            history, positive, negative, log_expected, noise, quantised, shapes, user
        )
        return ops.depend(loss, self.optimizer(gradients)), ranking


@dataclass
class Progress:
    """How far a run is: what a checkpoint holds beside the weights.

    epoch: finished epochs. best, best_epoch: highest monitored value and its epoch, since the quantiser started where
    there is one. rows: the log so far. second_from: epochs that were finished when the second phase began; None before.
    run: the checksum of config.json, which ties the checkpoints of a run to it; "" where there is none.
    """

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0
    rows: list = field(default_factory=list)
    second_from: int | None = None
    run: str = ""


class Trainer:
    """Trains a model and keeps its best and its last state in a folder.

    Args:
        model: gives `construct` (the loss) and `start_quantiser`.
        query_side: `models.QuerySide` of the model, for the tokens that start the quantiser.
        training_data: `load_csv_dataset.TrainingSequences` or `TrainingRows`.
        validate: function without arguments that returns {metric name: value} of the model as it is.
        settings: `work.Hyperparameters`.
        folder: where log.csv, best.ckpt and last.ckpt go.
        judge_of_codes: function without arguments, called before the quantiser starts, that returns the `judge` of
            `Quantiser.start`, or None.
    """

    def __init__(self, model, query_side, training_data, validate, settings, folder, judge_of_codes=None):
        self.model, self.query_side, self.training_data = model, query_side, training_data
        self.validate, self.settings, self.folder = validate, settings, Path(folder)
        self.judge_of_codes = judge_of_codes or (lambda: None)
        self.optimizer = nn.Adam(model.trainable_params(), learning_rate=settings.lr)
        self.step = TrainStep(model, self.optimizer)
        self.progress = Progress()

    @functools.cached_property
    def steps(self):
        """How many steps an epoch has."""
        return self.training_data.steps(**self._cut())

    def resume(self):
        """Continues from last.ckpt: what follows equals a run that never stopped.

        Raises:
            UserError: there is no last.ckpt, or it is not of this model.
        """
        self.progress = self.load("last.ckpt")

    def load(self, name):
        """Puts the weights of a checkpoint into model and optimiser; returns its `Progress`."""
        path = self.folder / name
        return load_checkpoint(path, [*self.model.get_parameters(), *self.optimizer.get_parameters()])

    def run(self, trained=None):
        """Trains in two phases and loads the best epoch.

        The first has up to `pretrain_epoch` epochs and no quantiser. The second goes on from the best of them, with the
        quantiser of a model that has one and with the low learning rates that end the schedule: so a model that has
        learnt all it can in a few epochs is settled as one is that took them all. Without an epoch left the second
        phase is the quantiser's start alone. A phase ends early when `patience` of its epochs brought no better
        `monitor`. A quantiser that takes no part in training starts when the best epoch is known.

        Args:
            trained: folder of a run whose first phase is taken over in place of training one; see
                `runs.require_same_first_phase`. A run that has begun goes on as it was.

        Raises:
            UserError: the loss is not finite, or does not move.
            KeyboardInterrupt: passed on; last.ckpt holds the last whole epoch.
        """
        s, progress = self.settings, self.progress
        if not progress.epoch:
            progress.run = run_of(self.folder)
            (self.folder / FIRST_PHASE).unlink(missing_ok=True)  # of a run that stood here before
            self.save("last.ckpt")
            if trained is not None:
                self._take_over(Path(trained))
        whole, passed = self.steps * s.epoch, self.steps * progress.epoch
        with shown.progress(s.model, whole, " steps", passed, first=MINUTE, every=MINUTE) as reached:
            while True:
                if self._phase_is_over():
                    if progress.second_from is not None:
                        break
                    self._begin_second_phase()
                    continue  # it may have no epoch
                started = time.perf_counter()
                loss, ranking, rows = self._epoch(progress.epoch, reached)
                seconds = time.perf_counter() - started
                reached(self.steps * (progress.epoch + 1), f"epoch {progress.epoch + 1}, validating")
                values = self.validate()
                progress.epoch += 1
                row = {"epoch": progress.epoch, "loss": loss, "ranking_loss": ranking, "samples_per_s": rows / seconds}
                progress.rows.append({key: round(value, 6) for key, value in (row | values).items()})
                self._refuse_stuck_loss()
                monitored = values[s.monitor]
                if monitored > progress.best:
                    progress.best, progress.best_epoch = monitored, progress.epoch
                    self.save("best.ckpt")
                self.save("last.ckpt")
                self._write_log()
                mark = "  *" if progress.best_epoch == progress.epoch else ""
                found = f"valid {s.monitor} {monitored:.4f}"
                tqdm.write(f"epoch {progress.epoch:3d}  loss {loss:.4f}  {found}  {seconds:.1f} s{mark}")
        self.load("best.ckpt")
        if self.model.has_quantiser and not self.model.is_quantised:
            self._start_quantiser()
            self.save("best.ckpt")
            tqdm.write(f"quantised  valid {s.monitor} {self.validate()[s.monitor]:.4f}")

    def _take_over(self, folder):
        """The state in which the first phase of another run ended; where no epoch of a second followed, its last."""
        ended = load_checkpoint(folder / "last.ckpt", [])
        epochs = ended.epoch if ended.second_from is None else ended.second_from
        weights = [*self.model.get_parameters(), *self.optimizer.get_parameters()]
        best = load_checkpoint(folder / FIRST_PHASE, [p for p in weights if "quantise" not in p.name])
        self.progress.best, self.progress.best_epoch = best.best, best.best_epoch
        self.progress.epoch, self.progress.rows = epochs, ended.rows[:epochs]
        for name in (FIRST_PHASE, "best.ckpt", "last.ckpt"):  # the last makes the others count
            self.save(name)
        self._write_log()
        tqdm.write(f"took over {folder}, best epoch {best.best_epoch}: valid {self.settings.monitor} {best.best:.4f}")

    def _phase_is_over(self):
        s, progress, first = self.settings, self.progress, self.progress.second_from or 0
        length = s.pretrain_epoch if progress.second_from is None else s.epoch - s.pretrain_epoch
        passed = progress.epoch - first
        return passed >= length or progress.epoch - max(progress.best_epoch, first) >= s.patience

    def _learning_rate(self):
        """Falls linearly to 0 over `epoch` epochs, of which the second phase has the last ones however early it begins;
        or stays."""
        s, passed = self.settings, self.progress.epoch
        if self.progress.second_from is not None:
            passed += s.pretrain_epoch - self.progress.second_from
        return s.lr * (1 - passed / s.epoch) if s.lr_decay else s.lr

    def _epoch(self, epoch, reached):
        """One pass over the training data, with a learning rate that stays or falls linearly to 0 over the run.

        Returns mean loss, mean ranking part and the number of rows.
        """
        s = self.settings
        self.step.set_train(True)
        self.optimizer.learning_rate.set_data(ms.Tensor(self._learning_rate(), ms.float32))
        # All randomness of an epoch depends on seed and epoch alone, so a resumed run repeats it.
        rng, batches = np.random.default_rng([s.seed, epoch, 1]), self._batches(epoch)
        losses, rankings, rows, quantised = [], [], 0, self.model.is_quantised
        for batch in batches:
            noise = rng.random(self.model.noise_size(batch.shapes), np.float32)
            user = None if batch.user is None else ms.Tensor(batch.user)
            arrays = (ms.Tensor(array) for array in (*batch[:4], noise))
            loss, ranking = self.step(*arrays, quantised, batch.shapes, user)
            losses.append(float(loss.asnumpy()))
            rankings.append(float(ranking.asnumpy()))
            if not np.isfinite(losses[-1]):
                raise self._diverged(epoch, f"the loss became {losses[-1]} in batch {len(losses)}")
            rows += len(batch.history)
            reached(self.steps * epoch + len(losses), f"epoch {epoch + 1}, loss {np.mean(losses[-50:]):.3f}")
        if not all(np.isfinite(p.asnumpy()).all() for p in self.model.trainable_params()):
            raise self._diverged(epoch, "a weight is no longer a finite number")
        return float(np.mean(losses)), float(np.mean(rankings)), rows

    def _diverged(self, epoch, what):
        s = self.settings
        raised = [name for name in EXPLOSIVE if getattr(s, name) > getattr(type(s)(), name)] or ["lr"]
        settings = " or ".join(f"{name} (now {getattr(s, name):g})" for name in raised)
        return UserError(f"in epoch {epoch + 1} {what}; lower {settings} and start again under another --name.")

    def _batches(self, epoch):
        s = self.settings
        rng = np.random.default_rng([s.seed, epoch])
        return self.training_data.epoch(
            rng,
            **self._cut(),
            neg_num=s.neg_num,
            neg_power=s.neg_power,
            negatives=s.negatives,
            next_items=s.next_items,
        )

    def _cut(self):
        """How an epoch is cut into batches: arguments of what `TrainingSequences` says of one."""
        s = self.settings
        return {
            "batch_size": s.batch_size,
            "positions_per_user": s.positions_per_user,
            "seq_len": s.seq_len,
            "all_positions": self.model.every_position,
        }

    def _begin_second_phase(self):
        progress = self.progress
        if progress.best_epoch:
            # Written once: a run that was killed in the first epoch of this phase finds best.ckpt to be of that one.
            if not (self.folder / FIRST_PHASE).exists():
                self.load("best.ckpt")
                self.save(FIRST_PHASE)
            self.load(FIRST_PHASE)
        progress.second_from = progress.epoch
        if self.model.has_quantiser and self.model.quantiser.trains:
            self._start_quantiser()
            progress.best, progress.best_epoch = self.validate()[self.settings.monitor], progress.epoch
            self.save("best.ckpt")  # training with codewords must beat their mere insertion
            self.save("last.ckpt")
            tqdm.write(f"quantised  valid {self.settings.monitor} {progress.best:.4f}  *")

    def _start_quantiser(self):
        s = self.settings
        queries = starting_queries(self.training_data, s, self.model.coded_tokens)
        targets = self.training_data.targets_per_batch(**self._cut())
        self.model.start_quantiser(self.query_side.raw_tokens(queries), targets, s.seed, self.judge_of_codes())

    def _refuse_stuck_loss(self):
        rows = self.progress.rows
        if self.model.is_quantised and self.progress.second_from:
            return  # codes that came since epoch 1 may have brought the loss back to where it was
        first, last = rows[0]["ranking_loss"], rows[-1]["ranking_loss"]
        if len(rows) == STUCK_EPOCHS + 1 and last > 0.99 * first:
            raise UserError(
                f"the loss stands still: {first:.4f} in epoch 1, {last:.4f} in epoch {len(rows)}; a score_bias so low "
                "that every score is silenced does that, or an lr near 0."
            )

    def save(self, name):
        save_checkpoint(
            self.folder / name, [*self.model.get_parameters(), *self.optimizer.get_parameters()], self.progress
        )

    def _write_log(self):
        rows = self.progress.rows
        with files.fresh(self.folder / "log.csv", "w") as file:
            writer = csv.DictWriter(file, list({name: None for row in rows for name in row}))  # --trained: other cuts
            writer.writeheader()
            writer.writerows(rows)


def starting_queries(training_data, settings, coded):
    """The training positions whose tokens, `coded` of each, start the quantiser: QUANTISER_TOKENS, or what an epoch
    has, evenly over users."""
    rng = np.random.default_rng([settings.seed, 3])
    return training_data.queries(rng, settings.positions_per_user, settings.seq_len, QUANTISER_TOKENS // coded)


def save_checkpoint(path, parameters, progress):
    """Writes parameters, progress and a digest of both; the file is either the old or the new one, never half of it.

    Raises:
        UnwritableError: the disk refuses (an OSError).
    """
    path = Path(path)
    arrays = {p.name: p.asnumpy() for p in parameters}
    told = json.dumps(asdict(progress))
    entries = [{"name": name, "data": ms.Tensor(array)} for name, array in arrays.items()]
    about = {"progress": told, "sha256": weights_digest(arrays, told)}
    with files.writing(path), tempfile.TemporaryDirectory(prefix=files.unfinished(path), dir=path.parent) as place:
        new = Path(place) / path.name
        with silenced():
            ms.save_checkpoint(entries, str(new), append_dict=about)
        with open(new, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(new, 0o644)  # MindSpore leaves it unwritable
        os.replace(new, path)


def load_checkpoint(path, parameters):
    """Puts the values of a checkpoint into the parameters of the same names; returns its `Progress`.

    Raises:
        UserError: the file is missing or damaged, of another run than config.json beside it, or lacks a parameter or
            has it in another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}; train first, or name another with --checkpoint.")
    try:
        with silenced():
            stored = ms.load_checkpoint(str(path))
        told, digest = stored.pop("progress"), stored.pop("sha256")
        arrays = {name: parameter.asnumpy() for name, parameter in stored.items()}
        progress = Progress(**json.loads(told))
    except Exception as error:  # MindSpore raises many kinds for a damaged file
        raise UserError(f"{path} cannot be read as a checkpoint of this program: {error}") from error
    if digest != weights_digest(arrays, told):
        raise UserError(f"{path} is damaged: its checksum does not fit; train anew, or take a copy of it.")
    if progress.run != run_of(path.parent) and progress.run:
        raise UserError(f"{path} is of another run than the config.json beside it; put the right one there.")
    for parameter in parameters:
        name = parameter.name
        if name not in arrays or arrays[name].shape != parameter.shape:
            found = arrays[name].shape if name in arrays else "nothing"
            raise UserError(
                f"{path} does not fit this model: {name} needs shape {parameter.shape}, found {found}; "
                "use the hyper-parameters it was trained with (config.json beside it)."
            )
        parameter.set_data(ms.Tensor(arrays[name], parameter.dtype))
    return progress


@contextlib.contextmanager
def silenced():
    """MindSpore logs, over many lines, what the exception it raises says too; here it logs nothing."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def run_of(folder):
    """The checksum in the config.json of a run, "" without one."""
    try:
        return str(json.loads((Path(folder) / "config.json").read_text()).get("sha256", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def weights_digest(arrays, progress):
    """SHA-256 over the names, types, shapes and values of arrays (a dictionary) and over a text."""
    digest = hashlib.sha256(progress.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
