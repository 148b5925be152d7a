"""The index on an array library: the lists and the answers of the numba path, item by item."""

import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval import (
    ArrayIndex,
    ArrayLibrary,
    CodeScorer,
    IndexRecommender,
    NoGpuError,
    SparseInvertedIndex,
    build_array_index,
    build_index,
    gpu_library,
)
from retrieval.gpu.index import EMPTY, LAST_ID, _decode
from retrieval.interactions import interaction
from retrieval.search import sortable

N_ITEMS, N_CODES = 90, 49
ARRAYS = ("codes", "offsets", "items", "scores", "floors", "cuts", "removed")


@pytest.fixture(params=["numpy", "torch"])
def library(request):
    if request.param != "numpy":
        pytest.importorskip(request.param, reason="torch is not installed: pip install torch")
    return ArrayLibrary(request.param)


def scorer(rng, name="DNN", draw=None, **changes):
    """A scorer with codewords; draw(shape) gives its weights."""
    draw = draw or (lambda shape: rng.standard_normal(shape))
    settings = {"embedding_size": 6, "token_embedding_size": 6, "K_i": 2, "interaction_hidden": (8, 5)}
    weights = {key: draw(array.shape) for key, array in interaction(name, settings).weights(rng).items()}
    return CodeScorer(name, settings, weights, draw((N_ITEMS, 6)), codewords=draw((1, N_CODES, 6)), **changes)


def exact_scorer(rng, **changes):
    """Weights in halves: float32 adds and multiplies them without rounding, and many scores tie."""
    return scorer(rng, draw=lambda shape: rng.integers(-2, 3, shape) / 2, **changes)


def table_scorer(table):
    """The scorer whose score of code c and item i is table[c][i - 1]."""
    table = np.asarray(table, np.float32)
    sizes = {"embedding_size": len(table), "token_embedding_size": len(table)}
    return CodeScorer("dot", sizes, {}, table.T, codewords=np.eye(len(table))[None])


def index_of(table, relu, **options):
    table = np.asarray(table, np.float32)
    read, options = SimpleNamespace(scores=lambda codes: table[codes]), {"relu": relu, **options}
    return build_index(read, range(len(table)), table.shape[1], progress=False, **options)


def histories(rows):
    lengths = [len(row) for row in rows]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return SimpleNamespace(offsets=offsets, values=np.concatenate(rows).astype(np.int32))


def assert_same_answers(index, library, codes, k, seen=None):
    expected = index.recommend(codes, k, seen=seen)
    got = ArrayIndex.of(index, library).recommend(codes, k, seen=seen)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1].view(np.int32), expected[1].view(np.int32))  # every bit
    assert [array.dtype for array in got] == [np.int32, np.float32]


# --- the library


def test_best_is_the_head_of_a_sort(library, rng):
    values = rng.integers(-(2**62), 2**62, (6, 40))
    values[:, :5] = -(2**63)
    for k in (1, 7, 40):
        got = library.get(library.best(library.put(values), k))
        np.testing.assert_array_equal(got, -np.sort(-values.astype(object), axis=1)[:, :k])


def test_products_keep_full_precision_and_the_setting_is_put_back():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    library, before = ArrayLibrary("torch"), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with pytest.raises(KeyError), library.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            raise KeyError
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def stand_in(sees_gpu):
    return SimpleNamespace(__version__="9", cuda=SimpleNamespace(is_available=lambda: sees_gpu))


def test_cupy_that_would_round_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", stand_in(True))
    monkeypatch.setenv("CUPY_TF32", "1")
    with pytest.raises(ValueError, match="unset it"), ArrayLibrary("cupy").full_precision():
        pass


