"""Properties of the models: who learns, who does not, what padding does, and that all score paths agree."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from threadpoolctl import threadpool_limits

import models
from data.ragged import Ragged
from errors import UserError
from load_csv_dataset import Queries
from retrieval import IndexRecommender, build_index
from retrieval.interactions import INTERACTIONS
from training import TrainStep

NAMES = ["TwoTower", "AllToAll", "DQMatch"]


def queries(n=25, seed=5):
    rng = np.random.default_rng(seed)
    rows = [rng.choice(np.arange(1, 41), rng.integers(1, 12), replace=False) for _ in range(n)]
    return Queries(Ragged.from_rows(rows), Ragged.from_rows([[1]] * n))


def asked(histories):
    return Queries.without_targets(Ragged.from_rows(histories))


def started(model, seed=0):
    """The model with its quantiser on, its codebooks on tokens of random histories."""
    model.start_quantiser(models.QuerySide(model, 64).raw_tokens(queries(60, seed=9)), 32, seed)
    return model


def moved(model, make_batch):
    """By how much two steps move each parameter, by its name: in the first the interaction's last layer is zero and
    lets nothing through."""
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.01))
    step.set_train(True)
    before = {p.name: p.asnumpy().copy() for p in model.trainable_params()}
    for _ in range(2):
        step(*make_batch(model))
    return {p.name: np.abs(p.asnumpy() - before[p.name]).max() for p in model.trainable_params()}


@pytest.mark.parametrize("name", NAMES)
def test_ranking_loss_reaches_every_trainable_parameter(name, make_model, make_batch, graph_mode):
    """Without commitment and norm, so that what arrives comes through the scores alone (and the quantiser)."""
    model = make_model(name, beta=0.0, l2=0.0)
    if name == "DQMatch":
        started(model)
    found = moved(model, make_batch)
    # A constant of a score changes no ranking: the softmax gives the last bias exactly nothing to learn.
    silent = [n for n, by in found.items() if by == 0 and not n.endswith("interaction.out.bias")]
    assert not silent
    assert not any("quantise" in n for n in found)


@pytest.mark.parametrize("name", NAMES)
def test_padding_row_stays_zero_and_padding_changes_nothing(name, make_model, make_batch):
    model = make_model(name)
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.01))
    step.set_train(True)
    for _ in range(3):
        step(*make_batch(model))
    assert (model.items.table.asnumpy()[0] == 0).all()
    assert (np.abs(model.items.table.asnumpy()[1:]).max(1) > 0).all()

    side = models.QuerySide(model, 4)
    # The last segment of both means the same; a wholly empty segment may only give a constant.
    short, long, empty = ([7, 7], [9, 9, 9, 9, 7, 7], [])
    tokens = side.tokens(asked([short, long, empty]))
    np.testing.assert_allclose(tokens[0, -1], tokens[1 if name != "TwoTower" else 0, -1], atol=1e-6)
    assert np.isfinite(tokens).all()


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


def test_training_moves_the_codebook_only_through_its_averages(make_model, make_batch):
    model = started(make_model("DQMatch"))
    before = model.quantiser.tables()
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=0.01))
    step.set_train(True)
    step(*make_batch(model))
    assert not np.allclose(before, model.quantiser.tables())


@pytest.mark.parametrize(
    ("name", "score_bias"),
    [("TwoTower", None), ("AllToAll", None), ("AllToAll", 0.3), ("DQMatch", None), ("DQMatch", 0.3)],
)
def test_scores_outside_the_graph_equal_those_inside(name, score_bias, make_model):
    model = make_model(name, score_bias=score_bias)
    if name == "DQMatch":
        started(model)
    model.set_train(False)
    side = models.QuerySide(model, 25)
    tokens = side.tokens(queries())
    inside = model.score(ms.Tensor(tokens), ms.Tensor(np.arange(1, 41, dtype=np.int32))).asnumpy()
    rounding = 1e-6 * np.abs(inside).max()  # processors add up in other orders
    np.testing.assert_allclose(models.Exhaustive(model, 25).scores(queries()), inside, atol=rounding)
    each = ms.Tensor(np.tile(np.arange(1, 41, dtype=np.int32), (25, 1)))
    np.testing.assert_allclose(model.score(ms.Tensor(tokens), each).asnumpy(), inside, atol=rounding)


@pytest.mark.parametrize(
    "changes",
    [
        {"score_bias": None},
        {"score_bias": 0.0},
        {"score_bias": -0.5},
        {"quantiser": "product"},
        {"quantiser": "pursuit", "interaction": "dot", "num_codebooks": 1},
        {"quantiser": "pursuit", "interaction": "bilinear", "num_codebooks": 1},
        {"quantiser": "pursuit", "interaction": "DNN", "num_codebooks": 1},
    ],
)
def test_unpruned_index_recommends_what_exhaustive_scoring_does(changes, make_model):
    model = started(make_model("DQMatch", **changes))
    side, scorer = models.QuerySide(model, 25), model.scorer()
    relu = model.score_bias is not None
    index = build_index(scorer, np.arange(model.quantiser.n_codes), 40, relu=relu, progress=False)
    recommender = IndexRecommender(index, side.keys, scorer)
    exhaustive = models.Exhaustive(model, 25)
    for exclude_seen in (True, False):
        items, scores = recommender.recommend(queries(), 20, exclude_seen)
        expected_items, expected_scores = exhaustive.recommend(queries(), 20, exclude_seen)
        np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
        gaps = np.abs(np.diff(np.maximum(expected_scores, -1e9), axis=1, prepend=1e9, append=-2e9))
        settled = np.minimum(gaps[:, 1:], gaps[:, :-1]) > 1e-4  # ids may swap only at a tie
        settled |= np.isneginf(expected_scores)
        assert (items == expected_items)[settled].all() and settled.mean() > 0.9


def test_a_lower_bias_gives_a_sparser_index(make_model):
    postings = []
    for score_bias in (0.5, 0.0, -0.5):
        model = started(make_model("DQMatch", score_bias=score_bias))
        index = build_index(model.scorer(), np.arange(256), 40, relu=True, progress=False)
        postings.append(index.statistics()["postings"])
    assert postings[0] > postings[1] > postings[2] > 0


def test_each_token_comes_from_its_own_segment_of_the_history(make_model):
    model = make_model("AllToAll", K_u=3, tokeniser="segments")
    side = models.QuerySide(model, 8)
    before = side.tokens(asked([[1, 2, 3, 4, 5, 6]]))
    for place, token in ((0, 0), (3, 1), (5, 2)):
        history = [1, 2, 3, 4, 5, 6]
        history[place] = 9
        moved = np.abs(side.tokens(asked([history])) - before).max(2)[0] > 1e-6
        assert moved.tolist() == [k == token for k in range(3)]


def test_each_token_comes_from_its_own_window_of_the_newest_items(make_model):
    """All six, three and two of them, whatever stands before; so a short history leaves none empty."""
    model = make_model("AllToAll", K_u=3, tokeniser="windows")
    side = models.QuerySide(model, 8)
    before = side.tokens(asked([[1, 2, 3, 4, 5, 6]]))
    for place, seen in ((0, 1), (2, 1), (3, 2), (4, 3), (5, 3)):
        history = [1, 2, 3, 4, 5, 6]
        history[place] = 9
        moved = np.abs(side.tokens(asked([history])) - before).max(2)[0] > 1e-6
        assert moved.tolist() == [k < seen for k in range(3)]
    single, none = side.tokens(asked([[7], []]))
    assert (np.abs(single - none).max(1) > 1e-6).all()


def test_same_seed_same_model_and_other_seed_other_model(make_model):
    def values(seed):
        return {p.name: p.asnumpy() for p in make_model("DQMatch", seed=seed).get_parameters()}

    first, second, other = values(1), values(1), values(2)
    assert all((first[name] == second[name]).all() for name in first)
    # Biases and the last layer start at zero, the projection as the identity, and so on; all else is drawn.
    alike = [name for name in first if (first[name] == other[name]).all()]
    assert all(name.endswith(("bias", "out.weight", "project.weight", "ema_count", "quantised")) for name in alike)


@pytest.mark.parametrize(("quantiser", "num_codebooks"), [("pursuit", 1), ("residual", 2)])
def test_codewords_are_the_same_on_any_number_of_threads(quantiser, num_codebooks, make_model):
    """Of as many vectors as it takes for k-means and BLAS to share them out."""
    flags = {"encoder": "SASRec", "interaction": "dot", "K_u": 1, "K_i": 1, "K_c": 128}
    flags |= {"embedding_size": 64, "token_embedding_size": 64, "token_lookups": 1}
    tokens = np.random.default_rng(0).normal(size=(4000, 1, 64)).astype(np.float32)
    tables = []
    for threads in (1, 2):
        model = make_model("DQMatch", quantiser=quantiser, num_codebooks=num_codebooks, **flags)
        with threadpool_limits(threads):
            model.start_quantiser(tokens, 32, 0)
        tables.append(model.quantiser.tables())
    np.testing.assert_array_equal(*tables)


def test_item_table_starts_with_the_standard_deviation_asked_for(make_model):
    """In the release the initialiser never reaches the table."""
    table = make_model("TwoTower", n_items=2000, embedding_std=0.7).items.table.asnumpy()
    assert table[1:].std() == pytest.approx(0.7, rel=0.02) and (table[0] == 0).all()


def test_norm_in_the_loss_does_not_grow_with_the_batch_and_every_part_counts_once(make_model, make_batch):
    """In the release the norm grows with the batch and the commitment counts beta + 1 times."""
    parts = {"l2": 0.5, "beta": 3.0}
    model = started(make_model("DQMatch", **parts))
    model.set_train(False)
    batch = make_batch(model)
    history, noise = batch[0], batch[4]
    loss, softmax = (float(x.asnumpy()) for x in model(*batch))
    rows = len(noise) - model.noise_width
    tokens = model.tokens(history, None, (noise[:rows], noise[rows:]))
    commitment = float(model.quantiser(tokens)[1].asnumpy())
    rows = model.items.table.asnumpy()[history.asnumpy()][history.asnumpy() > 0]
    norm = (rows**2).sum(1).mean()
    assert loss - softmax == pytest.approx(0.5 * norm + 3.0 * commitment, rel=1e-4)


def test_an_empty_history_gives_finite_scores_and_item_0_is_never_recommended(make_model):
    model = make_model("AllToAll")
    nobody = Queries(Ragged.from_rows([[], [4]]), Ragged.from_rows([[1], [1]]))
    items, scores = models.Exhaustive(model, 8).recommend(nobody, 39)
    assert np.isfinite(scores).all() and (items > 0).all() and 4 not in items[1]


def test_biases_start_at_zero(make_model):
    """The release starts every bias at one."""
    assert all((p.asnumpy() == 0).all() for p in make_model("DQMatch").get_parameters() if p.name.endswith("bias"))


def test_codebooks_of_any_size(make_model, make_batch):
    """The release works for 256 codewords only, and needs more vectors than codewords in every batch."""
    model = started(make_model("DQMatch", K_c=150, num_codebooks=4))
    model.set_train(True)
    assert np.isfinite(model(*make_batch(model))[0].asnumpy())
    assert model.quantiser.tables().shape == (4, 150, 8)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "SimpleX"},
        {"encoder": "LSTM"},
        {"interaction": "FM"},
        {"quantiser": "binary"},
        {"K_u": 4, "tokeniser": "segments"},
        {"quantiser": "product", "num_codebooks": 3},
    ],
)
def test_what_cannot_be_built_is_refused(change, make_model):
    with pytest.raises(UserError, match="choose one of|cannot be built"):
        make_model(change.pop("model", "DQMatch"), **change)


@pytest.mark.parametrize("name", INTERACTIONS)
def test_a_two_tower_model_has_the_product_that_is_asked_for(name, make_model):
    """DSSM and SimpleX were measured without their item tower and cosine while it was always the dot product."""
    product = not INTERACTIONS[name].takes_dot
    model = make_model("TwoTower", interaction=name, interaction_hidden=(4,), score_bias=0.5)
    assert model.interaction.name == (name if product else "dot") and model.score_bias is None
    rows = queries()
    tokens = models.QuerySide(model, 64).tokens(rows)  # (U, 1, D)
    expected = make_model("AllToAll", interaction=model.interaction.name, interaction_hidden=(4,), tokeniser="whole")
    for theirs, ours in zip(expected.get_parameters(), model.get_parameters(), strict=True):
        assert theirs.name == ours.name and theirs.shape == ours.shape
    scores = model.score(ms.Tensor(tokens), ms.Tensor(np.arange(1, 41, dtype=np.int32))).asnumpy()
    found = models.Exhaustive(model, 64).scores(rows)
    np.testing.assert_allclose(found[:, -40:], scores, rtol=1e-4, atol=1e-5)


def test_a_model_tells_which_settings_it_was_built_of(make_model):
    """All others that some part reads change nothing in it."""
    unread = models.readable() - make_model("TwoTower", encoder="SASRec", loss="BCE").read
    assert {"K_c", "hidden", "gbce_t", "ccl_margin", "interaction_hidden", "quantiser", "K_u"} <= unread
    assert not {"att_layer", "dropout", "embedding_size", "seq_len", "l2", "loss", "encoder"} & unread
    assert "interaction_dot" in unread
    read = make_model("DQMatch", encoder="DNN", interaction="DNN", loss="CCL").read
    assert {"K_c", "K_u", "hidden", "interaction_hidden", "interaction_dot", "ccl_margin", "quantiser"} <= read
