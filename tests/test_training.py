"""The loop: resume equals never having stopped, bad losses stop it, checkpoints are whole or absent."""

import csv
import dataclasses
import re
import resource
import shutil
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest

import models
import training
from data import widths
from data.ragged import Ragged
from errors import UserError
from files import LEFTOVER
from load_csv_dataset import TrainingRows, TrainingSequences
from training import Trainer, load_checkpoint
from work import Hyperparameters

pytestmark = pytest.mark.usefixtures("graph_mode")
SETTINGS = Hyperparameters(
    encoder="DNN",
    embedding_size=8,
    token_embedding_size=8,
    hidden=(),  # the fewer the parts, the sooner a graph is compiled
    interaction="dot",
    K_u=2,
    quantiser="residual",
    token_lookups=4,
    num_codebooks=1,
    K_c=16,
    seq_len=6,
    batch_size=32,
    negatives="popular",
    neg_num=10,
    positions_per_user=4,
    next_items=1,
    epoch=4,
    pretrain_epoch=1,
    lr=0.01,
    patience=10,
    monitor="recall@50",
    dropout=0.2,
)


def sequences(shortest=9):
    """Users walk around a ring of 20 items, nine or fewer, so the next item follows from the last ones."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(shortest, 9, 60).astype(int)
    return TrainingSequences(Ragged.from_rows([(rng.integers(20) + np.arange(n)) % 20 + 1 for n in lengths]), 20)


class Idle:
    """In place of a training step: a loss that falls by itself. A test of the schedule has no graph to wait for."""

    def __init__(self, loss=9.0):
        self.loss = loss

    def set_train(self, _):
        pass

    def __call__(self, *batch):
        self.loss *= 0.99
        return ms.Tensor(self.loss, ms.float32), ms.Tensor(self.loss, ms.float32)


def trainer(folder, settings=SETTINGS, values=None, training=None, step=None, **changes):
    settings = dataclasses.replace(settings, **changes)
    model = models.build(settings, SimpleNamespace(n_items=20))
    found = iter(values or [0.1 * i for i in range(1, 20)])
    validate = lambda: {settings.monitor: next(found)}  # noqa: E731
    made = Trainer(model, models.QuerySide(model, 64), training or sequences(), validate, settings, folder)
    made.step = step or made.step
    return made


def weights(trained):
    return {p.name: p.asnumpy().copy() for p in [*trained.model.get_parameters(), *trained.optimizer.get_parameters()]}


def test_targets_are_drawn_from_as_many_items_as_asked(tmp_path):
    for next_items in (1, 3):
        (batch, *_) = trainer(tmp_path, next_items=next_items)._batches(0)
        ahead = (batch.positive - batch.history[:, -1]) % 20
        assert set(ahead.tolist()) == set(range(1, next_items + 1))


def test_a_first_phase_taken_over_equals_one_of_its_own(tmp_path):
    """The codebooks differ, which the first phase knows nothing of."""
    source, own, taken = (
        trainer(tmp_path / name, K_c=words, epoch=2) for name, words in (("a", 16), ("b", 8), ("c", 8))
    )
    for each in (source, own, taken):
        each.folder.mkdir()
    with pytest.raises(UserError, match="no checkpoint"):
        taken.run(source.folder)
    source.run()
    own.run()
    next(taken.validate.__closure__[0].cell_contents)  # the value of the epoch that is not validated again
    taken.run(source.folder)
    assert taken.progress.rows[0] == source.progress.rows[0]
    for one, other in zip(taken.progress.rows, own.progress.rows, strict=True):
        assert one | {"samples_per_s": 0} == other | {"samples_per_s": 0}
    for name, array in weights(own).items():
        np.testing.assert_array_equal(weights(taken)[name], array, err_msg=name)


@pytest.mark.parametrize(
    "parts",
    [
        {"hidden": (8,), "interaction": "DNN", "interaction_hidden": (4,), "K_i": 2, "num_codebooks": 2},
        {"model": "TwoTower", "encoder": "LiGR", "att_layer": 1, "seq_len": 8},
    ],
    ids=["DNN", "LiGR, wide and narrow rows"],
)
def test_resume_equals_never_having_stopped(parts, tmp_path, monkeypatch):
    """Through the k-means start, with dropout: of epochs 1 and 2 what is on the disk while the third is validated, a
    new process' worth of objects, epochs 3 and 4."""
    monkeypatch.setattr(widths, "LONG", 0)
    monkeypatch.setattr(widths, "WORTH", 1)
    training = sequences(shortest=3)
    whole = trainer(tmp_path / "whole", training=training, **parts)
    if whole.model.every_position:
        assert {width for batch in whole._batches(0) for _, width in batch.shapes} == {2, 4, 8}
    whole.folder.mkdir()
    validate = whole.validate

    def copied_in_epoch_three():
        if whole.progress.epoch == 2:
            shutil.copytree(whole.folder, tmp_path / "stopped")
        return validate()

    whole.validate = copied_in_epoch_three
    whole.run()
    again = trainer(tmp_path / "stopped", values=[0.3, 0.4], training=training, **parts)
    again.resume()
    assert again.progress.epoch == 2
    again.run()
    expected, found = weights(whole), weights(again)
    assert all((found[name] == expected[name]).all() for name in expected)
    assert [row["loss"] for row in again.progress.rows] == [row["loss"] for row in whole.progress.rows]
    with open(again.folder / "log.csv") as file:
        assert [int(row["epoch"]) for row in csv.DictReader(file)] == [1, 2, 3, 4]


