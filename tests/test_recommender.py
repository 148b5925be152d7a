"""What everything that recommends owes its users, asked of each of them alike.

A recommender joins with one line in RECOMMENDERS: a name, and how to make it from a `World`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import recommender
from baselines import BASELINES, fit, missing
from data.queries import Queries
from data.ragged import Ragged
from recommender import recommend_by_scores

pytestmark = pytest.mark.usefixtures("eager_mode")
N_ITEMS = 40  # also that of make_model


@dataclass
class World:
    """What recommenders are made from: training sequences, models, a folder of their own."""

    sequences: Ragged
    make_model: object
    folder: Path
    n_items: int = N_ITEMS

    def model(self, name: str, **settings):
        """An untrained model, its quantiser started if it has one; the items 11..20 are twins of 21..30."""
        import mindspore as ms

        from models import QuerySide

        model = self.make_model(name, **settings)
        table = model.items.table.asnumpy()
        table[21:31] = table[11:21]
        model.items.table.set_data(ms.Tensor(table))
        if model.has_quantiser:
            model.start_quantiser(QuerySide(model, 64).raw_tokens(Queries.without_targets(self.sequences)), 32, 0)
        return model

    def exhaustive(self, name: str, **settings):
        from models import Exhaustive

        return Exhaustive(self.model(name, **settings), 64)

    def index(self, **settings):
        """The index of few codes; others are scored on demand."""
        from models import QuerySide
        from retrieval import IndexRecommender

        model = self.model("DQMatch", **settings)
        side = QuerySide(model, 64)
        return IndexRecommender(_index(model, 20), side.keys, model.scorer())

    def reranked(self):
        """The index of few codes, its best items by tokens without codes."""
        from models import QuerySide
        from retrieval import IndexRecommender, Reranked

        model = self.model("DQMatch")
        side = QuerySide(model, 64)
        index = IndexRecommender(_index(model, 20), side.keys, model.scorer())

        def encode(queries):
            tokens = side.raw_tokens(queries)
            return tokens, side.keys_of(tokens)

        return Reranked(index, encode, model.token_scorer(), model.codes_per_user, N_ITEMS)

    def served(self):
        """What `--mode export` writes, as examples/serve.py reads it."""
        from models.onnx_export import export_query_side
        from retrieval import IndexRecommender, load_index, load_scorer, save_scorer
        from retrieval.engines.onnx_query import OnnxQuery

        model = self.model("DQMatch")
        export_query_side(model, self.folder / "query.onnx")
        save_scorer(model.scorer(), self.folder / "scorer.npz")
        _index(model, 20).save(self.folder / "index")
        encoder = OnnxQuery(self.folder / "query.onnx")
        return IndexRecommender(
            load_index(self.folder / "index"),
            lambda queries: encoder.keys(list(queries.histories)),
            load_scorer(self.folder / "scorer.npz"),
        )


def _index(model, n_codes: int):
    from retrieval import build_index

    return build_index(model.scorer(), range(n_codes), N_ITEMS, relu=model.score_bias is not None, progress=False)


class Overlap:
    """Scores by small whole numbers, nearly all tied; an odd history knows no score of even items."""

    def recommend(self, queries, k, exclude_seen=True):
        return recommend_by_scores(self.scores, queries, k, exclude_seen, N_ITEMS)

    def scores(self, queries):
        last = np.array([row[-1] if len(row) else 0 for row in queries.histories])
        scores = (np.arange(1, N_ITEMS + 1) * (1 + last[:, None]) % 3).astype(np.float32)
        scores[(last % 2 == 1)[:, None] & (np.arange(N_ITEMS) % 2 == 1)] = -np.inf
        return scores


WEIGHTED = {"quantiser": "pursuit", "interaction": "dot", "num_codebooks": 1, "K_c": 24, "token_lookups": 8}
RECOMMENDERS = {
    "TwoTower": lambda world: world.exhaustive("TwoTower"),
    "TwoTower of a causal encoder": lambda world: world.exhaustive("TwoTower", encoder="SASRec"),
    "AllToAll": lambda world: world.exhaustive("AllToAll"),
    "AllToAll with ReLU": lambda world: world.exhaustive("AllToAll", score_bias=-0.5),
    "DQMatch": lambda world: world.exhaustive("DQMatch"),
    "index": lambda world: world.index(),
    "index, reranked": lambda world: world.reranked(),
    "index of a weighted sum": lambda world: world.index(**WEIGHTED),
    "index with ReLU": lambda world: world.index(score_bias=-0.5),
    "served ONNX": lambda world: world.served(),
    "by scores": lambda world: Overlap(),
} | {name: lambda world, name=name: baseline(world, name) for name in BASELINES}


def baseline(world: World, name: str):
    """Fitted; skips a test of Spark, which alone is not in requirements-dev.txt, without it."""
    if name == "SparkALS" and (why := missing(name)):
        pytest.skip(why)
    return fit(name, world.sequences, world.n_items)


@pytest.fixture(scope="module", params=RECOMMENDERS)
def recommends(request, make_model, tmp_path_factory):
    rng = np.random.default_rng(3)
    rows = [rng.permutation(N_ITEMS)[: rng.integers(2, 15)] + 1 for _ in range(80)]
    world = World(Ragged.from_rows(rows), make_model, tmp_path_factory.mktemp("recommender"))
    return RECOMMENDERS[request.param](world)


@pytest.fixture(scope="module")
def queries():
    """Short, long, empty and nearly complete histories."""
    rng = np.random.default_rng(4)
    lengths = [0, 1, 2, *rng.integers(1, 20, 20), N_ITEMS - 3, N_ITEMS]
    rows = [rng.permutation(N_ITEMS)[:length] + 1 for length in lengths]
    return Queries(Ragged.from_rows(rows), Ragged.from_rows([[1]] * len(rows)))


def assert_same_ranking(found, expected):
    """Equal scores and, but for near-ties that rounding may turn over, equal ids; of whole rankings."""
    (ids, scores), (expected_ids, expected_scores) = found, expected
    np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
    gaps = np.abs(np.diff(np.maximum(expected_scores, -1e9), axis=1, prepend=1e9, append=-2e9))
    settled = (np.minimum(gaps[:, 1:], gaps[:, :-1]) > 1e-5) | np.isneginf(expected_scores)
    np.testing.assert_array_equal(ids[settled], expected_ids[settled])


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [1, 10, N_ITEMS])
def test_an_answer_is_a_ranking_in_the_one_order(recommends, queries, k, exclude_seen):
    ids, scores = recommends.recommend(queries, k, exclude_seen)
    assert ids.shape == scores.shape == (len(queries), k) and (ids.dtype, scores.dtype) == (np.int32, np.float32)
    assert ((ids >= 0) & (ids <= N_ITEMS)).all() and not np.isnan(scores).any()
    assert all(len(np.unique(row[row > 0])) == (row > 0).sum() for row in ids)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    tied = (scores[:, 1:] == scores[:, :-1]) & (ids[:, 1:] > 0)
    assert (ids[:, 1:] > ids[:, :-1])[tied].all()
    np.testing.assert_array_equal(ids == 0, np.isneginf(scores))  # empty slots; their scores put them last


def test_fewer_are_the_head_of_more(recommends, queries):
    whole = recommends.recommend(queries, N_ITEMS)
    for k in (1, 7):
        for few, all_of_them in zip(recommends.recommend(queries, k), whole, strict=True):
            np.testing.assert_array_equal(few, all_of_them[:, :k])


def test_history_is_left_out_and_nothing_else(recommends, queries):
    masked_ids, masked_scores = recommends.recommend(queries, N_ITEMS)
    ids, scores = recommends.recommend(queries, N_ITEMS, False)
    for user, history in enumerate(queries.histories):
        kept = ~np.isin(ids[user], history) & (ids[user] > 0)
        n_kept = kept.sum()
        np.testing.assert_array_equal(masked_ids[user, :n_kept], ids[user, kept])
        np.testing.assert_array_equal(masked_scores[user, :n_kept], scores[user, kept])
        assert not masked_ids[user, n_kept:].any()
    assert (ids > 0).sum() > (masked_ids > 0).sum()


def test_slots_that_nothing_fills_are_empty(recommends, queries):
    ids, scores = recommends.recommend(queries, 10)
    assert (ids[-2] > 0).sum() <= 3 and not ids[-1].any() and np.isneginf(scores[-1]).all()


def test_a_query_alone_is_answered_as_among_others(recommends, queries):
    together = recommends.recommend(queries, N_ITEMS)
    order = np.random.default_rng(5).permutation(len(queries))
    turned = recommends.recommend(queries.take(order), N_ITEMS)
    assert_same_ranking(turned, [part[order] for part in together])
    for user in (0, 5, len(queries) - 2):
        assert_same_ranking(recommends.recommend(queries.take([user]), N_ITEMS), [part[[user]] for part in together])


def test_blocks_change_nothing(recommends, queries, monkeypatch):
    whole = recommends.recommend(queries, N_ITEMS)
    monkeypatch.setattr(recommender, "SCORES_PER_BLOCK", 7 * N_ITEMS)
    assert_same_ranking(recommends.recommend(queries, N_ITEMS), whole)


def test_the_same_question_gets_the_same_answer_and_stays_as_it_was(recommends, queries):
    before = [(rows.offsets.copy(), rows.values.copy()) for rows in (queries.histories, queries.targets)]
    first, second = (recommends.recommend(queries, 20) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for rows, (offsets, values) in zip((queries.histories, queries.targets), before, strict=True):
        assert (rows.offsets == offsets).all() and (rows.values == values).all()


@pytest.mark.parametrize("k", [0, N_ITEMS + 1])
def test_k_beyond_the_catalogue_is_refused(recommends, queries, k):
    with pytest.raises(ValueError, match="k"):
        recommends.recommend(queries, k)
    with pytest.raises(ValueError, match="k must be from 1 to the 40 items"):  # before anything is asked for
        recommend_by_scores(None, queries.take([]), k, True, N_ITEMS)