def test_the_first_library_that_sees_a_gpu_is_taken(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", stand_in(False))
    monkeypatch.setitem(sys.modules, "cupy", stand_in(True))
    assert repr(gpu_library()) == "cupy 9 on cuda"
    monkeypatch.setitem(sys.modules, "torch", stand_in(True))
    assert repr(gpu_library()) == "torch 9 on cuda"


def test_without_a_gpu_one_sentence_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", stand_in(False))
    monkeypatch.setitem(sys.modules, "cupy", None)
    told = "torch 9 sees no GPU, cupy is not installed.*pip install torch"
    with pytest.raises(NoGpuError, match=told):
        gpu_library()
    with pytest.raises(ImportError, match="pip install cupy-cuda12x"):
        ArrayLibrary("cupy")
    with pytest.raises(ValueError, match="there are numpy, torch, cupy"):
        ArrayLibrary("jax")


# --- building


@pytest.mark.parametrize("name", ["DNN", "bilinear"])
@pytest.mark.parametrize("score_bias", [None, -0.5])
def test_scores_are_those_of_the_cpu(library, rng, name, score_bias):
    pairs = scorer(rng, name, score_bias=score_bias)
    codes = rng.permutation(N_CODES)
    expected = pairs.scores(codes)
    np.testing.assert_allclose(pairs.on(library).scores(codes), expected, 1e-5, 1e-4)
    library.work_bytes = 3000  # a few pairs at a time: not even all items of one code
    np.testing.assert_allclose(pairs.on(library).scores(codes), expected, 1e-5, 1e-4)


@pytest.mark.parametrize("work_bytes", [None, 2000])  # all codes at once, one at a time
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_postings": 9},
        {"max_postings": N_ITEMS},
        {"keep_share": 0.2},
        {"keep_share": 0.4, "max_postings": 20},
    ],
    ids=str,
)
@pytest.mark.parametrize("score_bias", [None, -1.0])
def test_lists_floors_and_cuts_are_those_of_the_cpu(library, rng, score_bias, options, work_bytes):
    library.work_bytes = work_bytes or library.work_bytes
    pairs, codes = exact_scorer(rng, score_bias=score_bias), rng.permutation(N_CODES)[:40]
    options = {"relu": score_bias is not None, "progress": False, **options}
    expected = build_index(pairs, codes, N_ITEMS, **options)
    got = build_array_index(pairs.on(library), codes, **options)
    assert type(got) is SparseInvertedIndex and got.pruning == expected.pruning and len(got.items)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)


def test_floors_of_large_scores_are_means_without_rounding(library, rng):
    """float32 can hold these scores and not their sum."""
    pairs = table_scorer(2.0**19 + rng.integers(0, 2**19, (N_CODES, N_ITEMS)))
    options = {"relu": False, "max_postings": 9, "progress": False}
    expected = build_index(pairs, range(N_CODES), N_ITEMS, **options)
    got = build_array_index(pairs.on(library), range(N_CODES), **options)
    np.testing.assert_array_equal(got.floors, expected.floors)


def test_rows_that_are_cut_whole_or_not_at_all(library):
    """Equal scores (of code 0) have no posting under a cap; a threshold below a row (of code 1) leaves it whole."""
    half_flat, steep = [[2, 2, 2], [3, 4, 5]], [[2, 3, 4], [3, 4, 5]]
    for table, options in ((half_flat, {"max_postings": 2}), (steep, {"keep_share": 0.5})):
        pairs = table_scorer(table)
        options = {"relu": False, "progress": False, **options}
        expected = build_index(pairs, [0, 1], 3, **options)
        got = build_array_index(pairs.on(library), [0, 1], **options)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(got, name), getattr(expected, name), err_msg=name)


def test_an_index_of_no_codes(library, rng):
    with pytest.raises(ValueError, match="no codes to build an index of"):
        build_array_index(scorer(rng).on(library), [], relu=False, progress=False)


def test_an_index_of_nothing_is_refused(library, rng):
    silent = scorer(rng, score_bias=-1e6).on(library)
    with pytest.raises(ValueError, match="the score_bias silences all items"):
        build_array_index(silent, range(N_CODES), relu=True, progress=False)