def test_loss_falls_and_the_best_epoch_is_what_remains(tmp_path):
    run = trainer(tmp_path, values=[0.1, 0.05, 0.9, 0.2, 0.3])
    run.run()
    losses = [row["ranking_loss"] for row in run.progress.rows]
    assert losses[-1] < losses[0]
    assert run.progress.best_epoch == 2 and run.progress.best == 0.9
    best = {p.name: p.asnumpy().copy() for p in run.model.get_parameters()}
    load_checkpoint(tmp_path / "best.ckpt", list(run.model.get_parameters()))
    assert all((p.asnumpy() == best[p.name]).all() for p in run.model.get_parameters())


def test_long_training_says_in_a_log_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "MINUTE", 0.0)
    run = trainer(tmp_path, step=Idle(), epoch=3, pretrain_epoch=3, model="TwoTower")
    run.progress.epoch = 1  # as if resumed
    run.run()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 * (run.steps + 1)
    assert re.fullmatch(rf"TwoTower: {run.steps + 1} steps \(\d+%\), epoch 2, loss \d\.\d{{3}}", said[0])
    assert said[-1] == f"TwoTower: {3 * run.steps} steps (100%), epoch 3, validating"


def test_patience_stops_but_not_before_the_quantiser_had_its_turn(tmp_path):
    run = trainer(tmp_path, values=[0.9, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1], step=Idle(), epoch=7, patience=2)
    run.run()
    assert run.progress.epoch == 4  # best quantised epoch 2, then two more
    assert run.progress.best_epoch == 2


def test_of_equal_epochs_the_first_is_kept(tmp_path):
    run = trainer(tmp_path, values=[0.1, 0.4, 0.4, 0.4], step=Idle(), model="TwoTower", epoch=4, pretrain_epoch=4)
    run.run()
    assert run.progress.best_epoch == 2


def test_a_model_without_quantiser_keeps_its_best_epoch_and_its_patience(tmp_path):
    values = [0.9, 0.2, 0.1, 0.1, 0.1]
    run = trainer(tmp_path, values=values, step=Idle(), model="TwoTower", epoch=5, patience=2, pretrain_epoch=3)
    run.run()
    assert run.progress.best_epoch == 1 and run.progress.epoch == 5
    assert run.progress.second_from == 3


def test_pursuit_is_put_under_the_best_epoch_of_what_trains_as_without_it(tmp_path):
    """And a run that ends between its last epoch and that start makes up for it."""
    values = [0.1, 0.2, 0.9, 0.3, 0.3]
    plain, coded = (
        trainer(tmp_path, values=values, model=name, quantiser="pursuit") for name in ("AllToAll", "DQMatch")
    )
    plain.run()
    coded.run()
    table = coded.model.items.table.asnumpy()
    assert (table == plain.model.items.table.asnumpy()).all() and coded.progress.best_epoch == 3
    codewords = coded.model.quantiser.tables()
    assert coded.model.is_quantised and codewords.any()
    again = trainer(tmp_path, values=values, model="DQMatch", quantiser="pursuit")
    load_checkpoint(tmp_path / "best.ckpt", again.model.get_parameters())
    assert again.model.is_quantised and (again.model.quantiser.tables() == codewords).all()

    stopped = trainer(tmp_path, values=values, model="DQMatch", quantiser="pursuit")
    stopped._start_quantiser = interrupt
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = trainer(tmp_path, model="DQMatch", quantiser="pursuit")
    resumed.resume()
    resumed.run()
    assert (resumed.model.quantiser.tables() == codewords).all()


