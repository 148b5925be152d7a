"""Every user encoder: gradients reach it, causal ones see no future, and where it exports, ONNX gives the same."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops

import models
from data import widths
from data.features import Features, feature_table
from data.queries import Queries
from data.ragged import Ragged
from models.encoders import ENCODERS
from training import TrainStep

CAUSAL = [name for name in ENCODERS if ENCODERS[name].causal]


def batch_of(model):
    """A training batch of 16 rows: of sequences with a target at every position, or of histories with one."""
    rng = np.random.default_rng(0)
    history = rng.integers(1, 41, (16, 6)).astype(np.int32)
    history[np.arange(6)[None] < rng.integers(0, 6, (16, 1))] = 0
    positive = rng.integers(1, 41, (16, 6) if model.every_position else 16).astype(np.int32)
    if model.every_position:
        positive[history == 0] = 0
    noise = rng.random(model.noise_size([(16, 6)]), np.float32)
    arrays = history, positive, np.arange(1, 21, dtype=np.int32), np.zeros(20, np.float32), noise
    return *map(ms.Tensor, arrays), model.is_quantised, ((16, 6),)


@pytest.mark.parametrize(("encoder", "coded"), [*((name, False) for name in ENCODERS), ("LiGR", True)])
def test_the_ranking_loss_reaches_every_weight_and_the_loss_falls(encoder, coded, make_model, graph_mode):
    """Through codes too, whose commitment counts for nothing here."""
    name, rates = "DQMatch" if coded else "TwoTower", {"dropout": 0.2, "history_dropout": 0.2}
    model = make_model(name, encoder=encoder, interaction="dot", l2=0.0, beta=0.0, **rates)
    assert model.every_position == (encoder in CAUSAL)
    if coded:
        some = Queries.without_targets(Ragged.from_rows([[i, i + 1, i + 3] for i in range(1, 38)] * 2))
        model.start_quantiser(models.QuerySide(model, 64).raw_tokens(some), 32, 0)
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.02))
    step.set_train(True)
    before = {p.name: p.asnumpy().copy() for p in model.trainable_params()}
    losses = [float(step(*batch_of(model))[1].asnumpy()) for _ in range(12)]
    assert np.mean(losses[-3:]) < 0.9 * losses[0]
    still = [p.name for p in model.trainable_params() if (p.asnumpy() == before[p.name]).all()]
    # The same constant for every key of a query: softmax gives it nothing to learn but rounding.
    assert not [name for name in still if not name.endswith("key.bias")]


def attended(weights, name, heads, embeddings):
    """SASRec, or LiGR where its gates are among the weights, of one history (L, E), written out place by place."""
    length, width = embeddings.shape

    def dense(part, x):
        return x @ weights[f"{part}.weight"].T + weights[f"{part}.bias"]

    def norm(part, x):
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-7)
        return (x - x.mean(-1, keepdims=True)) / spread * weights[f"{part}.gamma"] + weights[f"{part}.beta"]

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    def attention(block, x):
        queries, keys, values = (
            np.split(dense(f"{block}.{part}", x), heads, -1) for part in ("query", "key", "value")
        )  # heads of (L, E / heads)
        found = np.zeros((length, heads, width // heads))
        for place in range(length):
            for head in range(heads):
                logits = keys[head][: place + 1] @ queries[head][place] / np.sqrt(width // heads)
                shares = np.exp(logits - logits.max())
                found[place, head] = shares @ values[head][: place + 1] / shares.sum()
        return dense(f"{block}.merge", found.reshape(length, width))

    x = embeddings * np.sqrt(width) + weights[f"{name}.positions"][-length:]
    for number in range(2):
        block = f"{name}.blocks.{number}"
        gated = f"{block}.open.weight" in weights
        found = attention(block, norm(f"{block}.first_norm", x))
        x = x + found * (sigmoid(dense(f"{block}.first_gate", x)) if gated else 1)
        seen = norm(f"{block}.second_norm", x)
        if gated:
            opened = dense(f"{block}.open", seen)
            inner = dense(f"{block}.out", opened * sigmoid(opened) * dense(f"{block}.hidden", seen))
            x = x + sigmoid(dense(f"{block}.second_gate", x)) * inner
        else:
            x = x + dense(f"{block}.out", np.maximum(dense(f"{block}.hidden", seen), 0))
    return norm(f"{name}.norm", x)


@pytest.mark.parametrize("encoder", ["SASRec", "LiGR"])
def test_self_attention_is_what_its_publications_write(encoder, make_model):
    """Kang and McAuley with norms before the halves of a block; Borisyuk et al. with gates around them."""
    model = make_model("TwoTower", encoder=encoder, num_heads=2, att_layer=2)
    rng = np.random.default_rng(0)
    for parameter in model.trainable_params():  # biases and norms start as if they were not there
        parameter.set_data(ms.Tensor(rng.normal(0, 0.5, parameter.shape).astype(np.float32)))
    model.set_train(False)
    weights = {parameter.name: parameter.asnumpy() for parameter in model.trainable_params()}
    name = next(key.removesuffix(".positions") for key in weights if key.endswith(".positions"))
    history = np.array([[0, 0, 9, 27, 5, 8]], np.int32)
    embeddings, mask = model.items.history(ms.Tensor(history))
    found = model.tokeniser.encoder(embeddings, mask, None, True).asnumpy()[0, 2:]
    np.testing.assert_allclose(found, attended(weights, name, 2, embeddings.asnumpy()[0, 2:]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", CAUSAL)
def test_a_causal_encoder_sees_nothing_behind_a_position(encoder, make_model):
    model = make_model("TwoTower", encoder=encoder)
    model.set_train(False)
    history = np.array([[0, 3, 9, 27, 5, 8]] * 2, np.int32)
    history[1, 4] = 30
    embeddings, mask = model.items.history(ms.Tensor(history))
    vectors = model.tokeniser.encoder(embeddings, mask, None, True).asnumpy()
    np.testing.assert_allclose(vectors[0, 1:4], vectors[1, 1:4], atol=1e-5)
    assert (np.abs(vectors[0, 4:] - vectors[1, 4:]).max(1) > 1e-4).all()


@pytest.mark.parametrize("encoder", CAUSAL)
def test_positions_without_a_target_and_empty_histories_teach_nothing(encoder, make_model):
    model = make_model("TwoTower", encoder=encoder)
    history, positive, *drawn, _, quantised, _ = batch_of(model)
    model.set_train(False)  # no dropout: rows of noise would move
    gradient = ms.value_and_grad(model, None, list(model.trainable_params()), has_aux=True)

    def learnt(history, positive):
        noise = ms.Tensor(np.full(model.noise_size([history.shape]), 0.5, np.float32))
        arrays = ms.Tensor(history), ms.Tensor(positive)
        (loss, ranking), gradients = gradient(*arrays, *drawn, noise, quantised, (history.shape,))
        return [loss.asnumpy(), ranking.asnumpy(), *(each.asnumpy() for each in gradients)]

    history, positive = history.asnumpy(), positive.asnumpy()
    whole = learnt(history, positive)
    empty = np.zeros((3, 6), np.int32)
    for one, other in zip(learnt(*(np.concatenate([rows, empty]) for rows in (history, positive))), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    some = positive * (np.arange(6) != 4)
    mean = (whole[1] * (positive > 0).sum() - learnt(history, some)[1] * (some > 0).sum()) / (positive[:, 4] > 0).sum()
    at_4 = learnt(history, positive * (np.arange(6) == 4))[1]
    np.testing.assert_allclose(mean, at_4, rtol=1e-4)  # each position counts once, whatever stands beside it


@pytest.mark.parametrize("encoder", CAUSAL)
def test_narrow_rows_teach_what_whole_ones_do(encoder, make_model):
    known = Features(feature_table({"sex": list("F" * 9 + "M" * 9)}))
    model = make_model("TwoTower", encoder=encoder, l2=0.1, features=known, user_features=("sex",))
    model.set_train(False)  # no dropout: rows of noise would move
    history, positive, *_, noise, quantised, _ = batch_of(model)
    short = ms.Tensor(((np.arange(16)[:, None] < 6) | (np.arange(6) > 2)).astype(np.int32))
    negative = np.random.default_rng(1).integers(1, 41, (96, 20)).astype(np.int32)  # of each place its own
    gradient = ms.value_and_grad(model, None, list(model.trainable_params()), has_aux=True)
    user, learnt = ms.Tensor(known.user.values[1:17]), []
    for shapes in (((16, 6),), ((6, 6), (10, 3))):
        drawn = ms.Tensor(negative[widths.places(np.arange(96).reshape(16, 6), shapes)[:, 0]])
        expected = ops.zeros(drawn.shape, ms.float32)
        values, gradients = gradient(history * short, positive * short, drawn, expected, noise, quantised, shapes, user)
        learnt.append([each.asnumpy() for each in (*values, *gradients)])
    for whole, parts in zip(*learnt, strict=True):
        np.testing.assert_allclose(parts, whole, atol=1e-5)


@pytest.mark.parametrize("encoder", CAUSAL)
def test_short_histories_are_encoded_without_padding_to_the_same_vectors(encoder, make_model, monkeypatch):
    """Some of them longer than what is read, one empty; in the order in which they came."""
    side = models.QuerySide(make_model("TwoTower", encoder=encoder), 8)
    rng = np.random.default_rng(3)
    lengths = [0, 9, *rng.integers(1, 7, 18)]
    asked = Queries.without_targets(Ragged.from_rows([rng.integers(1, 41, length) for length in lengths]))
    wide = side.raw_tokens(asked)
    monkeypatch.setattr(widths, "LONG", 0)
    monkeypatch.setattr(widths, "WORTH", 1)
    assert set(side._widths(asked)) == {2, 3, 6}
    np.testing.assert_allclose(side.raw_tokens(asked), wide, atol=1e-5)
    assert len({tuple(vector) for vector in wide.round(4).reshape(len(wide), -1)}) > 15


def test_a_recurrent_state_knows_nothing_of_padding(make_model):
    model = make_model("TwoTower", encoder="GRU4Rec")
    model.set_train(False)
    encoded = [
        model.tokeniser.encoder(*model.items.history(ms.Tensor(np.array([row], np.int32))), None, True).asnumpy()[0]
        for row in ([7, 9], [0, 7, 9], [0, 0, 0, 0, 7, 9], [0, 0, 0])
    ]
    for vectors in encoded[1:3]:
        np.testing.assert_allclose(vectors[-2:], encoded[0], atol=1e-6)
    assert not encoded[3].any()


@pytest.mark.parametrize("encoder", CAUSAL)
def test_every_dropout_draws_from_noise_of_its_own(encoder, make_model):
    model = make_model("TwoTower", encoder=encoder, dropout=0.5, history_dropout=0.5)
    embeddings, mask = model.items.history(ms.Tensor(np.array([[0, 3, 9, 27, 5, 8]], np.int32)))
    encoder = model.tokeniser.encoder.set_train(True)
    noise = np.random.default_rng(2).random(6 + encoder.noise_width, np.float32)

    def vectors(noise):
        return encoder(embeddings, mask, (ms.Tensor(noise[:6]), ms.Tensor(noise[6:])), True).asnumpy()

    before = vectors(noise)
    for first in range(6, len(noise), embeddings.shape[2]):
        other = noise.copy()
        other[first : first + embeddings.shape[2]] += 0.5  # of one place alone, others fall away
        assert np.abs(vectors(other) - before).max() > 1e-5, first


@pytest.mark.parametrize("encoder", CAUSAL)
def test_tokens_of_every_position_end_with_those_of_the_whole_history(encoder, make_model):
    model = make_model("AllToAll", encoder=encoder, tokeniser="heads")
    model.set_train(False)
    history = ms.Tensor(np.array([[0, 3, 9, 27, 5, 8], [1, 2, 3, 4, 5, 6]], np.int32))
    width = model.tokeniser.encoder.noise_width
    noise = [ms.Tensor(np.random.default_rng(n).random(n, np.float32)) for n in (12, width)]
    for given in (None, noise):
        every = model.tokens(history, None, given, True).asnumpy().reshape(2, 6, 3, -1)
        np.testing.assert_allclose(every[:, -1], model.tokens(history, None, given).asnumpy(), atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("tokeniser", ["whole", "heads", "segments", "windows"])
def test_onnx_gives_the_codes_of_the_model(encoder, tokeniser, make_model, tmp_path):
    if not hasattr(ENCODERS[encoder], "onnx"):
        return  # refused, as tests/models/test_onnx_export.py shows
    from models.onnx_export import export_query_side
    from retrieval.engines.onnx_query import OnnxQuery

    model = make_model("DQMatch", encoder=encoder, tokeniser=tokeniser)
    model.items.table[0] = 0
    rng = np.random.default_rng(1)
    histories = [rng.choice(40, rng.integers(1, 9), replace=False) + 1 for _ in range(60)]
    queries, side = Queries.without_targets(Ragged.from_rows(histories)), models.QuerySide(model, 64)
    model.start_quantiser(side.raw_tokens(queries), 32, 0)
    export_query_side(model, tmp_path / "query.onnx")
    codes = side.codes(queries)
    assert (OnnxQuery(tmp_path / "query.onnx").codes(histories) == codes).mean() > 0.99  # ties of rounding
