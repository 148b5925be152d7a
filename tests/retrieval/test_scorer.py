"""CodeScorer against its formula, written out in float64 with one loop per pair."""

import builtins

import numpy as np
import pytest

from retrieval import CodeScorer, load_scorer, save_scorer
from retrieval.interactions import interaction
from retrieval.kernels import _add_output, _add_relu
from retrieval.scorer import _blas, _one_blas_thread

N_ITEMS, BOOKS, CODEWORDS, E, D = 37, 2, 5, 7, 6


def parts(rng, name="DNN", hidden=(8, 6, 4), **changes):
    """The arguments of a scorer, every weight drawn; hidden: widths of its hidden layers."""

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    settings = {"embedding_size": E, "token_embedding_size": D, "K_i": 2, "interaction_hidden": hidden}
    weights = interaction(name, settings).weights(rng)
    return {
        "name": name,
        "settings": settings,
        "weights": {key: normal(*array.shape) for key, array in weights.items()},
        "items": normal(N_ITEMS, E),
        "codewords": normal(BOOKS, CODEWORDS, D),
        **changes,
    }


def reference(given, code, item):
    w = {key: array.astype(np.float64) for key, array in given["weights"].items()}
    books, codewords, _ = given["codewords"].shape
    digits = [code // codewords ** (books - 1 - m) % codewords for m in range(books)]
    token = sum(given["codewords"][m, c].astype(np.float64) for m, c in enumerate(digits))
    embedding = given["items"][item].astype(np.float64)
    score = token @ w["project.weight"] @ embedding
    if given["name"] == "DNN":
        item_tokens = w["item_heads.weight"] @ embedding + w["item_heads.bias"]
        first = np.concatenate([w["token_half.weight"], w["item_half.weight"]], 1)
        x = np.maximum(first @ np.concatenate([token, item_tokens]) + w["token_half.bias"], 0)
        for depth in range(len(given["settings"]["interaction_hidden"]) - 1):
            x = np.maximum(w[f"deeper.{depth}.weight"] @ x + w[f"deeper.{depth}.bias"], 0)
        score += w["out.weight"][0] @ x + w["out.bias"][0]
    bias = given.get("score_bias")
    return score if bias is None else max(score + bias, 0.0)


def check(given, codes, **options):
    scores = CodeScorer(**given, **options).scores(np.array(codes))
    expected = [[reference(given, code, item) for item in range(len(given["items"]))] for code in codes]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, np.array(expected).reshape(scores.shape), rtol=1e-5, atol=1e-4)
    return scores


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("hidden", [(8, 6, 4), (8, 4), (5,)])
def test_equals_the_formula(rng, hidden, threads):
    check(parts(rng, hidden=hidden), [0, 1, 5, 23, 24, 7, 7], threads=threads)


def test_score_bias_and_relu(rng):
    scores = check(parts(rng, score_bias=-0.5), range(25))
    assert (scores >= 0).all() and (scores == 0).any() and (scores > 0).any()


def test_a_formula_of_array_operations_alone(rng):
    check(parts(rng, "bilinear"), range(25))


def test_blocks_of_items_and_of_tokens(rng, monkeypatch):
    given = parts(rng, hidden=(7, 9))
    monkeypatch.setattr("retrieval.kernels.ITEMS_PER_BLOCK", 16)
    check(given, [0, 24, 17])
    for cache_bytes in (100, 1000):  # parts of a row; a few rows
        monkeypatch.setattr("retrieval.scorer.CACHE_BYTES", cache_bytes)
        for threads in (1, 2):  # of two, each gets half of the items at most
            check(given, [0, 24, 17, 3, 9], threads=threads)
            check(parts(rng, "bilinear"), [0, 24, 17, 3, 9], threads=threads)


def test_many_tokens_are_scored_in_the_same_blocks_by_any_number_of_threads(rng, monkeypatch):
    monkeypatch.setattr("retrieval.scorer.CACHE_BYTES", 20000)
    given = parts(rng, hidden=(7, 9))
    alone, together = (CodeScorer(**given, threads=threads) for threads in (1, 3))
    assert alone._blocks(600) == together._blocks(600)
    assert len(together._blocks(1)) == 3  # and of one token each thread has a part


def test_some_items_are_scored_as_among_all(rng):
    scorer = CodeScorer(**parts(rng, "MoL", (5,)))
    np.testing.assert_allclose(scorer.of(slice(30, None)).scores([3, 9]), scorer.scores([3, 9])[:, 30:], rtol=1e-5)


def test_overlapping_calls_leave_the_threads_of_the_blas_as_they_were():
    blas = _blas()
    before = [each["num_threads"] for each in blas.info()]
    first, second = (_one_blas_thread(True) for _ in range(2))
    for call in (first.__enter__, second.__enter__, lambda: first.__exit__(None, None, None)):
        call()
        assert all(each["num_threads"] == 1 for each in blas.info())
    second.__exit__(None, None, None)
    assert [each["num_threads"] for each in blas.info()] == before


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("name", "bias"), [("DNN", None), ("MoL", None), ("SA", None), ("DNN", -0.5)])
def test_scores_of_pairs_are_those_of_all_items(rng, name, bias, threads):
    scorer = CodeScorer(**parts(rng, name, (5,), score_bias=bias), threads=threads)
    tokens = rng.normal(size=(6, 3, D)).astype(np.float32)
    items = rng.integers(1, N_ITEMS + 1, size=(6, 9))
    every = scorer.token_scores(tokens.reshape(-1, D)).reshape(6, 3, N_ITEMS).sum(1)
    expected = np.take_along_axis(every, items - 1, 1)
    np.testing.assert_allclose(scorer.pair_scores(tokens, items), expected, rtol=1e-5, atol=1e-5)
    for wrong in (0, -2, N_ITEMS + 1):
        with pytest.raises(ValueError, match=f"Item {wrong} is outside"):
            scorer.pair_scores(tokens[:1], np.array([[1, wrong]]))


