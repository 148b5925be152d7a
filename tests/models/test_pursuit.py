"""The pursuit quantiser: a user's vector becomes a weighted sum of codewords, step by step closer."""

import mindspore as ms
import numpy as np
import pytest

from models.vq import PursuitQuantiser, pursuit
from models.vq import nearest as outside
from models.vq.pursuit import follow, pursue


def directions(n=32, width=6, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors(n=50, width=6, seed=1):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def missed(rows, words, codes, weights):
    return rows - (weights[..., None] * words[codes]).sum(1)


def test_each_step_takes_the_codeword_and_the_weight_that_leave_least():
    words, rows = directions(), vectors()
    codes, weights = np.zeros((50, 4), int), np.zeros((50, 4), np.float32)
    for place in [0, 1, 2, 3, 0, 1, 2, 3]:
        weights[:, place] = 0
        best = np.maximum(missed(rows, words, codes, weights) @ words.T, 0)  # |x - w c|^2 is least at w = x . c
        codes[:, place], weights[:, place] = best.argmax(1), best.max(1)
    found = pursue(rows, words, 4)
    np.testing.assert_array_equal(found[0], codes)
    np.testing.assert_allclose(found[1], weights, atol=1e-5)
    assert (weights >= 0).all()


def test_choosing_anew_leaves_no_user_more():
    words, rows = directions(), vectors(400)
    codes, weights = np.zeros((400, 4), int), np.zeros((400, 4), np.float32)
    for place in range(4):
        products = missed(rows, words, codes, weights) @ words.T
        codes[:, place], weights[:, place] = products.argmax(1), np.maximum(products.max(1), 0)
    once, twice = (
        np.square(missed(rows, words, *found)).sum(1) for found in ((codes, weights), pursue(rows, words, 4))
    )
    assert (twice <= once + 1e-5).all() and twice.sum() < 0.9 * once.sum()


def test_codewords_that_follow_their_users_leave_less_and_stay_directions():
    rows, words = vectors(500), directions()
    codes, weights = pursue(rows, words, 3)
    before = np.square(missed(rows, words, codes, weights)).sum()
    moved = follow(rows, words, codes, weights)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    assert np.square(missed(rows, moved, *pursue(rows, moved, 3))).sum() < 0.9 * before


def test_a_codeword_takes_what_the_others_leave_over():
    """By hand: beside 5 (1, 0, 0) codeword 0 is left with (0, 3, 4), of which it held (0, 3, 0) in two look-ups."""
    words = np.float32([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    moved = follow(np.float32([[5, 3, 4]]), words, np.int32([[0, 1, 0]]), np.float32([[2, 5, 1]]))
    np.testing.assert_allclose(moved, [[0, 0.6, 0.8], [1, 0, 0], [0, 0, 1]], atol=1e-6)  # the last is nobody's


def test_a_sum_of_two_orthogonal_codewords_is_found_again():
    words = np.eye(6, dtype=np.float32)
    codes, weights = pursue(np.float32([[0, 3, 0, 0, 7, 0]]), words, 3)
    assert codes[0, :2].tolist() == [4, 1] and weights.tolist() == [[7, 3, 0]]


def test_what_no_codeword_comes_closer_to_has_no_weight():
    _, weights = pursue(np.float32([[-1, -1, 0], [0, 0, 0]]), np.eye(3, dtype=np.float32), 2)
    assert (weights == 0).all()


def test_a_gram_matrix_too_large_to_keep_changes_nothing(monkeypatch):
    expected = pursue(vectors(), directions(), 5)
    monkeypatch.setattr(outside, "GRAM", 0)
    found = pursue(vectors(), directions(), 5)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=1e-5)


def test_one_user_is_coded_as_among_many_without_all_products_of_codewords():
    users, words = vectors(), directions(64)
    assert outside.gram_of(words, 2).size == 0 and outside.gram_of(words, 64).shape == (64, 64)
    many, one = pursue(users, words, 5), pursue(users[:1], words, 5)
    np.testing.assert_array_equal(one[0], many[0][:1])
    np.testing.assert_allclose(one[1], many[1][:1], atol=1e-5)


def test_it_codes_the_sum_of_the_tokens():
    quantiser = PursuitQuantiser(1, 32, 6, 5)
    quantiser.table.set_data(ms.Tensor(directions()))
    tokens = vectors(150).reshape(50, 3, 6)
    indices, weights = quantiser.keys(tokens)
    assert indices.shape == (50, 5, 1) and weights.shape == (50, 5) and quantiser.codes_per_user(3) == 5
    found = (quantiser.look_up(indices) * weights[..., None]).sum(1)
    assert np.square(found - tokens.sum(1)).sum() < 0.1 * np.square(tokens.sum(1)).sum()


def test_half_of_the_codewords_are_for_what_the_others_leave_over():
    """Users stand around few centres: two codewords alike could not tell them apart, a centre and a residual can."""
    rng = np.random.default_rng(2)
    centres, offsets = 10 * directions(8, 6, 3), 2 * directions(8, 6, 4)
    rows = centres[rng.integers(0, 8, 2000)] + offsets[rng.integers(0, 8, 2000)]
    quantiser = PursuitQuantiser(1, 16, 6, 4)
    quantiser.start(rows[:, None], 32, 0)
    table = quantiser.tables()[0]
    np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, atol=1e-5)
    to_centres = (table @ (centres / 10).T).max(1)
    assert to_centres[:8].min() > 0.9 and to_centres[8:].mean() < 0.9
    indices, weights = quantiser.keys(rows[:, None])
    left = missed(rows, table, indices[..., 0], weights)
    assert np.square(left).sum() < 0.01 * np.square(rows).sum()


def test_a_start_ends_with_codewords_that_follow_their_users(monkeypatch):
    def left():
        quantiser = PursuitQuantiser(1, 32, 6, 3)
        quantiser.start(vectors(2000)[:, None], 32, 0)
        table = quantiser.tables()[0]
        return np.square(missed(vectors(2000), table, *pursue(vectors(2000), table, 3))).sum()

    followed = left()
    monkeypatch.setattr(pursuit, "ROUNDS", 0)
    assert followed < 0.95 * left()


@pytest.mark.parametrize(
    ("values", "wanted", "chosen"),
    [({}, 1, 12), ({}, 13, 16), ({12: 0.2, 16: 0.3, 24: 0.1}, 99, 16), ({12: 0.2, 16: 0.1, 24: 0.2}, 99, 12)],
)
def test_an_open_number_of_look_ups_is_the_first_that_is_enough_or_the_best(values, wanted, chosen):
    """Judged with the codewords that are made for it."""
    quantiser, tables = PursuitQuantiser(1, 32, 6, None), {}
    assert quantiser.lookups == 12

    def judge(lookups):
        tables[lookups] = quantiser.tables()
        assert quantiser.lookups == quantiser.codes_per_user(1) == lookups
        return values.get(lookups, 0.5), lookups >= wanted

    quantiser.start(vectors(500)[:, None], 32, 0, judge)
    assert quantiser.lookups == chosen and quantiser.keys(vectors()[:, None])[0].shape[1] == chosen
    assert len({table.sum() for table in tables.values()}) == len(tables)
    np.testing.assert_array_equal(quantiser.tables(), tables[chosen])


def test_a_number_that_is_asked_for_is_not_judged():
    quantiser = PursuitQuantiser(1, 32, 6, 5)
    quantiser.start(vectors(500)[:, None], 32, 0, lambda lookups: pytest.fail("judged"))
    assert quantiser.lookups == 5


@pytest.mark.parametrize("words", [1, 2, 3])
def test_few_codewords_and_equal_users_do_no_harm(words):
    quantiser = PursuitQuantiser(1, words, 6, 2)
    quantiser.start(np.ones((9, 1, 6), np.float32), 32, 0)
    assert np.isfinite(quantiser.tables()).all()
    _, weights = quantiser.keys(np.ones((9, 1, 6), np.float32))
    np.testing.assert_allclose(weights.sum(1), 6**0.5, rtol=1e-5)


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ValueError, match="has one codebook, not 2; choose residual or product"):
        PursuitQuantiser(2, 8, 6, 2)
    with pytest.raises(ValueError, match="at least 8 vectors, got 5"):
        PursuitQuantiser(1, 8, 6, 2).start(vectors(5)[:, None], 32, 0)
