"""Features of users and items: they reach the scores by every path, padding says nothing, and they teach something."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import models
from data.features import Features, feature_table
from data.queries import Queries
from data.ragged import Ragged
from errors import UserError
from models.onnx_export import export_query_side
from retrieval import IndexRecommender, build_index
from retrieval.engines.onnx_query import OnnxQuery
from training import TrainStep

BOTH = {"user_features": ("sex", "age"), "item_features": ("categories",)}


def known_features():
    """40 items of 0 to 3 categories, and 12 users, some of unknown age."""
    items = ["|".join("abc"[: i % 4]) for i in range(40)]
    users = {"sex": ["F" if i % 2 else "M" for i in range(12)], "age": ["" if i % 3 else str(i) for i in range(12)]}
    return Features(feature_table(users), feature_table({"categories": items}), {str(i): i + 1 for i in range(12)})


def queries(features, n=30, seed=5):
    rng = np.random.default_rng(seed)
    rows = [rng.choice(np.arange(1, 41), i % 9, replace=False) for i in range(n)]
    return Queries.without_targets(Ragged.from_rows(rows), features.user.values[rng.integers(1, 13, n)])


@pytest.fixture
def with_features(make_model):
    """with_features("DQMatch", ...) -> a small model with both kinds, its quantiser started, and the features."""

    def make(name="DQMatch", **changes):
        features = known_features()
        model = make_model(name, features=features, **BOTH, **changes)
        if model.has_quantiser:
            model.start_quantiser(models.QuerySide(model, 64).raw_tokens(queries(features, 60, 9)), 32, 0)
        return model, features

    return make


@pytest.mark.parametrize("changes", [{}, {"encoder": "SASRec", "tokeniser": "heads"}])
def test_gradients_reach_all_values_and_none_reaches_padding(changes, with_features):
    model, features = with_features("AllToAll", l2=0.0, **changes)
    tables = [model.items.features.table, model.users.values.table]
    before = [table.asnumpy().copy() for table in tables]
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.01))
    step.set_train(True)
    rng = np.random.default_rng(0)
    history = rng.integers(1, 41, (32, 6)).astype(np.int32)
    history[::2, :3] = 0
    positive = rng.integers(1, 41, (32, 6) if model.every_position else 32).astype(np.int32)
    noise = rng.random(model.noise_size([(32, 6)]), np.float32)
    user = features.user.values[1 + np.arange(32) % 12]
    arrays = history, positive, np.arange(1, 41, dtype=np.int32), np.zeros(40, np.float32), noise
    for _ in range(2):  # the interaction's last layer starts at zero and lets nothing through
        step(*map(ms.Tensor, arrays), False, ((32, 6),), ms.Tensor(user))
    for table, old in zip(tables, before, strict=True):
        assert (np.abs(table.asnumpy() - old)[1:].max(1) > 0).all() and (table.asnumpy()[0] == 0).all()


def test_padding_says_nothing(with_features):
    """Neither that of a history nor that of a cell with few values, wherever it stands."""
    model, features = with_features("AllToAll")
    for table in (model.items.features.table, model.users.values.table):
        table[0] = 7.0  # were a 0 read, it would show
    history = ms.Tensor(np.array([[0, 0, 0, 0, 3, 5]], np.int32))
    embeddings, mask = model.items.history(history)
    user = ms.Tensor(np.array([[2, 0]], np.int32))
    found = model.users(embeddings, mask, user).asnumpy()
    assert (found[0, :4] == 0).all()
    values = model.users.values.table.asnumpy()
    np.testing.assert_allclose(found[0, 4:], embeddings.asnumpy()[0, 4:] + values[2], atol=1e-6)
    turned = model.users(embeddings, mask, ms.Tensor(np.array([[0, 2]], np.int32))).asnumpy()
    np.testing.assert_array_equal(found, turned)
    ids, categories = model.items.table.asnumpy(), model.items.features.table.asnumpy()
    mean = categories[features.item.values[3][features.item.values[3] > 0]].mean(0)  # item 3 has two of three
    np.testing.assert_allclose(embeddings.asnumpy()[0, 4], ids[3] + mean, atol=1e-6)
    np.testing.assert_array_equal(embeddings.asnumpy()[0, 5], ids[5])  # item 5 has none


def test_a_user_and_a_category_change_the_scores(with_features):
    model, features = with_features("AllToAll")
    asked = queries(features)
    others = Queries(asked.histories, asked.targets, np.roll(asked.users, 1, 0))
    assert not np.allclose(models.Exhaustive(model, 64).scores(asked), models.Exhaustive(model, 64).scores(others))
    before = model.items.vectors()
    model.items.features.table[1] = 5.0
    changed = np.abs(model.items.vectors() - before).max(1) > 0
    np.testing.assert_array_equal(changed, (features.item.values[1:] == 1).any(1))


@pytest.mark.parametrize("tokeniser", ["segments", "heads", "windows"])
def test_exhaustive_index_and_onnx_agree(tokeniser, with_features, tmp_path):
    model, features = with_features(tokeniser=tokeniser)
    asked, side = queries(features), models.QuerySide(model, 16)
    tokens = ms.Tensor(side.tokens(asked))
    exhaustive = models.Exhaustive(model, 16)
    inside = model.score(tokens, ms.Tensor(np.arange(1, 41, dtype=np.int32))).asnumpy()
    np.testing.assert_allclose(exhaustive.scores(asked), inside, rtol=1e-5, atol=1e-5)
    index = build_index(model.scorer(), np.arange(16**2), 40, relu=False, progress=False)
    found = IndexRecommender(index, side.codes, model.scorer()).recommend(asked, 10)
    np.testing.assert_allclose(found[1], exhaustive.recommend(asked, 10)[1], rtol=1e-5, atol=1e-5)

    export_query_side(model, tmp_path / "query.onnx")
    query, histories = OnnxQuery(tmp_path / "query.onnx"), list(asked.histories)
    assert query.user_values == features.user.names
    codes = query.codes(histories, asked.users)
    assert (codes == side.codes(asked)).mean() > 0.99  # ties of rounding
    assert (codes != query.codes(histories, np.roll(asked.users, 1, 0))).mean() > 0.05
    wider = np.pad(asked.users, ((0, 0), (2, 0)))
    np.testing.assert_array_equal(query.codes(histories, wider), codes)
    names = [features.user.names[value] for value in asked.users[8]]
    np.testing.assert_array_equal(query.codes(histories[8:9], query.user(names)), codes[8:9])


def test_queries_without_the_values_that_a_model_needs_are_refused(with_features, tmp_path):
    model, features = with_features()
    asked = queries(features)
    with pytest.raises(ValueError, match="reads features of users, and these queries hold none"):
        models.QuerySide(model, 16).codes(Queries.without_targets(asked.histories))
    export_query_side(model, tmp_path / "query.onnx")
    query = OnnxQuery(tmp_path / "query.onnx")
    for users, part in [
        (None, "say what is known"),
        ([[1]], "30 queries need a row"),
        (np.full((30, 1), 99), "within 0..6"),
        (np.full((30, 1), -1), "within 0..6"),
    ]:
        with pytest.raises(ValueError, match=part):
            query.codes(list(asked.histories), users)
    with pytest.raises(ValueError, match="'sex=X' is nothing that the run knows of users"):
        query.user(["sex=F", "sex=X"])
    assert query.user([]).tolist() == [[0]]


@pytest.mark.parametrize("named", [{}, {"user_features": ("sex",)}])
def test_features_that_the_settings_do_not_name_are_refused(named, make_model):
    with pytest.raises(UserError, match="features are not those of the settings"):
        make_model("TwoTower", features=known_features(), **named)


def test_a_model_that_sees_the_user_learns_what_depends_on_the_user(make_model, graph_mode):
    """What follows any history is an item of 21..30 for the one sex and of 31..40 for the other."""
    rng = np.random.default_rng(0)
    losses = {}
    for kind in ((), ("sex",)):
        known = Features(known_features().user) if kind else None
        model = make_model("TwoTower", features=known, user_features=kind, embedding_std=0.1)
        step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.03))
        step.set_train(True)
        for _ in range(60):
            sex = rng.integers(0, 2, 64)
            history = rng.integers(1, 21, (64, 6)).astype(np.int32)
            positive = (21 + 10 * sex + rng.integers(0, 10, 64)).astype(np.int32)
            noise = rng.random(model.noise_size([(64, 6)]), np.float32)
            arrays = history, positive, np.arange(1, 41, dtype=np.int32), np.zeros(40, np.float32), noise
            user = ms.Tensor(sex[:, None].astype(np.int32) + 1) if kind else None
            loss = float(step(*map(ms.Tensor, arrays), False, ((64, 6),), user)[1].asnumpy())
        losses[kind] = loss
    assert losses["sex",] < np.log(10) + 0.2 < losses[()] - 0.2  # of ten items each, and of twenty
