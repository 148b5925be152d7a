"""The index served by Milvus: one file on one machine (Milvus Lite), or a cluster.

A row of the collection is an item, with its stored scores as a sparse vector; a dimension is a row of index.codes,
since codes themselves may pass the 32 bits that Milvus has for dimensions. A query is its keys with their weights; the
inner product is then the sum that the index adds. What Milvus lacks is done here: floors, histories, ties.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
from time import sleep

import numpy as np

from retrieval.engines.export import decoded, item_vectors
from retrieval.index import SparseInvertedIndex
from retrieval.postings import Postings
from retrieval.search import look_up_all

INSTALL = 'pip install "pymilvus>=2.6,<4" "milvus-lite>=3.2.2,<4" "pyarrow>=15,<26" tqdm'
WRONG_LITE = ((3, 0), (3, 2, 2))  # from, to: inner products come back as BM25 scores
LARGEST_LIMIT = 16_384  # hits that Milvus returns to one query at most
ITEMS_PER_REQUEST = 10_000
POSTINGS_PER_REQUEST = 500_000  # 4 MB
QUERIES_PER_REQUEST = 256
PAUSES = (0.5, 1, 2, 4, 8, 16)  # seconds between attempts
TEST_QUERIES = 8
ITEM = "id"  # Lite 2.5 names the primary key so in its answers, whatever its name is


def load_into_milvus(
    index: Postings, uri: str, collection: str = "sparcode", *, token: str = "", progress: bool = True
) -> MilvusIndex:
    """Bring an index into a collection.

    Where a load was interrupted it goes on: items that are there are left, none comes twice.

    Args:
        index, uri, collection, token: as of MilvusIndex.
        progress: show a bar on standard error.

    Returns:
        MilvusIndex(index, uri, ...).

    Raises:
        as MilvusIndex, but for the collection that is missing or half full.
    """
    index = decoded(index)
    with contextlib.closing(_Collection(index, uri, collection, token)) as store:
        store.create()
        store.fill(index, progress)
    return MilvusIndex(index, uri, collection, token=token)


class MilvusIndex(Postings):
    """An index whose queries are answered by the collection that load_into_milvus filled with it.

    recommend() is that of every index, so IndexRecommender and ShardedIndex take this one; the items and scores are
    those of the index (a CompactIndex counts as its decode()), removed items and ties included. Only rounding may
    differ: where Milvus adds the scores of a query in float64 or in another order, a score moves by a few float32
    steps, and items that near may change their order. Opening asks a few queries with known answers.

    Args:
        index: read once, to compare its fingerprint with the collection's, and afterwards only its codes and floors
            are; load it memory-mapped.
        uri: a file ending in .db for Milvus Lite, else the http address of a server.
        collection: its name.
        token: of the server.

    Raises:
        ModuleNotFoundError: pymilvus (or, for a file, Milvus Lite) is missing.
        ConnectionError: the server is away.
        ValueError: the collection is missing, incomplete, or of something else.
        RuntimeError: this Milvus returns wrong scores.
    """

    format = SparseInvertedIndex.format
    dtypes = SparseInvertedIndex.dtypes

    def __init__(self, index: Postings, uri: str, collection: str = "sparcode", *, token: str = ""):
        index = decoded(index)
        arrays = {name: getattr(index, name) for name in self.dtypes}
        self._adopt(arrays, index.n_items, index.pruning)
        self._store = _Collection(index, uri, collection, token)
        self._searcher = MilvusSearcher(self._store, self.codes, self.floors, self.n_items)
        try:
            self._store.open()
            _check_answers(self, index)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection or the file; nothing can be asked afterwards."""
        self._store.close()

    def _with(self, **changed):
        """Not here: one new code would rewrite every item's row."""
        raise ValueError(
            "A Milvus collection can't be extended by codes; extend the index itself and load it into a new collection."
        )


