"""PairScorer against its formula, written out in float64 with one loop per pair."""

import builtins

import numpy as np
import pytest

from retrieval import PairScorer, load_scorer, save_scorer
from retrieval.scorer import _add_output, _add_relu, _blas


def relu(x):
    return np.maximum(x, 0)


def weights(rng, n_items=37, books=2, codewords=5, width=6, hidden=(8, 6, 4), rank=3):
    """Everything a scorer can have; hidden: widths of its hidden layers."""

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "codewords": normal(books, codewords, width),
        "token_hidden_weight": normal(hidden[0], width),
        "token_hidden_bias": normal(hidden[0]),
        "item_hidden": normal(n_items, hidden[0]),
        "layers": [(normal(b, a), normal(b)) for a, b in zip(hidden, hidden[1:], strict=False)],
        "out_weight": normal(hidden[-1]),
        "out_bias": 0.25,
        "token_dot": (normal(rank, width), normal(rank)),
        "item_dot": normal(n_items, rank),
        "item_bias": normal(n_items),
        "score_bias": None,
    }


HIDDEN = ("token_hidden_weight", "token_hidden_bias", "item_hidden", "layers", "out_weight")


def reference(w, code, item):
    books, codewords, _ = w["codewords"].shape
    digits = [code // codewords ** (books - 1 - m) % codewords for m in range(books)]
    z = sum(w["codewords"][m, c].astype(np.float64) for m, c in enumerate(digits))
    score = w["out_bias"]
    if "token_hidden_weight" in w:
        h = relu(w["token_hidden_weight"] @ z + w["token_hidden_bias"] + w["item_hidden"][item])
        for weight, bias in w["layers"]:
            h = relu(weight @ h + bias)
        score += w["out_weight"] @ h
    if "token_dot" in w:
        score += (w["token_dot"][0] @ z + w["token_dot"][1]) @ w["item_dot"][item]
    if w.get("item_bias") is not None:
        score += w["item_bias"][item]
    return score if w["score_bias"] is None else max(score + w["score_bias"], 0.0)


def check(w, codes, **options):
    scores = PairScorer(**w, **options).scores(np.array(codes))
    n_items = len(w["item_hidden"] if "item_hidden" in w else w["item_dot"])
    expected = [[reference(w, code, item) for item in range(n_items)] for code in codes]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.array(expected).reshape(scores.shape), atol=2e-5)
    return scores


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("hidden", [(8, 6, 4), (8, 4), (5,)])
def test_equals_the_formula(rng, hidden, threads):
    check(weights(rng, hidden=hidden), [0, 1, 5, 23, 24, 7, 7], threads=threads)


def test_score_bias_and_relu(rng):
    scores = check({**weights(rng), "score_bias": -0.5}, range(25))
    assert (scores >= 0).all() and (scores == 0).any() and (scores > 0).any()


def test_hidden_part_alone(rng):
    w = weights(rng)
    for name in ("token_dot", "item_dot", "item_bias"):
        del w[name]
    check(w, range(25))


def test_dot_part_alone_and_item_bias(rng):
    w = {name: value for name, value in weights(rng).items() if name not in HIDDEN}
    check(w, range(25))
    check({**w, "item_bias": None}, range(25))


def test_more_items_than_a_block_and_odd_shapes(rng, monkeypatch):
    monkeypatch.setattr("retrieval.scorer.ITEMS_PER_BLOCK", 16)
    check(weights(rng, n_items=50, books=3, codewords=4, hidden=(7, 9)), [0, 63, 17])


def test_the_first_codebook_is_the_highest_digit(rng):
    w = weights(rng, books=2, codewords=5)
    tokens = PairScorer(**w).tokens(np.array([7]))  # 7 = 1 * 5 + 2
    np.testing.assert_array_equal(tokens[0], w["codewords"][0, 1] + w["codewords"][1, 2])


def test_no_codes(rng):
    assert PairScorer(**weights(rng)).scores(np.zeros(0, np.int64)).shape == (0, 37)


