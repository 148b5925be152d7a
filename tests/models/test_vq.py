"""The quantiser: codewords are the nearest ones, they move, and gradients pass straight through."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from models.vq import QUANTISERS, VectorQuantiser
from models.vq import nearest as outside
from models.vq.rotation import turned

KINDS = sorted(name for name, kind in QUANTISERS.items() if kind.trains)


def make(
    kind="residual", num_codebooks=2, codewords=8, lookups=1, feedback=True, rotation=False, decay=0.9, restart=0.0
):
    rng = np.random.default_rng(0)
    return QUANTISERS[kind](num_codebooks, codewords, 6, lookups, feedback, rotation, decay, restart, rng)


def tokens(users=50, width=6, seed=1, n_tokens=1):
    """(users, n_tokens, width) float32"""
    return np.random.default_rng(seed).normal(size=(users, n_tokens, width)).astype(np.float32)


def nearest(rows, table):
    return ((rows[:, None] - table[None]) ** 2).sum(2).argmin(1)


def match(kind, quantiser, rows):
    """Code tuples and codewords of rows (R, D), by the definition of either quantiser."""
    tables = quantiser.tables()  # (M, N, D)
    parts = np.array_split(np.arange(rows.shape[1]), len(tables))
    indices, rest = [], rows
    for table, part in zip(tables, parts, strict=True):
        seen = part if kind == "product" else slice(None)
        indices.append(nearest(rest[:, seen], table[:, seen]))
        rest = rest - table[indices[-1]]
    return np.stack(indices, 1), rows - rest


class Weighted(nn.Cell):
    """Weighted sum of the quantised tokens, plus the commitment."""

    def __init__(self, quantiser, weights, commitment):
        super().__init__()
        self.quantiser, self.weights, self.commitment = quantiser, ms.Tensor(weights), commitment

    def construct(self, rows):
        quantised, commitment = self.quantiser(rows)
        return (quantised * self.weights).sum() + self.commitment * commitment


def gradient(quantiser, rows, weights, commitment):
    cell = Weighted(quantiser, weights, commitment)
    cell.set_train(False)
    return ms.grad(cell)(ms.Tensor(rows)).asnumpy()


@pytest.mark.parametrize("kind", KINDS)
def test_indices_are_those_of_the_nearest_codewords(kind):
    quantiser, rows = make(kind), tokens()
    found = quantiser.indices(rows)
    assert (found[:, 0] == match(kind, quantiser, rows[:, 0])[0]).all()


def test_a_product_quantiser_sees_a_part_of_the_token_in_each_codebook():
    tables = make("product").tables()
    assert (tables[0, :, 3:] == 0).all() and (tables[1, :, :3] == 0).all() and (tables.any(2)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_takes_over_what_was_lost_before_it(kind):
    """With error feedback the sum of the codewords misses the sum of the tokens by the last token's error alone."""
    quantiser, rows = make(kind, codewords=32), tokens(n_tokens=4)
    quantiser.set_train(False)
    quantised, carried = quantiser(ms.Tensor(rows))[0].asnumpy(), 0
    for k in range(4):
        asked = rows[:, k] + carried
        np.testing.assert_allclose(quantised[:, k], match(kind, quantiser, asked)[1], atol=1e-5)
        carried = asked - quantised[:, k]
    np.testing.assert_allclose(rows.sum(1) - quantised.sum(1), carried, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_more_look_ups_of_a_token_come_closer_to_it(kind):
    """The sum of P codes of a token misses P times the token by the error of the last one alone."""
    quantiser, rows = make(kind, codewords=32, lookups=5), tokens(n_tokens=3)
    indices = quantiser.indices(rows)
    assert indices.shape == (50, 15, 2)
    found, carried = quantiser.look_up(indices), 0
    for place in range(15):
        asked = rows[:, place // 5] + carried
        np.testing.assert_allclose(found[:, place], match(kind, quantiser, asked)[1], atol=1e-5)
        carried = asked - found[:, place]
    np.testing.assert_allclose(5 * rows.sum(1) - found.sum(1), carried, atol=1e-4)


def test_training_sees_the_first_code_of_a_token_alone():
    rows = ms.Tensor(tokens(n_tokens=3))
    one, many = make(lookups=1), make(lookups=5)
    for quantiser in (one, many):
        quantiser.set_train(False)
    np.testing.assert_array_equal(one(rows)[0].asnumpy(), many(rows)[0].asnumpy())


def test_without_error_feedback_a_token_knows_nothing_of_those_before_it():
    quantiser, rows = make(lookups=3, feedback=False), tokens(n_tokens=2)
    both, second = (quantiser.indices(part) for part in (rows, rows[:, 1:]))
    np.testing.assert_array_equal(both[:, 3:], second)
    assert (both[:, 3] != both[:, 4]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_straight_through_is_the_codeword_in_value_and_the_token_in_gradient(kind):
    quantiser, rows = make(kind), tokens()
    quantiser.set_train(False)
    quantised, commitment = quantiser(ms.Tensor(rows))
    expected = quantiser.look_up(quantiser.indices(rows))
    np.testing.assert_allclose(quantised.asnumpy(), expected, atol=1e-6)
    assert commitment.asnumpy() == pytest.approx(((rows - expected) ** 2).mean() / (rows**2).mean(), rel=1e-5)

    weights = tokens(seed=2)
    np.testing.assert_allclose(gradient(quantiser, rows, weights, 0.0), weights, rtol=1e-6)


def test_a_turned_gradient_keeps_its_angle_to_what_stands_for_the_token():
    """By hand: a quarter turn, and twice as long; the codeword in value."""
    tokens = ms.Tensor(np.float32([[[1, 0, 0]], [[0, 0, 0]]]))
    codewords = ms.Tensor(np.float32([[[0, 2, 0]], [[0, 0, 3]]]))
    np.testing.assert_allclose(turned(tokens, codewords).asnumpy(), codewords.asnumpy(), atol=1e-6)
    weights = ms.Tensor(np.float32([[[5, 7, 1]], [[0, 0, 0]]]))

    def loss(rows):
        return (turned(rows, codewords) * weights).sum()

    found = ms.grad(loss)(tokens).asnumpy()
    # The codeword's gradient has 7 along it and 5 against the sense of the turn; the token's has as much of its own.
    np.testing.assert_allclose(found[0, 0], [14, -10, 2], rtol=1e-3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantiser_that_turns_gradients_turns_those_of_its_loss(kind, graph_mode):
    quantiser, rows, weights = make(kind, rotation=True), tokens(), tokens(seed=2)
    quantiser.set_train(False)
    codewords = quantiser.look_up(quantiser.indices(rows))
    np.testing.assert_allclose(quantiser(ms.Tensor(rows))[0].asnumpy(), codewords, atol=1e-5)
    found = gradient(quantiser, rows, weights, 0.0)

    def lengths(vectors):
        return np.linalg.norm(vectors, axis=2)

    def cosines(left, right):
        return (left * right).sum(2) / lengths(left) / lengths(right)

    np.testing.assert_allclose(lengths(found), lengths(weights) * lengths(codewords) / lengths(rows), rtol=1e-3)
    np.testing.assert_allclose(cosines(found, rows), cosines(weights, codewords), atol=1e-3)


def test_commitment_pulls_the_token_to_its_codeword():
    quantiser, rows = make(), tokens()
    found = gradient(quantiser, rows, np.zeros_like(rows), 1.0)
    expected = quantiser.look_up(quantiser.indices(rows))
    np.testing.assert_allclose(found, 2 * (rows - expected) / (rows**2).sum(), atol=1e-6)


def test_training_moves_the_table_that_is_looked_up_as_the_averages_say():
    quantiser, rows = make(num_codebooks=1, decay=0.9), tokens(n_tokens=2)
    before = quantiser.tables()[0]
    first = nearest(rows[:, 0], before)
    second_row = rows[:, 1] + rows[:, 0] - before[first]
    second = nearest(second_row, before)
    quantiser.set_train(True)
    quantised = quantiser(ms.Tensor(rows))[0].asnumpy()
    np.testing.assert_allclose(quantised, before[np.stack([first, second], 1)], atol=1e-6)  # look-up, then update

    one_hot, asked = np.eye(8)[np.concatenate([first, second])], np.concatenate([rows[:, 0], second_row])
    count = 0.9 + 0.1 * one_hot.sum(0)
    expected = (0.9 * before + 0.1 * one_hot.T @ asked) / count[:, None]
    np.testing.assert_allclose(quantiser.tables()[0], expected, atol=1e-5)
    quantiser.set_train(False)
    again = quantiser(ms.Tensor(rows))[0].asnumpy()
    np.testing.assert_allclose(again[:, 0], expected[nearest(rows[:, 0], expected)], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_each_codebook_moves_to_what_it_was_asked_for(kind):
    quantiser, rows = make(kind, decay=0.0), tokens()
    first, indices = quantiser.tables()[0], match(kind, quantiser, rows[:, 0])[0]
    quantiser.set_train(True)
    quantiser(ms.Tensor(rows))
    missing = rows[:, 0] - first[indices[:, 0]]
    for n in np.unique(indices[:, 1]):
        expected = missing[indices[:, 1] == n].mean(0)
        if kind == "product":
            expected[:3] = 0
        np.testing.assert_allclose(quantiser.tables()[1, n], expected, atol=1e-5)


def test_a_codeword_that_is_never_used_stays_where_it_is():
    quantiser, rows = make(num_codebooks=1, decay=0.0), np.repeat(tokens()[:1], 50, 0)  # all on one codeword
    before = quantiser.tables()[0]
    unused = np.arange(8) != nearest(rows[0], before)
    quantiser.set_train(True)
    quantiser(ms.Tensor(rows))
    assert (quantiser.tables()[0][unused] == before[unused]).all()


def test_evaluation_moves_nothing():
    quantiser = make()
    before = quantiser.tables()
    quantiser.set_train(False)
    quantiser(ms.Tensor(tokens()))
    assert (quantiser.tables() == before).all()


def test_a_dead_codeword_restarts_on_a_token_of_the_batch():
    quantiser, rows = make(num_codebooks=1, restart=0.5), tokens()
    table = quantiser.codebooks[0].table
    table.set_data(ms.Tensor(np.concatenate([table.asnumpy()[:7], np.full((1, 6), 99, np.float32)])))
    quantiser.codebooks[0].ema_count.set_data(ms.Tensor(np.array([9.0] * 7 + [0.4], np.float32)))
    quantiser.set_train(True)
    quantiser(ms.Tensor(rows))
    restarted = quantiser.tables()[0][7]
    assert np.abs(rows[:, 0] - restarted).max(1).min() < 1e-5


def test_no_codeword_restarts_on_padding():
    book, rows = VectorQuantiser(8, 3, 0.5, 10.0, np.random.default_rng(0)), tokens(16, 3)[:, 0]
    rows[:12] = 99
    real = np.repeat([0.0, 1.0], [12, 4]).astype(np.float32)
    book.update(ms.Tensor(rows), ms.Tensor(np.zeros(16, np.int32)), ms.Tensor(real))
    assert np.abs(book.table.asnumpy()).max() < 50


def test_k_means_start_uses_all_codewords():
    centres = 10 * np.random.default_rng(3).normal(size=(8, 3)).astype(np.float32)
    rows = np.repeat(centres, 20, 0) + 0.01 * tokens(160, 3)[:, 0]
    book = VectorQuantiser(8, 3, 0.99, 1.0, np.random.default_rng(0))
    book.start(rows, batch_rows=80, seed=0)
    assert (np.bincount(nearest(rows, book.table.asnumpy()), minlength=8) == 20).all()
    np.testing.assert_allclose(book.ema_count.asnumpy(), 10)
    np.testing.assert_allclose(book.ema_sum.asnumpy(), book.table.asnumpy() * 10, rtol=1e-5)


def test_every_further_residual_codebook_starts_on_what_is_missing():
    rows = tokens(300)[:, 0] * np.array([9, 1, 1, 1, 1, 1], np.float32)
    lost = []
    for num_codebooks in (1, 2, 3):
        quantiser = make("residual", num_codebooks)
        quantiser.start(rows[:, None], batch_rows=300, seed=0)
        lost.append(np.square(rows - match("residual", quantiser, rows)[1]).mean())
    assert lost[0] > 1.5 * lost[1] > 2 * lost[2]


def test_k_means_start_needs_enough_vectors():
    with pytest.raises(ValueError, match="at least 8 vectors, got 5"):
        VectorQuantiser(8, 3, 0.99, 1.0, np.random.default_rng(0)).start(tokens(5, 3)[:, 0], 10, 0)


@pytest.mark.parametrize("codebooks", [1, 2, 3])
def test_code_tuples_and_integers_are_one_to_one(codebooks):
    quantiser = make(num_codebooks=codebooks, codewords=5)
    codes = np.arange(5**codebooks)
    indices = quantiser.decode(codes)
    assert (quantiser.encode(indices) == codes).all()
    assert len(np.unique(indices, axis=0)) == len(codes)
    assert (indices[1] == [0] * (codebooks - 1) + [1]).all()  # the last codebook counts fastest


def test_codes_outside_are_refused():
    for code in (-1, 64):
        with pytest.raises(ValueError, match="0 .. 63"):
            make().decode(np.array([code]))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="not divisible by 4"):
        make("product", num_codebooks=4)
    with pytest.raises(ValueError, match="64-bit"):
        make(num_codebooks=6, codewords=2**11)


def test_no_codebook_is_trained_by_the_optimiser():
    assert not make().trainable_params()


@pytest.mark.parametrize("kind", KINDS)
def test_padding_moves_no_codeword_and_adds_no_commitment(kind):
    rows = tokens(n_tokens=2)
    padded = np.concatenate([rows, np.full((30, 2, 6), 7, np.float32)])
    real = np.repeat(np.float32([1, 0]), [50, 30])
    alone, together = make(kind), make(kind)
    for quantiser in (alone, together):
        quantiser.set_train(True)
    expected = alone(ms.Tensor(rows))[1].asnumpy()
    assert together(ms.Tensor(padded), ms.Tensor(real))[1].asnumpy() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(together.tables(), alone.tables(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gram_matrix_too_large_to_keep_changes_no_code(kind, monkeypatch):
    quantiser, rows = make(kind, codewords=32, lookups=3), tokens(n_tokens=3)
    expected = quantiser.indices(rows)
    monkeypatch.setattr(outside, "GRAM", 0)
    np.testing.assert_array_equal(quantiser.indices(rows), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_training_sees_the_mean_of_all_codes_of_an_only_token(kind):
    quantiser, rows = make(kind, codewords=32, lookups=4), tokens()
    quantiser.set_train(False)
    quantised, commitment = quantiser(ms.Tensor(rows))
    expected = quantiser.look_up(quantiser.indices(rows)).mean(1, keepdims=True)
    np.testing.assert_allclose(quantised.asnumpy(), expected, atol=1e-5)
    assert commitment.asnumpy() == pytest.approx(((rows - expected) ** 2).mean() / (rows**2).mean(), rel=1e-4)
    assert np.abs(gradient(quantiser, rows, tokens(seed=2), 1.0)).max() > 0


def test_all_codes_of_an_only_token_move_their_codewords():
    quantiser, rows = make(num_codebooks=1, codewords=16, lookups=4), tokens()
    before = quantiser.tables()[0]
    used = np.unique(quantiser.indices(rows))
    quantiser.set_train(True)
    quantiser(ms.Tensor(rows))
    moved = np.flatnonzero((quantiser.tables()[0] != before).any(1))
    assert set(used) <= set(moved)
