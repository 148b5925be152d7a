"""Properties of the models: who learns, who does not, what padding does, and that all score paths agree."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import models
from data.ragged import Ragged
from errors import UserError
from load_csv_dataset import Queries
from models.losses import sampled_softmax, token_correlation
from retrieval import IndexRecommender, build_index
from training import TrainStep

NAMES = ["TwoTower", "AllToAll", "DQMatch"]


def queries(n=25, seed=5):
    rng = np.random.default_rng(seed)
    rows = [rng.choice(np.arange(1, 41), rng.integers(1, 12), replace=False) for _ in range(n)]
    return Queries(Ragged.from_rows(rows), Ragged.from_rows([[1]] * n))


def started(model, seed=0):
    """The model with its quantiser on, its codebooks on tokens of random histories."""
    model.start_quantiser(models.QuerySide(model, 64).raw_tokens(queries(60, seed=9).histories), 32, seed)
    return model


def gradients(model, batch):
    """By parameter name, after one step: the interaction's last layer starts at zero and lets nothing through."""
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.01))
    step.set_train(True)
    step(*batch)
    parameters = list(model.trainable_params())
    found = ms.value_and_grad(model, None, parameters, has_aux=True)(*batch)[1]
    return {p.name: g.asnumpy() for p, g in zip(parameters, found, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_ranking_loss_reaches_every_trainable_parameter(name, make_model, batch):
    """Without commitment, penalty and norm, so that what arrives comes through the scores alone (and the quantiser)."""
    model = make_model(name, beta=0.0, decorrelation=0.0, l2=0.0)
    if name == "DQMatch":
        started(model)
    found = gradients(model, batch)
    # A constant of a score changes no ranking: the softmax gives the last bias exactly nothing to learn.
    silent = [n for n, g in found.items() if np.abs(g).max() == 0 and not n.endswith("interaction.out.bias")]
    assert not silent
    assert not any("quantise" in n for n in found)


@pytest.mark.parametrize("name", NAMES)
def test_padding_row_stays_zero_and_padding_changes_nothing(name, make_model, batch):
    model = make_model(name)
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.01))
    step.set_train(True)
    for _ in range(3):
        step(*batch)
    assert (model.item_table.asnumpy()[0] == 0).all()
    assert (np.abs(model.item_table.asnumpy()[1:]).max(1) > 0).all()

    side = models.QuerySide(model, 4)
    short, long = Ragged.from_rows([[3, 7]]), Ragged.from_rows([[9, 9, 9, 9, 3, 7, 3, 7, 3, 7]])
    np.testing.assert_allclose(side.tokens(short), side.tokens(long), atol=1e-6)     # same mean of the last six


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_changes_no_parameter_and_drops_nothing_out(name, make_model):
    model = make_model(name, dropout=0.5, history_dropout=0.5)
    if name == "DQMatch":
        started(model)
    before = {p.name: p.asnumpy().copy() for p in model.get_parameters()}
    recommender = models.Exhaustive(model, 8)
    first, second = recommender.recommend(queries(), 10), recommender.recommend(queries(), 10)
    assert (first[0] == second[0]).all() and (first[1] == second[1]).all()
    assert all((p.asnumpy() == before[p.name]).all() for p in model.get_parameters())


def test_training_moves_the_codebook_only_through_its_averages(make_model, batch):
    model = started(make_model("DQMatch"))
    before = model.quantiser.tables()
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.01))
    step.set_train(True)
    step(*batch)
    assert not np.allclose(before, model.quantiser.tables())


