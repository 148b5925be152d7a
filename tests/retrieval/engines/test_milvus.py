"""Milvus gives the answers of the index, item by item, or refuses to serve."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import metric
from retrieval import IndexRecommender, ShardedIndex, SparseInvertedIndex
from retrieval.engines import milvus
from retrieval.engines.milvus import MilvusIndex, load_into_milvus

N_ITEMS = 60


@pytest.fixture
def load(tmp_path):
    """load(index, ...) -> MilvusIndex in a new file; all of them are closed in the end."""
    opened = []

    def load(index, uri=None, **options):
        opened.append(load_into_milvus(index, uri or f"{tmp_path}/{len(opened)}.db", progress=False, **options))
        return opened[-1]

    yield load
    for one in opened:
        one.close()


def table_index(table, floors, codes=None):
    """The index of scores float32 [C, n_items] above their floors, 0 being no posting."""
    lengths = (table > 0).sum(1)
    codes = np.arange(len(table)) * 7 + 3 if codes is None else codes
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = (np.nonzero(table)[1] + 1).astype(np.uint32)
    floors = np.asarray(floors, np.float32)
    return SparseInvertedIndex(codes, offsets, items, table[table > 0], floors, table.shape[1])


@pytest.fixture
def index(rng):
    """Sixteenths, which any order of additions sums up alike; many are equal; 5 items have no posting."""
    table = np.where(rng.random((25, N_ITEMS)) < 0.3, rng.integers(1, 20, (25, N_ITEMS)) / 16, 0).astype(np.float32)
    table[:, [0, 7, 30, 31, 59]] = 0
    return table_index(table, rng.integers(-40, 8, 25) / 16, np.arange(25) * 10**12)


def histories(rows):
    offsets = np.cumsum([0, *map(len, rows)])
    return SimpleNamespace(offsets=offsets, values=np.array([item for row in rows for item in row], np.int32))


def some_queries(rng, index, n=20, tokens=4):
    codes = rng.choice(index.codes, (n, tokens))
    codes[: n // 3, 1] = codes[: n // 3, 0]
    seen = [rng.integers(0, index.n_items + 1, rng.integers(0, 30)) for _ in codes]
    return codes, histories(seen)


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_answers_are_those_of_the_index_bit_by_bit(rng, index, load, monkeypatch):
    monkeypatch.setattr(milvus, "QUERIES_PER_REQUEST", 7)
    codes, seen = some_queries(rng, index)
    for one in (index, index.remove_items([2, 3, 50])):
        served = load(one)
        for k in (1, 10, N_ITEMS):
            for history in (None, seen):
                expected = one.recommend(codes, k, seen=history)
                assert_same(served.recommend(codes, k, seen=history), expected)
        assert (served.recommend(codes[:0], 3)[0]).shape == (0, 3)
    assert (expected[0] == 0).any()  # for k = all items, some queries found fewer


def test_of_equal_scores_the_lowest_ids_win(load, monkeypatch):
    table = np.full((2, 300), 0.5, np.float32)
    table[1, 250] = 0.75
    index = table_index(table, [0, 0])
    served = load(index)
    limits = []
    search = served._store.search
    monkeypatch.setattr(served._store, "search", lambda q, limit: limits.append(limit) or search(q, limit))
    codes, seen = [[3, 3], [3, 10]], histories([[1, 2], []])
    assert_same(served.recommend(codes, 5, seen=seen), index.recommend(codes, 5, seen=seen))
    assert served.recommend(codes, 3)[0].tolist() == [[1, 2, 3], [251, 1, 2]]
    assert limits[:2] == [8, 16] and limits[6] == 512  # asked again until the scores end
    monkeypatch.setattr(milvus, "LARGEST_LIMIT", 100)
    with pytest.raises(ValueError, match="Query 0 needs more than the 100 hits"):
        served.recommend(codes, 5)
    assert served.recommend(codes[1:], 1)[0].tolist() == [[251]]


def test_scores_that_a_floor_makes_equal_are_ties_too(load):
    table = np.zeros((2, 40), np.float32)
    table[0] = np.arange(1, 41) / 1024  # differ, but for a floor of 2^20 they are below the last bit
    index = table_index(table, [2.0**20, 1])
    got = load(index).recommend([[3, 3], [3, 10]], 4)
    assert_same(got, index.recommend([[3, 3], [3, 10]], 4))
    assert got[0][1].tolist() == [1, 2, 3, 4] and len(np.unique(got[1][1])) == 1


def test_scores_that_need_rounding_differ_by_rounding_only(rng, load):
    index = table_index(rng.gamma(2, 1, (30, N_ITEMS)).astype(np.float32), rng.normal(size=30))
    codes, seen = some_queries(rng, index)
    for one in (index, index.compact("uint16")):
        got, expected = load(one).recommend(codes, 10, seen=seen), one.recommend(codes, 10, seen=seen)
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)
        assert (got[0] == expected[0]).mean() > 0.99


def test_hits_that_score_nothing_are_no_answers():
    ids, scores = np.zeros(3, np.int32), np.full(3, -np.inf, np.float32)
    hits = [{"id": item, "distance": score} for item, score in ((4, 2.0), (9, 1.0), (1, 0.0), (2, 0.0))]
    assert milvus._rank(hits, 4, np.float32(-5), np.array([9]), ids, scores)
    assert ids.tolist() == [4, 0, 0] and scores.tolist() == [-3, -np.inf, -np.inf]


def test_histories_may_start_anywhere_in_their_values(rng, index, load):
    codes, seen = some_queries(rng, index)
    later = SimpleNamespace(offsets=seen.offsets[5:], values=seen.values)
    assert_same(load(index).recommend(codes[5:], 9, seen=later), index.recommend(codes[5:], 9, seen=later))


def test_an_index_without_postings_recommends_nothing(load):
    index = table_index(np.zeros((2, 5), np.float32), [1, 2])
    assert_same(load(index).recommend([[3, 10]], 2), index.recommend([[3, 10]], 2))


def test_metrics_and_shards_take_it(rng, index, load):
    codes, seen = some_queries(rng, index, n=12)

    class Queries:
        def __init__(self, at):
            rows = [seen.values[seen.offsets[u] : seen.offsets[u + 1]] for u in at]
            self.codes, self.histories = codes[at], histories(rows)
            self.targets = histories([[1 + u, 30 + u] for u in at])

        def __len__(self):
            return len(self.codes)

        def take(self, rows):
            return Queries(np.arange(12)[rows])

    def measured(one):
        recommender = IndexRecommender(one, lambda queries: queries.codes)
        return metric.evaluate(recommender, Queries(np.arange(12)), (5, 20), True).mean()

    served = load(index)
    assert measured(served) == measured(index)
    shards = [load(shard, collection=f"shard{n}") for n, shard in enumerate(index.shard(2))]
    assert_same(ShardedIndex(shards).recommend(codes, 9, seen=seen), index.recommend(codes, 9, seen=seen))


def test_an_interrupted_load_is_completed(rng, index, load, tmp_path, monkeypatch):
    uri = str(tmp_path / "part.db")
    written = []
    ask = milvus._Collection._ask

    def interrupted(self, method, **options):
        if method == "upsert":
            written.append([row["id"] for row in options["data"]])
            if len(written) == 3:
                options["data"] = options["data"][:4]  # the request gets through in part
                ask(self, method, **options)
                raise KeyboardInterrupt
        return ask(self, method, **options)

    monkeypatch.setattr(milvus, "ITEMS_PER_REQUEST", 10)
    monkeypatch.setattr(milvus._Collection, "_ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_into_milvus(index, uri, progress=False)
    with pytest.raises(ValueError, match=r"holds 24 of 55 items; load_into_milvus completes it"):
        MilvusIndex(index, uri)
    there = set(sum(written[:2], []) + written[2][:4])
    written[:] = [[], [], [], []]
    served = load(index, uri)
    assert not there & set(sum(written, [])) and len(there) + len(sum(written, [])) == served._store.count() == 55
    codes, seen = some_queries(rng, index)
    assert_same(served.recommend(codes, 9, seen=seen), index.recommend(codes, 9, seen=seen))


def test_requests_hold_few_items_and_postings(index, load, monkeypatch):
    served = load(index)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(index.items, minlength=N_ITEMS + 1)[1:])])
    monkeypatch.setattr(milvus, "POSTINGS_PER_REQUEST", 20)
    monkeypatch.setattr(milvus, "ITEMS_PER_REQUEST", 3)
    parts = list(served._store._requests(offsets))
    np.testing.assert_array_equal(np.concatenate(parts), np.unique(index.items))
    postings = [sum(offsets[item] - offsets[item - 1] for item in part) for part in parts]
    assert max(map(len, parts)) == 3 and max(postings) <= 20
    monkeypatch.setattr(milvus, "POSTINGS_PER_REQUEST", 1)  # fewer than an item has
    assert all(len(part) == 1 for part in served._store._requests(offsets))


def test_passing_errors_are_waited_for_and_nothing_comes_twice(index, load, monkeypatch):
    from pymilvus import MilvusClient, MilvusException

    pauses, failures = [], 3
    upsert = MilvusClient.upsert

    def flaky(self, *args, **options):
        nonlocal failures
        answer = upsert(self, *args, **options)
        if failures:
            failures -= 1
            raise MilvusException(8, "rate limit")  # after it was done
        return answer

    monkeypatch.setattr(milvus, "sleep", pauses.append)
    monkeypatch.setattr(MilvusClient, "upsert", flaky)
    assert load(index)._store.count() == 55
    assert pauses == list(milvus.PAUSES[:3])
    failures = 99
    with pytest.raises(ConnectionError, match="does not answer .* goes on where it stopped"):
        load(index)
    assert pauses[3:] == list(milvus.PAUSES)
    monkeypatch.setattr(MilvusClient, "upsert", lambda *_, **__: (_ for _ in ()).throw(MilvusException(1, "no")))
    with pytest.raises(MilvusException, match="no"):
        load(index, collection="another")
    assert len(pauses) == 3 + len(milvus.PAUSES)


def test_a_server_by_its_address(rng, index, load, tmp_path, monkeypatch):
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    server, database, port = start_server_in_thread(str(tmp_path / "server"))
    try:
        served = load(index, f"http://127.0.0.1:{port}")
        codes, seen = some_queries(rng, index)
        assert_same(served.recommend(codes, 9, seen=seen), index.recommend(codes, 9, seen=seen))
    finally:
        server.stop(grace=0).wait()
        database.close()
    monkeypatch.setattr(milvus, "PAUSES", (0.01, 0.01))
    with pytest.raises(ConnectionError, match="does not answer for the collection 'sparcode'"):
        served.recommend(codes, 9)
    with pytest.raises(ConnectionError, match="can't be opened at .* Is the server up"):
        MilvusIndex(index, "http://127.0.0.1:1")


def test_only_the_collection_of_this_index_is_served(index, load, tmp_path):
    from pymilvus import MilvusClient

    uri = str(tmp_path / "shared.db")
    with pytest.raises(ValueError, match="There is no collection 'sparcode' at .*; call load_into_milvus first"):
        MilvusIndex(index, uri)
    load(index, uri).close()
    MilvusIndex(index, uri).close()
    codes, offsets, items, scores, floors = index.codes, index.offsets, index.items, index.scores, index.floors
    others = (
        index.remove_items([2]),
        SparseInvertedIndex(codes + 1, offsets, items, scores, floors, N_ITEMS),
        SparseInvertedIndex(codes, offsets, items, scores, floors + 1, N_ITEMS),
        SparseInvertedIndex(codes, offsets, items, scores, floors, N_ITEMS + 1),
    )
    for other in others:
        for attempt in (MilvusIndex, load):
            with pytest.raises(ValueError, match="holds another index, or another state of this one"):
                attempt(other, uri)
    client = MilvusClient(uri=uri)
    client.create_collection("theirs", dimension=4)
    client.close()
    with pytest.raises(ValueError, match="'theirs' at .* holds something else; name another collection"):
        load(index, uri, collection="theirs")
    MilvusIndex(index, uri).close()


def test_wrong_scores_are_refused(rng, index, load, monkeypatch):
    by_item = milvus.item_vectors

    def wrong(index):
        offsets, rows, scores = by_item(index)
        return offsets, rows, np.log1p(scores)

    monkeypatch.setattr(milvus, "item_vectors", wrong)
    with pytest.raises(RuntimeError, match="Milvus returns wrong scores"):
        load(index)


@pytest.mark.parametrize(
    ("version", "right"),
    [("2.5.1", True), ("3.0", False), ("3.1.1", False), ("3.2.1", False), ("3.2.2", True), ("3.10.0", True)],
)
def test_versions_known_to_score_wrongly_are_refused(version, right):
    if right:
        milvus._check_lite(version)
    else:
        with pytest.raises(RuntimeError, match=f"Milvus Lite {version} returns wrong scores; pip install"):
            milvus._check_lite(version)


@pytest.mark.parametrize("package", ["pymilvus", "milvus_lite"])
def test_without_its_packages_the_error_says_how_to_get_them(index, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match='pip install "pymilvus'):
        MilvusIndex(index, str(tmp_path / "any.db"))


def test_bad_queries_and_paths_are_told(index, load, tmp_path):
    served = load(index)
    with pytest.raises(ValueError, match="Query 1 holds code 5, which is not in Milvus"):
        served.recommend([[0, 0], [0, 5]], 3)
    for item in (-1, N_ITEMS + 1):
        with pytest.raises(ValueError, match="history of query 1 holds an item outside 1..60"):
            served.recommend([[0], [0]], 3, seen=histories([[1], [item]]))
    with pytest.raises(ValueError, match="k must be a whole number from 1 to the 60 items"):
        served.recommend([[0]], 61)
    with pytest.raises(ValueError, match="extend the index itself and load it into a new collection"):
        served.only(index.codes[:1])
    with pytest.raises(ConnectionError, match=r"must end in \.db"):
        MilvusIndex(index, str(tmp_path / "file.sqlite"))
