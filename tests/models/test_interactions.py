"""Every interaction gives one score on every path: MindSpore's graph, NumPy, torch, a saved scorer, an index."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from models.interactions import InteractionCell
from retrieval import ArrayLibrary, build_index, load_scorer, save_scorer
from retrieval.interactions import INTERACTIONS, DotBeside, Interaction, Operations, interaction
from retrieval.interactions.base import dense_weights

E = D = 6
N_ITEMS, BATCH, TOKENS = 23, 4, 3
CASES = [(name, {"interaction_dot": False}) for name in INTERACTIONS]
CASES += [("DNN", {}), ("DNN", {"interaction_hidden": (7, 5)}), ("bilinear", {"token_embedding_size": 5})]
CASES += [("DNN", {"token_embedding_size": 5}), ("CrossNet", {"interaction_dot": False, "interaction_layers": 3})]


def settings_with(changes):
    sizes = {"embedding_size": E, "token_embedding_size": D, "K_i": 3, "interaction_hidden": (7,)}
    return {**sizes, **changes}


@pytest.fixture(params=CASES, ids=str)
def case(request, graph_mode):
    """A cell with every weight drawn, tokens (B, K, D), items (n_items, E)."""
    (name, changes), rng = request.param, np.random.default_rng(3)
    cell = InteractionCell(name, settings_with(changes), rng)
    for parameter in cell.get_parameters():
        parameter.set_data(ms.Tensor(rng.normal(0, 0.5, parameter.shape).astype(np.float32)))
    tokens = rng.normal(size=(BATCH, TOKENS, cell.formula.token_embedding_size)).astype(np.float32)
    return cell, tokens, rng.normal(size=(N_ITEMS, E)).astype(np.float32)


class Weighted(nn.Cell):
    """A scalar that depends on every score alike, for gradients; and the scores."""

    def __init__(self, interaction):
        super().__init__()
        self.interaction = interaction

    def construct(self, tokens, items, weights):
        scores = self.interaction(tokens, items)
        return (scores * weights).sum(), scores


def test_all_paths_agree_and_gradients_reach_everything(case, tmp_path):
    cell, tokens, items = case
    weights = ms.Tensor(np.random.default_rng(4).normal(size=(BATCH, TOKENS, N_ITEMS)).astype(np.float32))
    step = ms.value_and_grad(Weighted(cell), (0, 1), list(cell.trainable_params()), has_aux=True)

    # Items that the batch shares, and the same items in every row.
    (_, shared), gradients = step(ms.Tensor(tokens), ms.Tensor(items), weights)
    (_, each), again = step(ms.Tensor(tokens), ms.Tensor(np.tile(items, (BATCH, 1, 1))), weights)
    inside = shared.asnumpy()
    close(each.asnumpy(), inside)
    close(again[0][1].asnumpy().sum(0), gradients[0][1].asnumpy(), 1e-4)
    for parameter, ours, theirs in zip(cell.trainable_params(), gradients[1], again[1], strict=True):
        assert np.abs(ours.asnumpy()).max() > 0, f"no gradient reaches {parameter.name}"
        close(theirs.asnumpy(), ours.asnumpy(), 1e-4)

    # The formula on NumPy, in float64 with the axes of a batch: the truth, and its slope as a check of the gradients.
    w = {name: parameter.asnumpy().astype(np.float64) for name, parameter in cell.weights.items()}
    plain = interaction(cell.name, cell.settings)
    close(evaluate(plain, w, tokens, items), inside)
    close(evaluate(plain, w, tokens, np.tile(items, (BATCH, 1, 1))), inside)
    for name, gradient in zip(w, gradients[1], strict=True):
        close(slope(plain, w, name, tokens, items, weights.asnumpy()), gradient.asnumpy().flat[0], 1e-3)

    # Outside the graph: codes, an array library, a file, an index.
    rows = inside.reshape(-1, N_ITEMS)
    codewords = tokens.reshape(1, len(rows), -1)
    scorer = cell.scorer(items, codewords=codewords)
    codes = np.arange(len(rows))
    close(scorer.scores(codes), rows)
    save_scorer(scorer, tmp_path / "scorer.npz")
    np.testing.assert_array_equal(load_scorer(tmp_path / "scorer.npz").scores(codes), scorer.scores(codes))
    index = build_index(scorer, codes, N_ITEMS, relu=False, progress=False)
    found, scores = index.recommend(codes[:, None], N_ITEMS)
    close(scores, np.take_along_axis(rows, found - 1, 1))
    for library in libraries():
        library.work_bytes = 4 * cell.formula.pair_floats * 30  # blocks of a few pairs
        close(scorer.on(library).scores(codes), rows)


def test_a_relu_of_every_path(case):
    cell, tokens, items = case
    scores = cell(ms.Tensor(tokens), ms.Tensor(items)).asnumpy()
    got = cell.scorer(items, score_bias=-0.3).token_scores(tokens.reshape(-1, tokens.shape[2]))
    close(got, np.maximum(scores - 0.3, 0).reshape(got.shape))


@pytest.mark.parametrize("name", INTERACTIONS)
def test_a_dot_product_may_stand_beside(name):
    rng = np.random.default_rng(0)
    beside = interaction(name, settings_with({}))
    assert isinstance(beside, DotBeside) == INTERACTIONS[name].takes_dot
    alone = interaction(name, settings_with({"interaction_dot": False}))
    assert isinstance(alone, INTERACTIONS[name])
    if isinstance(beside, DotBeside):
        weights = {key: rng.normal(size=array.shape) for key, array in beside.weights(rng).items()}
        tokens, items = rng.normal(size=(5, D)), rng.normal(size=(9, E))
        expected = evaluate(alone, weights, tokens, items) + tokens @ weights["project.weight"] @ items.T
        close(evaluate(beside, weights, tokens, items), expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_cross_network_is_that_of_its_layers_one_after_the_other(layers):
    rng = np.random.default_rng(5)
    sizes = {"token_embedding_size": 5, "interaction_layers": layers, "interaction_dot": False}
    formula = interaction("CrossNet", settings_with(sizes))
    w = {name: rng.normal(size=array.shape) for name, array in formula.weights(rng).items()}
    tokens, items = rng.normal(size=(4, 5)), rng.normal(size=(9, E))
    start = np.array([[np.concatenate([token, item]) for item in items] for token in tokens])  # (T, C, D + E)
    x = start
    for layer in range(layers):
        x = start * (x @ w[f"cross.{layer}.weight"].T + w[f"cross.{layer}.bias"]) + x
    np.testing.assert_allclose(
        evaluate(formula, w, tokens, items), (x @ w["out.weight"].T + w["out.bias"])[..., 0], rtol=1e-9
    )


def test_weights_start_alike_from_the_same_seed_and_mlps_start_as_the_dot_product():
    for name, changes in CASES:
        formula = interaction(name, settings_with(changes))
        first, second = (formula.weights(np.random.default_rng(1)) for _ in range(2))
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])
            assert first[key].dtype == np.float32
    formula, rng = interaction("DNN", settings_with({})), np.random.default_rng(2)
    tokens, items = rng.normal(size=(5, D)), rng.normal(size=(9, E))
    close(evaluate(formula, formula.weights(rng), tokens, items), tokens @ items.T)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("FM", {}, "unknown interaction 'FM'; choose one of dot"),
        ("dot", {"token_embedding_size": 5}, "as wide as item embeddings"),
        ("DNN", {"interaction_hidden": ()}, "needs a hidden layer"),
        ("MoL", {"interaction_hidden": (7, 5)}, "one hidden layer"),
        ("CrossNet", {"interaction_layers": 0}, "needs a cross layer"),
    ],
)
def test_what_does_not_fit_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        interaction(name, settings_with(changes))


class Distance(Interaction):
    """An interaction of one's own: -|token - P item|^2 with a trained P."""

    def weights(self, rng):
        return dense_weights(rng, "place", self.embedding_size, self.token_embedding_size)

    def item_side(self, xp, w, items):
        return (self.dense(xp, w, "place", items),)

    def pairs(self, xp, w, tokens, items):
        lengths = (items[0] * items[0]).sum(-1)[..., None, :] + (tokens[0] * tokens[0]).sum(-1)[..., :, None]
        return 2 * xp.inner(tokens[0], items[0]) - lengths