def test_bad_scores_are_refused_as_on_the_cpu(library, rng):
    plain = scorer(rng).on(library)
    with pytest.raises(ValueError, match="must return ReLU"):
        build_array_index(plain, range(N_CODES), relu=True, progress=False)
    huge = table_scorer([np.where(np.arange(N_ITEMS) == 4, 2e30, 0)])
    with pytest.raises(ValueError, match="score of code 0 and item 5 is"):
        build_array_index(huge.on(library), [0], relu=False, progress=False)


# --- searching


@pytest.mark.parametrize("work_bytes", [None, 5000])  # all queries at once, one at a time
@pytest.mark.parametrize("k", [1, 7, N_ITEMS])
@pytest.mark.parametrize("relu", [True, False])
def test_answers_are_those_of_the_cpu_to_the_bit(library, rng, relu, k, work_bytes):
    library.work_bytes = work_bytes or library.work_bytes
    table = rng.normal(-1, 2, (30, N_ITEMS))
    table[:10] = rng.integers(-8, 8, (10, N_ITEMS)) / 8  # sums without rounding, many of them equal
    if relu:
        table = np.maximum(table, 0)
    codes = rng.integers(0, 30, (70, 4))
    codes[:10, 1:] = codes[:10, :1]  # one code four times
    codes[10:20, 2] = codes[10:20, 0]
    codes[20:40] = rng.integers(0, 10, (20, 4))
    seen = histories([rng.choice(N_ITEMS + 1, rng.integers(0, 60)) for _ in codes])  # 0 is padding
    for index in (index_of(table, relu), index_of(table, relu, max_postings=12)):
        assert_same_answers(index, library, codes, k)
        assert_same_answers(index, library, codes, k, seen)


def test_equal_scores_go_to_the_lower_id(library, rng):
    """On the totals: a large floor rounds many different sums to the same float32."""
    table = (rng.normal(0, 1e-3, (12, 400)) - 1000).astype(np.float32)
    index, codes = index_of(table, relu=False), rng.integers(0, 12, (40, 4))
    assert (np.diff(index.recommend(codes, 50)[1]) == 0).any()
    assert_same_answers(index, library, codes, 50)
    assert_same_answers(index, library, codes, 400)


def test_few_postings_leave_slots_empty(library):
    table = np.array([[0, 2, 0, 1], [0, 0, 0, 0]], np.float32)
    index = ArrayIndex.of(index_of(table, relu=True), library)
    ids, scores = index.recommend([[0, 1], [1, 1], [0, 0]], 4, seen=histories([[], [], [2]]))
    np.testing.assert_array_equal(ids, [[2, 4, 0, 0], [0, 0, 0, 0], [4, 0, 0, 0]])
    np.testing.assert_array_equal(scores[:, 0], [2, -np.inf, 2])
    assert index.recommend(np.zeros((0, 2), int), 2)[0].shape == (0, 2)


def test_keys_order_as_scores_and_ids_do(rng):
    """All the way to the largest id and through negative numbers; the decoder returns both."""
    scores = np.concatenate([[0.0, 1e-45, -1e-45, 4e30, -4e30], rng.normal(size=95)])
    scores = np.repeat(scores.astype(np.float32), 3)
    ids = np.tile([1, 2**31 - 2, 77], 100)
    keys = sortable(scores.view(np.int32)).astype(np.int64) * 2**32 + (LAST_ID - ids)
    order = np.argsort(-keys)
    np.testing.assert_array_equal(order, np.lexsort((ids, -scores)))
    got_ids, got_scores = np.zeros((1, 301), np.int32), np.zeros((1, 301), np.float32)
    _decode(np.append(keys, EMPTY)[None], got_ids, got_scores)
    np.testing.assert_array_equal(got_ids[0], [*ids, 0])
    np.testing.assert_array_equal(got_scores[0], [*scores, -np.inf])


