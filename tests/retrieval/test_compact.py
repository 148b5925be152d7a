"""A compact index answers exactly what its rounded scores say, and says how far they are off."""

import re

import numpy as np
import pytest

from retrieval import (
    CompactIndex,
    IndexFileError,
    IndexRecommender,
    ShardedIndex,
    SparseInvertedIndex,
    build_index,
    bytes_of,
    load_index,
    overlap,
)

FORMATS = ["uint16", "uint8"]
LEVELS = {"uint16": 65535, "uint8": 255}


class Table:
    def __init__(self, table):
        self.table = table

    def scores(self, codes):
        return self.table[codes]


def build(table, relu=True, **options):
    table = np.asarray(table, np.float32)
    return build_index(Table(table), np.arange(len(table)), table.shape[1], relu=relu, progress=False, **options)


def random_index(rng, n_codes, n_items, per_code, lowest=0):
    """Lists across many blocks of items, some of them empty."""
    lists = [
        np.sort(rng.choice(np.arange(lowest, n_items), rng.integers(0, per_code), False)) + 1 for _ in range(n_codes)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
    scores = rng.gamma(2, 1, offsets[-1]).astype(np.float32) + np.float32(1e-3)
    floors = rng.normal(size=n_codes).astype(np.float32)
    items = np.concatenate(lists).astype(np.uint32)
    return SparseInvertedIndex(np.arange(n_codes), offsets, items, scores, floors, n_items)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n_items", [1, 9, 700, 3000, 65_534, 65_535, 65_536, 65_537, 300_000])
def test_answers_are_those_of_the_rounded_scores(rng, format, n_items):
    index = random_index(rng, 30, n_items, min(n_items, 500) + 1, max(0, n_items - 200_000))
    compact = index.compact(format)
    decoded = compact.decode()
    for name in ("codes", "offsets", "items", "floors", "cuts"):
        np.testing.assert_array_equal(getattr(decoded, name), getattr(index, name))
    codes = rng.integers(0, 30, (90, 4))
    codes[:20, 1:] = codes[:20, :1]
    for k in {1, min(n_items, 50), min(n_items, 800)}:
        for a, b in zip(compact.recommend(codes, k), decoded.recommend(codes, k), strict=True):
            np.testing.assert_array_equal(a, b)
    asked = rng.integers(1, n_items + 1, (90, 20))
    listed, stored, floor = decoded.posting_list(codes[0, 0])
    asked[0] = rng.choice(np.append(listed, n_items), 20)
    shares = compact.explain(codes, asked)
    np.testing.assert_array_equal(shares, decoded.explain(codes, asked))
    wanted = np.zeros(n_items + 1)
    wanted[listed] = stored
    np.testing.assert_array_equal(shares[0, :, 0], wanted[asked[0]] + np.float64(floor))


@pytest.mark.parametrize("format", FORMATS)
def test_a_list_of_much_of_the_catalogue_is_a_row_of_it(rng, format):
    index = random_index(rng, 30, 300, 300).remove_items([7])
    compact = index.compact(format)
    share = {"uint16": 2, "uint8": 3}[format]
    np.testing.assert_array_equal(compact.dense, index.lengths() * share > 300)
    assert 5 < compact.dense.sum() < 25
    np.testing.assert_array_equal(compact.lengths(), index.lengths())
    for code in range(30):
        items, scores, floor = index.posting_list(code)
        held, rounded, same_floor = compact.posting_list(code)
        np.testing.assert_array_equal(held, items)
        np.testing.assert_allclose(rounded, scores, atol=compact.statistics()["score_error"] * 1.001 + 1e-6)
        assert floor == same_floor
    queries, weights = rng.integers(0, 30, (40, 3)), rng.random((40, 3), np.float32)
    ids, sums = compact.recommend(queries, 5, weights=weights)
    np.testing.assert_allclose(compact.explain(queries, ids, weights).sum(2), sums, rtol=1e-5, atol=1e-5)
    assert not (ids == 7).any()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("longest", [500, 3000])
def test_no_score_is_off_by_more_than_half_a_step(rng, format, longest):
    index = random_index(rng, 30, 3000, longest)
    compact = index.compact(format)
    rounded = compact.decode().scores
    for row in range(30):
        part = slice(index.offsets[row], index.offsets[row + 1])
        scores = index.scores[part]
        if len(scores):
            half = (scores.max() - scores.min()) / (LEVELS[format] - compact.dense[row]) / 2
            assert np.abs(rounded[part] - scores).max() <= half * 1.001 + 1e-6
    worst = np.abs(rounded - index.scores).max()
    assert worst <= compact.statistics()["score_error"] * 1.001 + 1e-6


@pytest.mark.parametrize("format", FORMATS)
def test_lists_of_one_or_equal_scores_are_not_rounded(format):
    index = build([[0, 3, 0], [0.1, 0.1, 0.1], [0, 0, 0], [1e-20, 0, 1e20]])
    decoded = index.compact(format).decode()
    np.testing.assert_array_equal(decoded.scores, index.scores)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n_items", [40, 70_000, 200_000])
def test_bytes_are_as_announced(rng, format, n_items):
    index = random_index(rng, 20, n_items, 30).remove_items([5, 6])
    compact = index.compact(format)
    lengths = index.lengths()
    assert index.statistics()["bytes"] == bytes_of(lengths, n_items, n_removed=2)
    assert compact.statistics()["bytes"] == bytes_of(lengths, n_items, format, n_removed=2)
    assert compact.statistics()["format"] == format
    without = {"bytes", "format", "score_error"}
    kept = {k: v for k, v in index.statistics().items() if k not in without}
    assert {k: v for k, v in compact.statistics().items() if k not in without} == kept


def test_overlap_by_hand():
    exact = build([[5, 4, 3, 2, 1, 0], [1, 2, 3, 4, 5, 0], [0, 0, 0, 0, 0, 0]])
    other = build([[5, 3, 4, 2, 1, 0], [5, 4, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    found = overlap(exact, other, [[0], [1], [2]], 2)
    assert found["overlap"] == pytest.approx((1 / 2 + 0 + 1) / 3)
    found = overlap(exact, other, [[0], [1]], 3)
    assert found == {
        "queries": 2,
        "k": 3,
        "overlap": pytest.approx((1 + 1 / 3) / 2),
        "overlap_min": pytest.approx(1 / 3),
        "same_items": 0.5,
        "same_order": 0.0,
        "score_error": 0.0,
    }
    same = overlap(exact, exact, [[0], [1], [2]], 6)
    assert same["overlap"] == same["same_order"] == 1 and same["score_error"] == 0
    with pytest.raises(ValueError, match="without queries"):
        overlap(exact, other, np.zeros((0, 1), int), 2)


def test_the_loss_is_small_and_reported(rng):
    index = random_index(rng, 200, 3000, 1500)
    codes = rng.integers(0, 200, (300, 4))
    fine, coarse = (overlap(index, index.compact(format), codes, 50) for format in FORMATS)
    assert fine["overlap"] >= 0.999 and 0.95 <= coarse["overlap"] <= fine["overlap"]
    assert fine["score_error"] < coarse["score_error"]
    for report, format in ((fine, "uint16"), (coarse, "uint8")):
        assert report["score_error"] <= 4.01 * index.compact(format).statistics()["score_error"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.5])  # of the items in a list; by halves, some are dense rows
def test_extend_equals_compacting_the_whole(rng, format, share):
    table = np.maximum(rng.random((12, 70_000)) - 1 + share, 0).astype(np.float32)
    some, more = np.array([1, 4, 5, 11]), np.array([0, 2, 7])
    parts = [build_index(Table(table), codes, 70_000, relu=True, progress=False) for codes in (some, more)]
    whole = parts[0].extend(parts[1]).compact(format)
    for other in (parts[1], parts[1].compact(format)):
        both = parts[0].compact(format).extend(other)
        for name in whole.dtypes:
            np.testing.assert_array_equal(getattr(both, name), getattr(whole, name))
    shrunk = parts[0].remove_items([3, 69_999]).compact(format).extend(parts[1])
    assert not np.isin([3, 69_999], shrunk.recommend([[0, 1, 2]], 70_000)[0]).any()
    with pytest.raises(ValueError, match="can't be extended by a"):
        whole.extend(parts[0].compact("uint8" if format == "uint16" else "uint16"))
    with pytest.raises(ValueError, match="Both indexes hold code"):
        whole.extend(parts[0])


@pytest.mark.parametrize("format", ["float32", *FORMATS])
@pytest.mark.parametrize("n_items", [40, 200_000])
def test_the_lists_of_some_codes_answer_as_the_whole_does(rng, format, n_items):
    whole = random_index(rng, 30, n_items, min(n_items, 400)).remove_items([3, 8])
    whole = whole if format == "float32" else whole.compact(format)
    some = whole.only([7, 2, 19, 7, 99])
    assert some.codes.tolist() == [2, 7, 19] and some.format == format and some.removed.tolist() == [3, 8]
    queries = rng.choice([2, 7, 19], (20, 4))
    for got, expected in zip(some.recommend(queries, 25), whole.recommend(queries, 25), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert len(whole.only([])) == 0


def test_a_recommender_scores_missing_codes_into_a_compact_index(rng):
    table = np.maximum(rng.normal(size=(8, 50)), 0).astype(np.float32)
    index = build_index(Table(table), [0, 1], 50, relu=True, progress=False).compact("uint16")
    recommender = IndexRecommender(index, lambda codes: codes, Table(table))
    got = recommender.recommend(np.array([[0, 5]]), 9, exclude_seen=False)
    expected = build(table).compact("uint16").recommend([[0, 5]], 9)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_compact_shards_answer_as_one(rng):
    index = random_index(rng, 20, 3000, 500).compact("uint8").decode()
    codes = rng.integers(0, 20, (30, 3))
    shards = ShardedIndex([shard.compact("uint16") for shard in index.shard(3)])
    assert overlap(index, shards, codes, 50)["overlap"] > 0.99


def same(a, b):
    return (a.n_items, a.pruning, a.format) == (b.n_items, b.pruning, b.format) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in a.dtypes
    )


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("format", FORMATS)
def test_roundtrip(rng, tmp_path, format, mmap):
    index = random_index(rng, 20, 70_000, 300).remove_items([9])
    compact = index.compact(format)
    compact.save(tmp_path / "compact")
    loaded = load_index(tmp_path / "compact", mmap)
    assert isinstance(loaded, CompactIndex) and same(loaded, compact)
    index.save(tmp_path / "exact")
    assert same(load_index(tmp_path / "exact", mmap), index)
    with pytest.raises(IndexFileError, match=f"posting format '{format}', not 'float32'"):
        SparseInvertedIndex.load(tmp_path / "compact")
    with pytest.raises(FileNotFoundError):
        load_index(tmp_path)


def test_damaged_compact_files_are_refused(rng, tmp_path):
    compact = random_index(rng, 5, 70_000, 30).compact("uint8")
    compact.save(tmp_path / "index")
    for name in compact.dtypes:
        path = tmp_path / "index" / f"{name}.npy"
        raw = path.read_bytes()
        for damaged in (raw[:-1], raw + b"0", bytes(len(raw)), raw[:-1] + bytes([raw[-1] ^ 1])):
            path.write_bytes(damaged)
            with pytest.raises(IndexFileError):
                load_index(tmp_path / "index")
        path.write_bytes(raw)
    assert same(load_index(tmp_path / "index"), compact)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("items", lambda a: a[::-1], "ids don't ascend"),
        ("items", lambda a: a * np.uint16(0), "outside the catalogue"),
        ("items", lambda a: a + np.uint16(60_000), "outside the catalogue"),
        ("items", lambda a: a.astype(np.uint32), "one row of uint16"),
        ("scores", lambda a: a.astype(np.float32), "are uint16 or uint8"),
        ("offsets", lambda a: a[::2].copy(), "fit together in length"),
        ("lows", lambda a: a * 0, "not a positive number"),
        ("lows", lambda a: a * np.float32(np.nan), "not a positive number"),
        ("lows", lambda a: a[:-1], "fit together in length"),
        ("steps", lambda a: a - 1, "not a positive number"),
        ("steps", lambda a: a * np.float32(np.inf), "not a positive number"),
        ("steps", lambda a: a + np.float32(1e30), "not a positive number"),
        ("dense", lambda a: a * np.uint8(0), "don't fit its codes"),
        ("dense", lambda a: a * np.uint8(2), "don't fit its codes"),
        ("dense", lambda a: a[::-1], "both a dense row and not"),
        ("table", lambda a: a[:-1], "don't fit its codes"),
        ("table", lambda a: a + np.uint16(1), "holds an item that was removed"),
        ("table", lambda a: a.astype(np.uint8), "one row of uint16"),
    ],
)
def test_arrays_that_are_no_compact_index_are_refused(name, change, message):
    table = np.arange(1, 19).reshape(3, 6) * [[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]]
    index = build(table).remove_items([4]).compact("uint16")  # the last list is a dense row
    arrays = {one: getattr(index, one) for one in index.dtypes}
    assert len(CompactIndex(**arrays, n_items=6)) == 3
    with pytest.raises(ValueError, match=message):
        CompactIndex(**{**arrays, name: change(arrays[name])}, n_items=6)


def test_unknown_formats_are_refused():
    for format in ("uint4", "float32", None):
        with pytest.raises(ValueError, match=re.escape(f"Unknown compact format {format!r}")):
            build([[1, 2]]).compact(format)
    with pytest.raises(ValueError, match="Unknown posting format"):
        bytes_of([1], 1, "float16")


@pytest.mark.parametrize(("n_items", "per_code"), [(70_000, 12), (60, 40)])
def test_fuzz_of_compact_arrays_never_gets_past_the_checks_unsound(rng, n_items, per_code):
    """Random numbers in place of any array: refused, or an index that answers within bounds."""
    good = random_index(rng, 6, n_items, per_code).compact("uint8")
    assert good.dense.any() == (n_items == 60)
    arrays = {one: getattr(good, one) for one in good.dtypes}
    refused = 0
    for trial in range(300):
        name = list(arrays)[trial % len(arrays)]
        old = arrays[name]
        wild = rng.integers(0, 256, old.nbytes, np.uint8).view(old.dtype)
        some = np.where(rng.random(old.size) < 0.3, wild, old).astype(old.dtype)
        try:
            index = CompactIndex(**{**arrays, name: some}, n_items=n_items)
        except ValueError:
            refused += 1
            continue
        ids, scores = index.recommend(index.codes[None, :], 50)
        assert ids.min() >= 0 and ids.max() <= n_items and not np.isnan(scores).any()
        assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert 100 < refused < 300