def interrupt():
    raise KeyboardInterrupt


def test_the_second_phase_goes_on_from_the_best_epoch_with_the_last_learning_rates(tmp_path):
    run = trainer(tmp_path, values=[0.9, 0.2, 0.1, 0.5, 0.6], model="TwoTower", epoch=12, patience=2, pretrain_epoch=9)
    rates, begun, epoch, step = [], [], run._epoch, run.step

    class Watched:
        set_train = staticmethod(step.set_train)

        def __call__(self, *arguments):
            rates[-1].add(round(float(run.optimizer.learning_rate.asnumpy()) / SETTINGS.lr, 5))
            return step(*arguments)

    run.step = Watched()

    def watch(*arguments):
        rates.append(set())
        begun.append(weights(run))
        return epoch(*arguments)

    run._epoch = watch
    run.run()
    assert rates == [{round(left / 12, 5)} for left in (12, 11, 10, 3, 2)]  # of every step that the optimiser makes
    assert all((begun[3][name] == begun[1][name]).all() for name in begun[1] if not name.startswith("learning"))


def test_a_loss_that_is_no_number_stops_with_the_place(tmp_path):
    run = trainer(tmp_path, step=Idle(np.nan))
    with pytest.raises(UserError, match="in epoch 1 the loss became nan in batch 1; lower lr"):
        run.run()


def test_a_loss_that_stands_still_stops_with_the_reason(tmp_path):
    with pytest.raises(UserError, match="stands still.*score_bias"):
        trainer(tmp_path, epoch=9, model="AllToAll", score_bias=-1e6).run()


def test_a_loss_that_codes_bring_back_to_where_it_began_does_not_stop(tmp_path):
    run = trainer(tmp_path)
    run.progress = training.Progress(rows=[{"ranking_loss": loss} for loss in (3, 2, 1, 3, 3, 3)], second_from=3)
    run.model = SimpleNamespace(is_quantised=True)
    run._refuse_stuck_loss()
    run.model.is_quantised = False
    with pytest.raises(UserError, match="stands still"):
        run._refuse_stuck_loss()


@pytest.mark.parametrize("encoder", ["DNN", "SASRec"])
def test_rows_with_their_own_negatives_train(encoder, tmp_path):
    """The release's format: every row brings its negatives."""
    rng = np.random.default_rng(0)
    histories = Ragged.from_rows([[1 + i % 20, 1 + (i + 1) % 20] for i in range(200)])
    run = trainer(tmp_path, model="AllToAll", neg_num=6, batch_size=64, encoder=encoder, att_layer=1)
    positives = np.array([1 + (i + 2) % 20 for i in range(200)], np.int32)
    run.training_data = TrainingRows(histories, positives, rng.integers(1, 21, (200, 6)).astype(np.int32))
    run.run()
    assert run.progress.rows[-1]["ranking_loss"] < run.progress.rows[0]["ranking_loss"]


def test_interruption_leaves_the_last_whole_epoch(tmp_path):
    run = trainer(tmp_path, step=Idle())

    def validate():
        if run.progress.epoch == 1:
            raise KeyboardInterrupt
        return {SETTINGS.monitor: 0.5}

    run.validate = validate
    with pytest.raises(KeyboardInterrupt):
        run.run()
    again = trainer(tmp_path)
    again.resume()
    assert again.progress.epoch == 1
    assert not [path for path in tmp_path.rglob("*") if LEFTOVER.fullmatch(path.name)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embedding_std": 1e10}, r"lower embedding_std \(now 1e\+10\) and"),
        ({"neg_power": 60.0}, r"lower neg_power \(now 60\) and"),
        ({"lr": 2.0, "l2": 0.5}, r"lower lr \(now 2\) or l2 \(now 0.5\) and"),
        ({"lr": 1e-4}, r"lower lr \(now 0.0001\) and"),
    ],
)
def test_a_loss_that_is_no_number_blames_what_was_raised(change, named, tmp_path):
    run = trainer(tmp_path, step=Idle(np.nan), **{"lr": 1e-3} | change)
    with pytest.raises(UserError, match=named):
        run.run()