@pytest.mark.parametrize(
    ("codes", "seen", "k", "message"),
    [
        ([[0], [3]], None, 1, "Query 1 holds code 3, which is not in the index"),
        ([[0], [-2]], None, 1, "Query 1 holds code -2"),
        ([[0], [3]], [[9], []], 1, "history of query 0 holds item 9"),
        ([[0], [1]], [[], [-2]], 1, "history of query 1 holds item -2"),
        ([[0.5]], None, 1, "must be integers"),
        ([[0]], None, 5, "k must be a whole number"),
    ],
)
def test_errors_are_those_of_the_cpu(library, codes, seen, k, message):
    index = ArrayIndex.of(index_of(np.eye(3, 4), relu=True), library)
    with pytest.raises(ValueError, match=message):
        index.recommend(codes, k, seen=None if seen is None else histories(seen))


def test_an_index_without_codes_has_no_answers(library):
    with pytest.raises(ValueError, match="holds code 0"):
        ArrayIndex.of(index_of(np.eye(4), relu=True).only([]), library).recommend([[0]], 1)


def test_changed_indexes_stay_on_the_device(library, rng, tmp_path):
    table, codes = np.maximum(rng.normal(size=(20, 40)), 0), rng.integers(0, 20, (30, 3))
    plain = index_of(table, relu=True)
    index = ArrayIndex.of(plain, library)
    for change in (lambda one: one.prune(max_postings=5), lambda one: one.remove_items([3, 4, 5])):
        changed = change(index)
        assert isinstance(changed, ArrayIndex) and changed.library is library
        expected = change(plain).recommend(codes, 9)
        np.testing.assert_array_equal(changed.recommend(codes, 9)[0], expected[0])
    index.save(tmp_path / "index")
    loaded = ArrayIndex.of(SparseInvertedIndex.load(tmp_path / "index"), library)
    np.testing.assert_array_equal(loaded.recommend(codes, 9)[1], plain.recommend(codes, 9)[1])
    with pytest.raises(ValueError, match="this index is uint8"):
        ArrayIndex.of(plain.compact("uint8"), library)


def test_codes_that_a_build_did_not_foresee(library, rng):
    """As a run asks: missing codes scored by the array scorer, answers by the array index."""
    pairs = exact_scorer(rng)
    options = {"relu": False, "max_postings": 15, "progress": False}
    whole = build_index(pairs, range(N_CODES), N_ITEMS, **options)
    some = pairs.on(library)
    part = ArrayIndex.of(build_array_index(some, range(0, N_CODES, 2), **options), library)
    codes, seen = rng.integers(0, N_CODES, (20, 3)), histories([[1, 2]] * 20)
    queries = SimpleNamespace(codes=codes, histories=seen)
    recommender = IndexRecommender(part, lambda asked: asked.codes, some)
    got = recommender.recommend(queries, 10)
    expected = whole.recommend(codes, 10, seen=seen)
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    assert recommender.scored_codes > 0 and isinstance(recommender.index, ArrayIndex)


def peak_bytes(work):
    tracemalloc.start()
    work()
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest


def test_batches_of_queries_stay_within_the_work_bytes(rng):
    library = ArrayLibrary("numpy")
    library.work_bytes = 4 << 20
    index = ArrayIndex.of(index_of(rng.random((64, 3000)) + 0.5, relu=True), library)
    codes = rng.integers(0, 64, (400, 4))  # of which a batch takes five
    assert 2 << 20 < peak_bytes(lambda: index.recommend(codes, 5)) < 4 << 20


def test_blocks_of_pairs_stay_within_the_work_bytes(rng):
    library = ArrayLibrary("numpy")
    library.work_bytes = 4 << 20
    pairs = scorer(rng).on(library)
    codes = np.tile(np.arange(N_CODES), 40)  # 17 MB of hidden units
    scores = 4 * codes.size * N_ITEMS
    assert 2 << 20 < peak_bytes(lambda: pairs.scores(codes)) - scores < 4 << 20


def test_the_benchmark_runs_and_both_paths_agree():
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "array_backend.py"
    sizes = "--items 300 --codes 20 --build_codes 2 --numba_codes 2 --batch 9 --square 64"
    small = f"--on numpy {sizes} --seconds 0.01 --rounds 1".split()
    command = [sys.executable, str(script), *small]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "build, array" in done.stdout and "\n300 " in done.stdout