def test_an_interaction_takes_one_class_and_one_line(graph_mode, monkeypatch, tmp_path):
    monkeypatch.setitem(INTERACTIONS, "distance", Distance)
    rng = np.random.default_rng(0)
    cell = InteractionCell("distance", settings_with({"interaction_dot": False}), rng)
    tokens, items = rng.normal(size=(2, 3, D)).astype(np.float32), rng.normal(size=(9, E)).astype(np.float32)
    save_scorer(cell.scorer(items), tmp_path / "scorer.npz")
    scores = load_scorer(tmp_path / "scorer.npz").token_scores(tokens[0])
    w = {name: parameter.asnumpy() for name, parameter in cell.weights.items()}
    places = items @ w["place.weight"].T + w["place.bias"]
    close(scores, -((tokens[0][:, None] - places) ** 2).sum(2))
    close(cell(ms.Tensor(tokens), ms.Tensor(items)).asnumpy()[0], scores)


def libraries():
    yield ArrayLibrary("numpy")
    try:
        yield ArrayLibrary("torch")
    except ImportError:  # the NumPy library runs the same code
        return


def evaluate(formula, w, tokens, items):
    xp = Operations(np)
    return formula.pairs(xp, w, formula.token_side(xp, w, tokens), formula.item_side(xp, w, items))


def slope(formula, w, name, tokens, items, weights, step=1e-5):
    """The derivative of Weighted by the first entry of a weight, by differences in float64."""
    values = []
    for sign in (1, -1):
        moved = w[name].copy()
        moved.flat[0] += sign * step
        values.append((evaluate(formula, w | {name: moved}, tokens, items) * weights).sum())
    return (values[0] - values[1]) / (2 * step)


def close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * max(1, np.abs(expected).max()))


def test_scores_of_tokens_add_up_where_the_interaction_says_so_and_nowhere_else(case):
    cell, tokens, items = case
    scorer = cell.scorer(items)
    of_sum = scorer.token_scores(tokens.sum(1))
    summed = scorer.token_scores(tokens.reshape(-1, tokens.shape[2])).reshape(BATCH, TOKENS, -1).sum(1)
    assert np.allclose(of_sum, summed, atol=1e-4) == scorer.linear
    assert not cell.scorer(items, score_bias=0.1).linear