def test_the_first_codebook_is_the_highest_digit(rng):
    given = parts(rng)
    tokens = CodeScorer(**given).tokens(np.array([7]))  # 7 = 1 * 5 + 2
    np.testing.assert_array_equal(tokens[0], given["codewords"][0, 1] + given["codewords"][1, 2])


def test_no_codes(rng):
    assert CodeScorer(**parts(rng)).scores(np.zeros(0, np.int64)).shape == (0, 37)


def test_works_without_threadpoolctl(rng, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "threadpoolctl":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    _blas.cache_clear()
    check(parts(rng), range(9), threads=2)
    _blas.cache_clear()


@pytest.mark.parametrize("code", [-1, 25, 2**62])
def test_codes_out_of_range_are_refused(rng, code):
    with pytest.raises(ValueError, match=f"Code {code} is outside 0..24"):
        CodeScorer(**parts(rng)).scores(np.array([0, code]))


@pytest.mark.parametrize("codes", [[0.5], [[1]]])
def test_codes_of_another_kind_are_refused(rng, codes):
    with pytest.raises(ValueError, match="one row of integers"):
        CodeScorer(**parts(rng)).scores(np.array(codes))


def test_codes_without_codewords_are_refused(rng):
    scorer = CodeScorer(**parts(rng, codewords=None))
    assert scorer.token_scores(np.ones((2, D), np.float32)).shape == (2, N_ITEMS)
    with pytest.raises(ValueError, match="no codewords"):
        scorer.scores(np.array([0]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("name", "FM", "unknown interaction 'FM'; choose one of dot"),
        ("settings", {"embedding_size": E}, "the interaction DNN needs token_embedding_size, K_i"),
        ("weights", {}, "DNN has the weights"),
        ("items", np.ones((36, 8)), "items has shape"),
        ("items", np.ones((0, E)), "items is empty"),
        ("items", np.full((36, E), np.inf), "not finite"),
        ("codewords", np.ones((2, 5, 3)), "codewords has shape"),
        ("codewords", np.full((2, 5, D), np.nan), "codewords is empty or holds numbers"),
        ("codewords", np.ones((9, 256, D)), "more codes than 64 bits"),
        ("score_bias", np.inf, "score_bias must be a finite number"),
    ],
)
def test_parts_that_do_not_fit_are_refused(rng, name, value, message):
    with pytest.raises(ValueError, match=message):
        CodeScorer(**parts(rng, **{name: value}))


def test_a_weight_of_another_shape_is_refused(rng):
    given = parts(rng)
    for name, array in given["weights"].items():
        with pytest.raises(ValueError, match=f"{name} has shape"):
            CodeScorer(**{**given, "weights": given["weights"] | {name: np.ones((9, *array.shape))}})


def test_relu_does_not_hide_nan(rng):
    """What overflows inside must come out as NaN or inf, for the build to refuse."""
    rows = np.array([[np.nan, 2, -2, np.inf]], np.float32)
    zeros, ones, out = np.zeros(4, np.float32), np.ones(4, np.float32), np.zeros(1, np.float32)
    hidden = np.empty_like(rows)
    _add_relu(rows, zeros, hidden)
    np.testing.assert_array_equal(hidden, [[np.nan, 2, 0, np.inf]])
    _add_output(rows[:, :3].copy(), zeros[:3], ones[:3], out)
    assert np.isnan(out[0])
    assert np.isnan(CodeScorer(**parts(rng, score_bias=0.0)).token_scores(np.full((1, D), np.nan, np.float32))).all()


@pytest.mark.parametrize("codewords", [True, False])
@pytest.mark.parametrize("score_bias", [None, -0.5])
@pytest.mark.parametrize("name", ["DNN", "bilinear"])
def test_a_scorer_that_is_read_back_scores_as_before(rng, tmp_path, name, score_bias, codewords):
    given = parts(rng, name, score_bias=score_bias)
    scorer = CodeScorer(**given if codewords else {**given, "codewords": None})
    save_scorer(scorer, tmp_path / "scorer.npz")
    tokens = rng.normal(size=(9, D)).astype(np.float32)
    again = load_scorer(tmp_path / "scorer.npz")
    np.testing.assert_array_equal(again.token_scores(tokens), scorer.token_scores(tokens))
    if codewords:
        np.testing.assert_array_equal(again.scores(np.arange(25)), scorer.scores(np.arange(25)))
    assert [path.name for path in tmp_path.iterdir()] == ["scorer.npz"]


def test_a_file_that_is_no_scorer_is_refused(rng, tmp_path):
    path = tmp_path / "scorer.npz"
    with pytest.raises(FileNotFoundError):
        load_scorer(path)
    save_scorer(CodeScorer(**parts(rng)), path)
    whole = path.read_bytes()
    with np.load(path) as file:
        stored = dict(file)
    for damaged in (b"", b"no zip", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a saved scorer"):
            load_scorer(path)
    changes = ({"items": np.ones((1, 3))}, {"stranger": 1}, {"weights.stranger": 1}, {"settings": "{"}, {"name": "FM"})
    for change in changes:
        np.savez(path, **{**stored, **change})
        with pytest.raises(ValueError, match="not a saved scorer"):
            load_scorer(path)
    np.savez(path, **{**stored, "version": 1})
    with pytest.raises(ValueError, match="version 1; this program reads version 2"):
        load_scorer(path)