class MilvusSearcher:
    """As search.Searcher, over a collection."""

    def __init__(self, store: _Collection, codes: np.ndarray, floors: np.ndarray, n_items: int):
        self._store = store
        self._codes, self._floors, self._n_items = codes, floors, n_items

    def top_k(
        self,
        codes: np.ndarray,
        weights: np.ndarray,
        k: int,
        seen_offsets: np.ndarray,
        seen_values: np.ndarray,
        threads: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As Searcher.top_k; threads is Milvus's own affair.

        A query asks for k items, its history, and one more. What comes back settles it if the last hit is worse than
        the k-th item, or if nothing else scores; else it is asked again for twice as many, so that of equal scores the
        lowest ids win.

        Raises:
            ValueError: as Searcher.top_k, or where that would take more than the 16,384 hits that Milvus gives.
        """
        rows, weights, (unknown, slot) = look_up_all(self._codes, codes, weights)  # (U, K)
        if unknown >= 0:
            raise ValueError(f"Query {unknown} holds code {codes[unknown, slot]}, which is not in Milvus.")
        ids = np.zeros((len(codes), k), np.int32)
        scores = np.full((len(codes), k), -np.inf, np.float32)
        ends = zip(seen_offsets, seen_offsets[1:], strict=False)
        seen = [seen_values[start:end] for start, end in ends]
        queries = [self._query(at, rows[at], weights[at], seen[at]) for at in range(len(codes))]
        asked = np.flatnonzero(weights.any(axis=1))  # Milvus takes no vector without entries
        for first in range(0, len(asked), QUERIES_PER_REQUEST):
            waiting = asked[first : first + QUERIES_PER_REQUEST]
            limit = k + max(len(seen[at]) for at in waiting) + 1
            while len(waiting):
                limit = min(limit, LARGEST_LIMIT)
                found = self._store.search([queries[at][0] for at in waiting], limit)
                unsettled = []
                for at, hits in zip(waiting, found, strict=True):
                    settled = _rank(hits, limit, queries[at][1], seen[at], ids[at], scores[at])
                    if not settled:
                        unsettled.append(at)
                if unsettled and limit == LARGEST_LIMIT:
                    raise ValueError(
                        f"Query {unsettled[0]} needs more than the {LARGEST_LIMIT} hits that Milvus gives: its k, its "
                        "history or the number of equal scores is too large; search the index itself."
                    )
                waiting, limit = unsettled, 2 * limit
        return ids, scores

    def _query(self, at: int, rows, weights, seen) -> tuple[dict[int, float], np.float32]:
        """Keys as a sparse vector over rows of the index, and the weighted sum of their floors."""
        if len(seen) and not 0 <= seen.min() <= seen.max() <= self._n_items:
            raise ValueError(
                f"The history of query {at} holds an item outside 1..{self._n_items}, those of this index."
            )
        base = 0.0  # added up one by one in float64, as the index does
        for row, weight in zip(rows, weights.astype(np.float64), strict=True):
            base += weight * np.float64(self._floors[row]) if weight else 0.0
        used = weights > 0
        return dict(zip(rows[used].tolist(), weights[used].tolist(), strict=True)), np.float32(base)


def _rank(hits, limit: int, base, seen, ids, scores) -> bool:
    """Write the best of these hits to ids (k,) and scores (k,); whether no other hit could enter."""
    hits = [hit for hit in hits if hit["distance"] > 0]  # others have no posting
    items = np.array([hit[ITEM] for hit in hits], np.int32)
    totals = np.array([hit["distance"] for hit in hits], np.float32) + base
    last = totals.min(initial=np.inf)
    kept = ~np.isin(items, seen)
    items, totals = items[kept], totals[kept]
    order = np.lexsort((items, -totals))[: len(ids)]
    ids[: len(order)], scores[: len(order)] = items[order], totals[order]
    return len(hits) < limit or (len(order) == len(ids) and totals[order[-1]] > last)


def _check_answers(served: MilvusIndex, index: SparseInvertedIndex) -> None:
    """A RuntimeError unless Milvus scores a few queries as `index` does."""
    used = index.codes[np.diff(index.offsets) > 0]
    if not len(used):
        return
    some = used[np.linspace(0, len(used) - 1, min(len(used), TEST_QUERIES)).astype(np.int64)]
    queries = np.stack([some, some, np.roll(some, 1)], axis=1)
    k = min(10, index.n_items)
    _, expected = index.recommend(queries, k)
    _, scores = served.recommend(queries, k)
    error = 1e-4 * 3 * index.scores.max()  # rounding is a hundred times less
    if not np.allclose(scores, expected, rtol=0, atol=error):
        raise RuntimeError(
            "Milvus returns wrong scores: they are not inner products of what was loaded. Use "
            f"another version ({INSTALL}) and load the index anew."
        )


class _Collection:
    """What is asked of Milvus, each request repeated while Milvus is busy or away."""

    def __init__(self, index: SparseInvertedIndex, uri: str, name: str, token: str):
        self._client = _connect(uri, token)
        self._where = f"collection {name!r} at {uri}"
        self._name = name
        # In the field's name, for that is what every Milvus keeps: Lite 3.2 drops descriptions.
        self._field = f"codes_{_fingerprint(index)}"
        self._items = np.flatnonzero(np.bincount(index.items, minlength=index.n_items + 1))

    def create(self) -> None:
        """An empty collection, unless this index's is there; a ValueError for another's."""
        if self._ask("has_collection"):
            self._check_schema()
            return
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False)
        schema.add_field(ITEM, DataType.INT64, is_primary=True)
        schema.add_field(self._field, DataType.SPARSE_FLOAT_VECTOR)
        indexing = self._client.prepare_index_params()
        indexing.add_index(self._field, index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        self._ask("create_collection", schema=schema, index_params=indexing)

    def fill(self, index: SparseInvertedIndex, progress: bool) -> None:
        """Write the rows of the items that are not there yet."""
        from tqdm import tqdm

        self._ask("load_collection")
        started = self.count() > 0
        offsets, rows, scores = item_vectors(index)
        with tqdm(total=len(self._items), desc="milvus", unit="item", leave=False, disable=not progress) as bar:
            for items in self._requests(offsets):
                missing = np.setdiff1d(items, self._present(items)) if started else items
                vectors = []
                for item in missing.tolist():
                    part = slice(offsets[item - 1], offsets[item])
                    pairs = zip(rows[part].tolist(), scores[part].tolist(), strict=True)
                    vectors.append({ITEM: item, self._field: dict(pairs)})
                if vectors:  # not insert: a request that got through but not back is sent again
                    self._ask("upsert", data=vectors)
                bar.update(len(items))
        self._ask("flush")  # else Lite 3.2 searches row by row

    def _requests(self, offsets):
        """The items in parts that fit a request."""
        postings = np.cumsum(np.diff(offsets)[self._items - 1])
        start = 0
        while start < len(self._items):
            before = postings[start - 1] if start else 0
            end = np.searchsorted(postings, before + POSTINGS_PER_REQUEST, "right")
            end = min(max(end, start + 1), start + ITEMS_PER_REQUEST)
            yield self._items[start:end]
            start = end

    def open(self) -> None:
        """Ready to be searched; a ValueError unless all of this index is there."""
        if not self._ask("has_collection"):
            raise ValueError(f"There is no {self._where}; call load_into_milvus first.")
        self._check_schema()
        self._ask("load_collection")
        n_rows = self.count()
        if n_rows != len(self._items):
            raise ValueError(
                f"The {self._where} holds {n_rows} of {len(self._items)} items; load_into_milvus completes it."
            )

    def search(self, queries: list[dict[int, float]], limit: int) -> list:
        """For each query at most `limit` hits, best first, each with ITEM and "distance"."""
        return self._ask(
            "search",
            data=queries,
            anns_field=self._field,
            limit=limit,
            output_fields=[ITEM],
            search_params={"metric_type": "IP"},
            consistency_level="Strong",
        )

    def count(self) -> int:
        found = self._ask("query", filter="", output_fields=["count(*)"], consistency_level="Strong")
        return found[0]["count(*)"]

    def close(self) -> None:
        self._client.close()

    def _present(self, items) -> list[int]:
        found = self._ask("query", ids=items.tolist(), output_fields=[ITEM], consistency_level="Strong")
        return [row[ITEM] for row in found]

    def _check_schema(self) -> None:
        fields = {field["name"] for field in self._ask("describe_collection")["fields"]}
        if fields != {ITEM, self._field}:
            ours = any(name.startswith("codes_") for name in fields)
            what = "another index, or another state of this one" if ours else "something else"
            raise ValueError(f"The {self._where} holds {what}; name another collection or drop this one.")

    def _ask(self, method: str, **options):
        for pause in (*PAUSES, None):
            try:
                # pymilvus would try 75 times on its own, for minutes
                return getattr(self._client, method)(self._name, retry_times=1, **options)
            except Exception as error:
                if not _passing(error):
                    raise
                if pause is None:
                    raise ConnectionError(
                        f"Milvus does not answer for the {self._where}; is the server up? A load "
                        f"that is called again goes on where it stopped. ({error})"
                    ) from error
            sleep(pause)


def _passing(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    import grpc
    from pymilvus.client.types import Status
    from pymilvus.exceptions import ErrorCode

    code = error.code() if isinstance(error, grpc.RpcError) else getattr(error, "code", None)
    away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, Status.CONNECT_FAILED)
    return code in (*away, ErrorCode.RATE_LIMIT) or getattr(error, "retriable", False)


def _connect(uri: str, token: str):
    local = "://" not in uri
    try:
        from pymilvus import MilvusClient, MilvusException

        if local:
            import milvus_lite  # noqa: F401 (pymilvus hides why it can't be imported)
    except ImportError as error:
        raise ModuleNotFoundError(f"Milvus needs more packages: {INSTALL}. ({error})") from error
    if local:
        _check_lite(importlib.metadata.version("milvus-lite"))
        os.makedirs(os.path.dirname(os.path.abspath(uri)), exist_ok=True)
    try:
        return MilvusClient(uri=uri, token=token)
    except MilvusException as error:
        what = (
            "The file must end in .db, be of this version of Milvus Lite, and not be in use"
            if local
            else "Is the server up, and the token right?"
        )
        raise ConnectionError(f"Milvus can't be opened at {uri}. {what} ({error})") from error


def _check_lite(version: str) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if WRONG_LITE[0] <= numbers < WRONG_LITE[1]:
        raise RuntimeError(f"Milvus Lite {version} returns wrong scores; {INSTALL}.")


def _fingerprint(index: SparseInvertedIndex) -> str:
    digest = hashlib.sha256(str(index.n_items).encode())
    for name in ("codes", "offsets", "items", "scores", "floors"):
        digest.update(np.ascontiguousarray(getattr(index, name)))
    return digest.hexdigest()[:16]