def test_a_full_disk_names_the_checkpoint_keeps_the_old_one_and_says_nothing_else(tmp_path, capfd):
    run = trainer(tmp_path)
    run.save("last.ckpt")
    before, (soft, hard) = (tmp_path / "last.ckpt").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="last.ckpt could not be written: File too large"):
            run.save("last.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert (tmp_path / "last.ckpt").read_bytes() == before
    out, err = capfd.readouterr()
    assert not out and all("chttp2" in line for line in err.splitlines())  # gRPC's threads, if Milvus was tested


def test_a_new_run_does_not_take_the_start_of_its_quantiser_from_an_older_one(tmp_path):
    (tmp_path / "first_phase.ckpt").write_bytes(b"of a run whose other checkpoints were deleted")
    trainer(tmp_path, step=Idle(), epoch=2).run()
    load_checkpoint(tmp_path / "first_phase.ckpt", [])


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    trainer(tmp_path, step=Idle(), epoch=2).run()
    path, twice = tmp_path / "best.ckpt", {"embedding_size": 16, "token_embedding_size": 16}
    with pytest.raises(UserError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.ckpt", [])
    with pytest.raises(UserError, match="does not fit this model"):
        load_checkpoint(path, list(trainer(tmp_path, **twice).model.get_parameters()))
    whole = path.read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be read|does not fit"):
            load_checkpoint(path, list(trainer(tmp_path).model.get_parameters()))


def test_the_quantiser_starts_from_the_best_epoch_and_a_phase_ends_by_its_own_patience(tmp_path):
    run = trainer(tmp_path, values=[0.3, 0.9, 0.2, 0.1, 0.5, 0.6], epoch=20, pretrain_epoch=15, patience=2)
    begun = {}
    start = run.model.start_quantiser

    def watch(tokens, batch_size, seed, judge):
        begun.update(weights(run))
        start(tokens, batch_size, seed, judge)

    run.model.start_quantiser = watch
    validate = run.validate
    after_two = {}

    def after_epoch():
        if run.progress.epoch == 1:  # called before the second epoch is counted
            after_two.update(weights(run))
        return validate()

    run.validate = after_epoch
    with pytest.raises(StopIteration):  # the values end in the second phase
        run.run()
    assert run.progress.second_from == 4
    assert all((begun[name] == after_two[name]).all() for name in after_two if not name.startswith("learning"))
    assert (tmp_path / "first_phase.ckpt").exists()


def test_killed_where_the_second_phase_begins_it_starts_the_quantiser_from_the_same_weights(tmp_path):
    """best.ckpt is of the quantised model by then, last.ckpt still of the epoch before."""
    (tmp_path / "whole").mkdir()
    whole = trainer(tmp_path / "whole")
    whole.run()
    killed = trainer(tmp_path)
    save = killed.save

    def die(name):
        if name == "last.ckpt" and killed.progress.second_from is not None:
            raise KeyboardInterrupt
        save(name)

    killed.save = die
    with pytest.raises(KeyboardInterrupt):
        killed.run()
    again = trainer(tmp_path, values=[0.2, 0.3, 0.4, 0.5])
    again.resume()
    assert again.progress.epoch == 1 and again.progress.second_from is None
    again.run()
    expected, found = weights(whole), weights(again)
    assert all((found[name] == expected[name]).all() for name in expected)


def test_epochs_with_codewords_must_beat_their_insertion(tmp_path):
    run = trainer(tmp_path, values=[0.5, 0.4, 0.3, 0.2, 0.1], step=Idle(), epoch=4)
    run.run()
    assert (run.progress.best, run.progress.best_epoch, run.progress.epoch) == (0.4, 1, 4)
    assert run.model.is_quantised


def test_without_an_epoch_left_the_quantiser_starts_all_the_same(tmp_path):
    run = trainer(tmp_path, values=[0.5, 0.6, 0.4], step=Idle(), epoch=2, pretrain_epoch=2)
    run.run()
    assert run.model.is_quantised and len(run.progress.rows) == 2
    assert (run.progress.best, run.progress.second_from) == (0.4, 2)
    before = weights(run)
    again = trainer(tmp_path, epoch=2, pretrain_epoch=2)
    again.resume()
    again.run()  # nothing is left to do
    assert all((before[name] == value).all() for name, value in weights(again).items())