@pytest.mark.parametrize("score_bias", [None, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_scores_outside_the_graph_equal_those_inside(name, score_bias, make_model):
    if name == "TwoTower" and score_bias is not None:
        pytest.skip("TwoTower has no score bias")
    model = make_model(name, score_bias=score_bias)
    if name == "DQMatch":
        started(model)
    model.set_train(False)
    side = models.QuerySide(model, 25)
    tokens = side.tokens(queries().histories)
    inside = model.score(ms.Tensor(tokens), ms.Tensor(np.arange(1, 41, dtype=np.int32))).asnumpy()
    np.testing.assert_allclose(models.Exhaustive(model, 25).scores(queries()), inside, atol=1e-5)
    each = ms.Tensor(np.tile(np.arange(1, 41, dtype=np.int32), (25, 1)))
    np.testing.assert_allclose(model.score(ms.Tensor(tokens), each).asnumpy(), inside, atol=1e-5)


@pytest.mark.parametrize("score_bias", [None, 0.0, -0.5])
def test_unpruned_index_recommends_what_exhaustive_scoring_does(score_bias, make_model):
    model = started(make_model("DQMatch", score_bias=score_bias))
    side, scorer = models.QuerySide(model, 25), model.scorer()
    index = build_index(scorer, np.arange(16**2), 40, relu=score_bias is not None, progress=False)
    recommender = IndexRecommender(index, lambda q: side.codes(q.histories), scorer)
    exhaustive = models.Exhaustive(model, 25)
    for exclude_seen in (True, False):
        items, scores = recommender.recommend(queries(), 20, exclude_seen)
        expected_items, expected_scores = exhaustive.recommend(queries(), 20, exclude_seen)
        np.testing.assert_allclose(scores, expected_scores, atol=1e-5)
        gaps = np.abs(np.diff(np.maximum(expected_scores, -1e9), axis=1, prepend=1e9, append=-2e9))
        settled = np.minimum(gaps[:, 1:], gaps[:, :-1]) > 1e-5                       # ids may swap only at a tie
        settled |= np.isneginf(expected_scores)
        assert (items == expected_items)[settled].all() and settled.mean() > 0.9


def test_a_lower_bias_gives_a_sparser_index(make_model):
    postings = []
    for score_bias in (0.5, 0.0, -0.5):
        model = started(make_model("DQMatch", score_bias=score_bias))
        index = build_index(model.scorer(), np.arange(256), 40, relu=True, progress=False)
        postings.append(index.statistics()["postings"])
    assert postings[0] > postings[1] > postings[2] > 0


def test_tokens_start_apart_and_hold_the_user_vector(make_model):
    model = make_model("AllToAll", K_u=4)
    weight = model.user_heads.weight.asnumpy().reshape(4, 8, 8)
    np.testing.assert_allclose(weight.sum(0), np.eye(8), atol=0.1)
    assert max(abs((weight[i] * weight[j]).sum()) for i in range(4) for j in range(i)) < 0.2


def test_same_seed_same_model_and_other_seed_other_model(make_model):
    def values(seed):
        return {p.name: p.asnumpy() for p in make_model("DQMatch", seed=seed).get_parameters()}

    first, second, other = values(1), values(1), values(2)
    assert all((first[name] == second[name]).all() for name in first)
    # Biases and the last layer start at zero, counts at one and the switch at off; all else is drawn.
    alike = [name for name in first if (first[name] == other[name]).all()]
    assert all(name.endswith(("bias", "out.weight", "ema_count", "quantised")) for name in alike)


def test_biases_start_at_zero(make_model):
    """The release starts every bias at one."""
    assert all((p.asnumpy() == 0).all() for p in make_model("DQMatch").get_parameters() if p.name.endswith("bias"))


def test_codebooks_of_any_size(make_model, batch):
    """The release works for 256 codewords only, and needs more vectors than codewords in every batch."""
    model = started(make_model("DQMatch", K_c=150, num_codebooks=4))
    model.set_train(True)
    assert np.isfinite(model(*batch)[0].asnumpy())
    assert model.quantiser.tables().shape == (4, 150, 2)


@pytest.mark.parametrize(
    "change", [{"model": "SimpleX"}, {"encoder": "LSTM"}, {"interaction": "FM"}, {"num_codebooks": 3}]
)
def test_what_cannot_be_built_is_refused(change, make_model):
    with pytest.raises(UserError, match="choose one of|cannot be built"):
        make_model(change.pop("model", "DQMatch"), **change)


def test_sampled_softmax_of_all_items_is_the_full_softmax():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 9)).astype(np.float32)
    positive = rng.integers(0, 9, 5)
    collision = np.arange(9)[None] == positive[:, None]
    picked = np.take_along_axis(scores, positive[:, None], 1)
    no_correction = ms.Tensor(np.zeros(9, np.float32))
    loss = sampled_softmax(ms.Tensor(picked), ms.Tensor(scores), no_correction, ms.Tensor(collision))
    expected = (np.log(np.exp(scores).sum(1)) - picked[:, 0]).mean()
    assert loss.asnumpy() == pytest.approx(expected, rel=1e-5)


def test_token_correlation_of_known_tokens():
    x, y = np.eye(2, dtype=np.float32)
    alike = np.array([[x, x], [-x, -x]])
    apart = np.array([[x, y], [-x, -y]])
    assert token_correlation(ms.Tensor(alike)).asnumpy() == pytest.approx(1, abs=1e-5)
    assert token_correlation(ms.Tensor(apart)).asnumpy() == pytest.approx(0, abs=1e-5)
    assert token_correlation(ms.Tensor(alike[:, :1])).asnumpy() == 0
