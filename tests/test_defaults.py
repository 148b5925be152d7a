"""Settings that are left to the data follow the data."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

import models
from checks import unread
from data.queries import Queries
from data.ragged import Ragged
from defaults import settled
from errors import UserError
from load_csv_dataset import TrainingRows, TrainingSequences
from work import Hyperparameters

FORMULAS = ({"interaction": "dot"}, {"interaction": "DNN"})


def test_ready_rows_have_as_many_negatives_as_they_hold_and_no_table():
    rows = Ragged.from_rows([[1, 2]] * 900)
    few = data(300, 9, 9)
    few.training = TrainingRows(rows, np.full(900, 3, np.int32), np.full((900, 10), 4, np.int32))
    found = settled(Hyperparameters(), few)
    assert (found.neg_num, found.wide) == (10, False)
    assert settled(Hyperparameters(neg_num=3), few).neg_num == 3
    given = {"neg_power", "positions_per_user", "lr"}
    model = models.build(found, few.catalogue)
    assert unread(found, model, given, few.training) == {"neg_power", "positions_per_user"}
    assert not unread(found, model, given, data(300, 9, 9).training)


@pytest.mark.parametrize("flags", [{}, {"interaction": "bilinear"}, {"interaction": "MoL", "model": "AllToAll"}])
def test_a_user_vector_that_cannot_be_a_token_is_refused(flags):
    settings = settled(Hyperparameters(embedding_size=16, **flags), data(300, 150, 10))
    with pytest.raises(UserError, match="must be equal"):
        models.build(settings, SimpleNamespace(n_items=300))
    models.build(dataclasses.replace(settings, tokeniser="heads", interaction="bilinear"), SimpleNamespace(n_items=300))


def data(n_items, n_users, each):
    rows = np.random.default_rng(0).integers(1, n_items + 1, (n_users, each))
    return SimpleNamespace(
        catalogue=SimpleNamespace(n_items=n_items),
        training=TrainingSequences(Ragged.from_rows(list(rows)), n_items),
        valid=Queries(Ragged.from_rows(rows[:9, :-1]), Ragged.from_rows(rows[:9, -1:])),
    )


def test_rare_items_hide_more_of_the_history_and_few_tokens_have_few_codewords():
    rare, common = (settled(Hyperparameters(encoder="DNN"), data(300, users, 10)) for users in (150, 3000))
    assert rare.history_dropout == pytest.approx(1 / (1 + 0.5**0.5), abs=0.01)  # 5 interactions per item
    assert common.history_dropout == pytest.approx(1 / (1 + 10**0.5), abs=0.01)  # 100 of them
    assert rare.K_c == 2 * 150 * 9 // 8 and common.K_c == 2048


@pytest.mark.parametrize(("asked", "next_items"), [([1] * 8 + [9], 1), ([1, 1, 2, 2, 9], 2), ([9, 12, 30], 4), ([], 1)])
def test_targets_reach_as_far_as_validation_users_are_asked(asked, next_items):
    few = data(300, 99, 9)
    targets = Ragged.from_rows([range(1, count + 1) for count in asked])
    few.valid = Queries(Ragged.from_rows([[1]] * len(asked)), targets)
    assert settled(Hyperparameters(), few).next_items == next_items
    assert settled(Hyperparameters(next_items=7), few).next_items == 7
    few.training = TrainingRows(Ragged.from_rows([[1]] * 20), np.full(20, 2), np.full((20, 2), 3))
    assert settled(Hyperparameters(encoder="DNN", batch_size=4), few).next_items == 1


def test_all_items_are_negatives_where_an_epoch_of_them_is_cheap(monkeypatch):
    few = data(300, 99, 9)

    def negatives(**given):
        found = settled(Hyperparameters(**given), few)
        return found.negatives, found.neg_num

    monkeypatch.setattr("defaults.PAIRS", 99 * 9 * 300)
    assert negatives() == ("popular", 1024)
    monkeypatch.setattr("defaults.NEGATIVES", 75)
    assert negatives() == ("popular", 75)  # a quarter of the items
    monkeypatch.setattr("defaults.NEGATIVES", 74)
    assert negatives() == ("all", 74)
    assert negatives(neg_num=64) == ("popular", 64)
    windows = {"model": "AllToAll", "encoder": "DNN"}
    for given in ({"loss": "BCE"}, {"interaction": "MoL", "model": "AllToAll"}, {"score_bias": 0.0}, windows):
        assert negatives(**given) == ("popular", 74)
    assert negatives(**windows, negatives="all") == ("all", 74)
    monkeypatch.setattr("defaults.PAIRS", 4 * 99 * 9 * 300)
    assert negatives(**windows) == ("all", 74)
    monkeypatch.setattr("defaults.PAIRS", 99 * 9 * 300 - 1)
    assert negatives() == ("popular", 74)


def test_no_epoch_is_left_out_unless_asked():
    found = settled(Hyperparameters(epoch=30), data(300, 99, 9))
    assert found.patience == found.epoch == 30
    assert settled(Hyperparameters(patience=2), data(300, 99, 9)).patience == 2


def test_what_was_given_is_left_alone():
    given = settled(Hyperparameters(history_dropout=0.0, K_c=7, seq_len=30, batch_size=9), data(300, 150, 10))
    assert (given.history_dropout, given.K_c, given.seq_len, given.batch_size) == (0.0, 7, 30, 9)


def test_lists_that_hold_much_of_a_catalogue_are_judged_by_their_order():
    few, many, asked = (
        settled(Hyperparameters(**given), data(n_items, 300, 10)).monitor
        for given, n_items in (({}, 900), ({}, 1000), ({"monitor": "hit@5", "topk": (5, 10)}, 20))
    )
    assert (few, many, asked) == ("ndcg@50", "recall@50", "hit@5")
    assert settled(Hyperparameters(topk=(1, 10)), data(900, 300, 10)).monitor == "recall@10"


def test_a_causal_encoder_has_one_token_of_a_row_to_start_the_quantiser_from():
    few = settled(Hyperparameters(encoder="SASRec"), data(300, 300, 10))
    pooled = settled(Hyperparameters(encoder="DNN"), data(300, 300, 10))
    assert few.dropout == few.history_dropout and pooled.dropout == 0.1
    assert (few.pretrain_epoch, pooled.pretrain_epoch) == (40, 20)
    assert (few.positions_per_user, pooled.positions_per_user) == (60, 20)
    assert few.K_c == 2 * 300 * 9 // 8  # the quantiser starts from every position


@pytest.mark.parametrize(
    ("users", "each", "length", "batch", "positions"),
    [(13000, 9, 20, 128, 60), (6500, 40, 40, 64, 60), (3000, 300, 100, 26, 100)],
)
def test_a_causal_encoder_reads_as_much_as_histories_have(users, each, length, batch, positions):
    causal = settled(Hyperparameters(), data(300, users, each))
    assert (causal.seq_len, causal.batch_size, causal.positions_per_user) == (length, batch, positions)
    assert causal.inference_batch_size * length == pytest.approx(16384, abs=length)
    for pools in ({"encoder": "DNN"}, {"tokeniser": "windows"}):  # one target per row
        rows = settled(Hyperparameters(**pools), data(300, users, each))
        assert (rows.seq_len, rows.batch_size, rows.positions_per_user) == (20, 512, 20)
    assert settled(Hyperparameters(encoder="GRU4Rec"), data(300, users, each)).seq_len == 20


def test_few_data_make_a_hundred_small_batches():
    for flags, users, rows in (({}, 2000, 2000), ({"encoder": "DNN"}, 500, 500 * 9)):
        few = settled(Hyperparameters(**flags), data(300, users, 10))
        assert few.batch_size == rows // 100
    assert settled(Hyperparameters(), data(300, 50, 10)).batch_size == 8


def test_much_data_make_fewer_epochs(monkeypatch):
    some = data(300, 13000, 9)  # 102 steps of 128 users
    assert settled(Hyperparameters(), some).epoch == settled(Hyperparameters(encoder="DNN"), some).epoch == 40
    monkeypatch.setattr("defaults.MOST_STEPS", 1500)
    assert settled(Hyperparameters(), some).epoch == settled(Hyperparameters(), some).pretrain_epoch == 14
    assert settled(Hyperparameters(batch_size=10), some).epoch == 5
    assert settled(Hyperparameters(epoch=30), some).epoch == 30
    with pytest.raises(UserError, match="--pretrain_epoch 20 is more than the epochs, 14"):
        settled(Hyperparameters(pretrain_epoch=20), some)


def test_one_long_history_in_a_hundred_makes_no_longer_windows():
    few = data(300, 99, 9)
    few.training = TrainingSequences(Ragged.from_rows([*few.training.sequences, np.arange(1, 301)]), 300)
    assert settled(Hyperparameters(), few).seq_len == 20


def test_pursuit_quantises_what_no_relu_and_no_second_codebook_does():
    """What a network scores adds up as its features do."""
    for flags in FORMULAS:
        found = settled(Hyperparameters(encoder="DNN", **flags), data(300, 150, 10))
        assert (found.quantiser, found.token_lookups, found.K_c) == ("pursuit", None, 2 * 1350 // 8)
    network = settled(Hyperparameters(encoder="DNN", quantiser="residual", **FORMULAS[1]), data(300, 150, 10))
    assert (network.token_lookups, network.K_c) == (1, 4 * 1350 // 8)
    for flags in ({"score_bias": -1.0}, {"num_codebooks": 2}):
        assert settled(Hyperparameters(**flags), data(300, 150, 10)).quantiser == "residual"