def test_works_without_threadpoolctl(rng, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "threadpoolctl":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    _blas.cache_clear()
    check(weights(rng), range(9), threads=2)
    _blas.cache_clear()


@pytest.mark.parametrize("code", [-1, 25, 2**62])
def test_codes_out_of_range_are_refused(rng, code):
    with pytest.raises(ValueError, match=f"Code {code} is outside 0..24"):
        PairScorer(**weights(rng)).scores(np.array([0, code]))


@pytest.mark.parametrize("codes", [[0.5], [[1]]])
def test_codes_of_another_kind_are_refused(rng, codes):
    with pytest.raises(ValueError, match="one row of integers"):
        PairScorer(**weights(rng)).scores(np.array(codes))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("item_hidden", np.ones((36, 8)), None),
        ("item_dot", np.ones((36, 3)), "item_dot has shape"),
        ("item_bias", np.ones(36), "item_bias has shape"),
        ("token_hidden_weight", np.ones((8, 7)), "token_hidden_weight has shape"),
        ("layers", [(np.ones((6, 9)), np.ones(6))], "weight of hidden layer 2 has shape"),
        ("out_weight", np.ones(5), "out_weight has shape"),
        ("out_weight", None, "needs its first layer"),
        ("token_dot", None, "token_dot and item_dot together"),
        ("codewords", np.full((2, 5, 3), np.nan), "codewords is empty or holds numbers"),
        ("item_hidden", np.full((37, 8), np.inf), "not finite"),
        ("out_bias", np.nan, "out_bias must be a finite number"),
        ("score_bias", np.inf, "score_bias must be a finite number"),
        ("codewords", np.ones((9, 256, 3)), "more codes than 64 bits"),
    ],
)
def test_weights_that_do_not_fit_are_refused(rng, name, value, message):
    with pytest.raises(ValueError, match=message):
        PairScorer(**{**weights(rng), name: value})


def test_neither_part_is_refused(rng):
    with pytest.raises(ValueError, match="a hidden part, a dot part, or both"):
        PairScorer(weights(rng)["codewords"])


def test_flops_per_pair(rng):
    w = weights(rng, hidden=(8, 6, 4), rank=3)
    assert PairScorer(**w).flops_per_pair == 2 * (8 * 6 + 6 * 4 + 4 + 3)


def test_relu_does_not_hide_nan():
    """What overflows inside must come out as NaN or inf, for the build to refuse."""
    rows = np.array([[np.nan, 2, -2, np.inf]], np.float32)
    zeros, ones, out = np.zeros(4, np.float32), np.ones(4, np.float32), np.zeros(1, np.float32)
    hidden = np.empty_like(rows)
    _add_relu(rows, zeros, hidden)
    np.testing.assert_array_equal(hidden, [[np.nan, 2, 0, np.inf]])
    _add_output(rows[:, :3].copy(), zeros[:3], ones[:3], out)
    assert np.isnan(out[0])


@pytest.mark.parametrize("without", [(), HIDDEN, ("token_dot", "item_dot"), ("codewords", "item_bias")])
@pytest.mark.parametrize("score_bias", [None, -0.5])
def test_a_scorer_that_is_read_back_scores_as_before(rng, tmp_path, without, score_bias):
    w = {name: part for name, part in weights(rng).items() if name not in without}
    scorer = PairScorer(**{**w, "score_bias": score_bias})
    save_scorer(scorer, tmp_path / "scorer.npz")
    tokens = rng.normal(size=(9, 6)).astype(np.float32)
    again = load_scorer(tmp_path / "scorer.npz")
    np.testing.assert_array_equal(again.token_scores(tokens), scorer.token_scores(tokens))
    if "codewords" in w:
        np.testing.assert_array_equal(again.scores(np.arange(25)), scorer.scores(np.arange(25)))
    assert [path.name for path in tmp_path.iterdir()] == ["scorer.npz"]


def test_a_file_that_is_no_scorer_is_refused(rng, tmp_path):
    path = tmp_path / "scorer.npz"
    with pytest.raises(FileNotFoundError):
        load_scorer(path)
    save_scorer(PairScorer(**weights(rng)), path)
    whole = path.read_bytes()
    with np.load(path) as file:
        parts = dict(file)
    for damaged in (b"", b"no zip", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a saved scorer"):
            load_scorer(path)
    for change in ({"version": 2}, {"item_dot": np.ones((1, 3))}, {"stranger": 1}):
        np.savez(path, **{**parts, **change})
        with pytest.raises(ValueError, match="not a saved scorer"):
            load_scorer(path)
