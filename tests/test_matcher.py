"""A model beside its wide table: items that come later."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import matcher as matcher_module
import models
from data.queries import Queries
from data.ragged import Ragged
from errors import UserError
from load_csv_dataset import TrainingSequences
from matcher import Matcher
from retrieval import reranked
from wide import WideSettings, WideTable, blend
from work import Hyperparameters
from workflow import blended, fit_wide

N_ITEMS = 40
CATALOGUE = SimpleNamespace(n_items=N_ITEMS)
pytestmark = pytest.mark.usefixtures("eager_mode")
SMALL = Hyperparameters(
    encoder="DNN",
    embedding_size=8,
    token_embedding_size=8,
    hidden=(16,),
    K_u=2,
    quantiser="pursuit",
    token_lookups=4,
    K_c=16,
    seq_len=6,
    history_dropout=0.0,
    inference_batch_size=64,
    index_loss=None,
    topk=(5,),
)


def walks(users=300, length=12):
    """Users walk along a ring of the items."""
    starts = np.random.default_rng(0).integers(N_ITEMS, size=users)
    return Ragged.from_rows([(start + np.arange(length)) % N_ITEMS + 1 for start in starts])


@pytest.fixture
def matcher():
    return matcher_of(SMALL)


def matcher_of(settings):
    """Of an untrained model and a table that has learnt the ring."""
    model = models.build(settings, CATALOGUE)
    tokens = models.QuerySide(model, 64).raw_tokens(Queries.without_targets(walks(60)))
    model.start_quantiser(tokens, 32, 0)
    table = WideTable.fit(walks(), N_ITEMS, WideSettings(l2=1.0, max_postings=N_ITEMS, lookups=4))
    return Matcher(model, table.scaled(30.0), settings)


@pytest.fixture
def index(matcher):
    return matcher.build(np.arange(16), None)[0]


@pytest.mark.parametrize(("encoder", "interaction"), [("LiGR", "dot"), ("DNN", "MoL")])
def test_the_whole_index_answers_as_the_model_and_its_table_score(encoder, interaction):
    matcher = matcher_of(replace(SMALL, encoder=encoder, interaction=interaction))
    asked = Queries.without_targets(walks(50, length=8))
    index = matcher.build(np.unique(matcher.query_side.codes(asked)), None)[0]
    for seen in (True, False):
        items, scores = matcher.through(index).recommend(asked, N_ITEMS, seen)
        expected = matcher.exhaustive().scores(asked)
        found = items > 0
        assert found.sum(1).tolist() == [N_ITEMS - 8 * seen] * 50
        rows = np.arange(50)[:, None].repeat(N_ITEMS, 1)[found]
        np.testing.assert_allclose(scores[found], expected[rows, items[found] - 1], atol=1e-4)


@pytest.mark.parametrize(("interaction", "shares"), [("dot", reranked.SHARES), ("MoL", 300)])
def test_the_best_items_of_the_index_are_put_in_the_order_of_scores_without_codes(interaction, shares, monkeypatch):
    """All users at once, and in blocks of few, the last one shorter."""
    monkeypatch.setattr(reranked, "SHARES", shares)
    matcher = matcher_of(replace(SMALL, interaction=interaction))
    matcher = Matcher(matcher.model, matcher.wide.scaled(0.001), matcher.settings)  # so that codes count
    asked = Queries.without_targets(walks(50, length=8))
    index = matcher.build(np.arange(16), None)[0]
    exact = matcher.wide.scores(asked.histories)
    for token in matcher.query_side.raw_tokens(asked).transpose(1, 0, 2):
        exact += matcher.model.token_scorer().token_scores(token)
    for n_best, seen in ((12, True), (12, False), (N_ITEMS, True)):
        best = matcher.through(index).recommend(asked, n_best, seen)[0]
        exactly = Matcher(matcher.model, matcher.wide, replace(matcher.settings, rerank=n_best)).through(index)
        items, scores = exactly.recommend(asked, 5, seen)
        assert (items != best[:, :5]).any()
        for user in range(50):
            found = best[user][best[user] > 0]
            wanted = found[np.lexsort((found, -exact[user, found - 1]))][:5]
            np.testing.assert_array_equal(items[user], wanted)
            np.testing.assert_allclose(scores[user], exact[user, wanted - 1], rtol=1e-4)
    few = Queries.without_targets(Ragged.from_rows([np.arange(1, N_ITEMS - 1)]))  # two items are left
    items, scores = exactly.recommend(few, 5)
    assert sorted(items[0]) == [0, 0, 0, N_ITEMS - 1, N_ITEMS] and (scores[items == 0] == -np.inf).all()
    for k in (0, N_ITEMS + 1):
        with pytest.raises(ValueError, match="k must|raise rerank"):
            exactly.recommend(few, k)


@pytest.mark.parametrize(("quantiser", "lookups"), [("pursuit", 4), ("residual", 3)])
def test_reranked_scores_weigh_the_table_as_the_index_does_and_say_what_they_are_made_of(quantiser, lookups):
    """With codes that lose little, as many codewords as histories, scores stay nearly what they were."""
    settings = replace(SMALL, quantiser=quantiser, token_lookups=lookups, K_c=N_ITEMS)
    matcher = matcher_of(settings)
    matcher = Matcher(matcher.model, matcher.wide.scaled(0.01), settings)  # so that codes count
    asked = Queries.without_targets(walks(300, length=8))
    tokens = matcher.query_side.raw_tokens(asked)  # of the forty different histories
    matcher.model.start_quantiser(tokens, 300, 0)
    index = matcher.build(np.unique(matcher.query_side.codes(asked)), None)[0]
    exact = Matcher(matcher.model, matcher.wide, replace(settings, rerank=20)).through(index)
    (items, scores), (_, by_codes) = exact.recommend(asked, 10), matcher.through(index).recommend(asked, 10)
    spread = by_codes.std(1).mean()
    assert np.abs(scores - by_codes).mean() < 0.2 * spread
    made = exact.explain(asked, items)[1].sum(2)
    np.testing.assert_allclose(made, scores, rtol=1e-3, atol=1e-3 * spread)
    items[::2, 3] = 0  # an empty slot has no parts
    assert not exact.explain(asked, items)[1][items == 0].any()


def test_limits_are_chosen_in_no_more_memory_than_the_index_may_take(matcher, monkeypatch):
    """What the judges ask for counts, too, where the index holds few codes."""
    monkeypatch.setattr("matcher.POSTINGS", 30 * 16)
    monkeypatch.setattr("matcher.CAPS", (10,))
    built, build = [], matcher_module.build_pruned
    watched = lambda *given: built.append(build(*given)) or built[-1]  # noqa: E731
    monkeypatch.setattr(matcher_module, "build_pruned", watched)
    matcher.settings = replace(SMALL, index_loss=0.9)
    judges = Queries(walks(60), Ragged(np.arange(61), np.arange(60) % N_ITEMS + 1))
    _, tried = matcher.build(np.arange(1), judges)
    assert len(built[0]) > 1 and built[0].lengths().sum() <= 30 * 16
    assert tried[0]["max_postings"] == 30 * 16 // len(built[0]) < N_ITEMS


def test_a_cap_that_saves_nothing_is_not_tried(matcher):
    """In uint8, lists of more than a third of the items are rows of the catalogue, whatever they hold."""
    held = Ragged(np.arange(61), np.arange(60) % N_ITEMS + 1)
    judges = Queries(walks(60), held)
    for form, shortest in ((None, N_ITEMS), ("float32", 25)):
        matcher.settings = replace(SMALL, index_loss=0.9, index_format=form)
        _, tried = matcher.build(np.arange(16), judges)
        assert min(each["max_postings"] for each in tried) == shortest


@pytest.mark.parametrize("rank", range(5))
def test_lists_are_shortened_until_they_lose_something(rank, matcher, monkeypatch):
    monkeypatch.setattr("matcher.CAPS", tuple(range(1, N_ITEMS)))
    matcher.wide = matcher.item_keys = None  # the codes alone
    ring = walks(120)
    best = matcher.exhaustive().recommend(Queries.without_targets(ring), 5)[0]
    judges = Queries(ring, Ragged(np.arange(121), best[:, rank]))
    matcher.settings = replace(SMALL, index_loss=0.05, index_format="float32")
    index, tried = matcher.build(np.arange(16), judges)
    cap = index.lengths().max()
    passed = {each["max_postings"]: each["loses nothing"] for each in tried}
    assert list(passed) == list(range(N_ITEMS, cap - 2, -1))
    assert not passed.pop(cap - 1) and all(passed.values())


def test_rounding_is_judged_by_what_it_adds(matcher, monkeypatch):
    """Lists of three lose much, which is allowed here; that their scores are rounded, next to nothing."""
    monkeypatch.setattr("matcher.CAPS", (3,))
    matcher.wide = matcher.item_keys = None
    ring = walks(120)
    best = matcher.exhaustive().recommend(Queries.without_targets(ring), 5)[0]
    judges = Queries(ring, Ragged(np.arange(121), best[:, 4]))
    matcher.settings = replace(SMALL, index_loss=0.99)
    _, (whole, short, rounded) = matcher.build(np.arange(16), judges)
    assert [each["max_postings"] for each in (whole, short, rounded)] == [N_ITEMS, 3, 3]
    assert rounded["format"] == "uint8" and short["recall change"] < -0.3
    assert rounded["recall@5"] - rounded["recall change"] == pytest.approx(short["recall@5"])


def test_a_loss_that_the_judges_can_neither_see_nor_exclude_is_not_taken(matcher, monkeypatch):
    monkeypatch.setattr("metric.SURE_USERS", 2)
    monkeypatch.setattr("matcher.CAPS", tuple(range(1, N_ITEMS)))
    matcher.wide = matcher.item_keys = None
    matcher.settings = replace(SMALL, index_loss=0.05, index_format="float32")
    ring, caps = walks(60), []
    best = matcher.exhaustive().recommend(Queries.without_targets(ring), 5)[0]
    for rank in (0, 4):  # of what the first user finds: one of sixty is 1.7 %, p = .3, and may be anything up to 5 %
        best[0, 0] = best[0, rank]
        index, _ = matcher.build(np.arange(16), Queries(ring, Ragged(np.arange(61), best[:, 0])))
        caps.append(index.lengths().max())
    assert caps[0] < caps[1]


def test_reasons_are_the_parts_of_a_score(matcher, index):
    """Of an item of the history, what the table gives by it at its age; of a token, what its codes give."""
    asked = Queries.without_targets(walks(20, length=8))
    recommender = matcher.through(index)
    items, _ = recommender.recommend(asked, 5)
    votes, tokens = matcher.wide.matrix.toarray(), matcher.query_side.raw_tokens(asked)
    codes, weights = matcher.query_side.keys_of(tokens)
    for user, (history, best) in enumerate(zip(asked.histories, items, strict=True)):
        given = {int(item): 0.8**age * votes[item - 1] for age, item in enumerate(history[::-1][:4])}
        lists = matcher.model.scorer().scores(codes[user]) * weights[user][:, None]  # (C, n_items)
        given |= {None: lists.sum(0)}  # the model adds up its tokens before they have codes
        for item, parts in zip(best, matcher.reasons(recommender, asked, items)[user], strict=True):
            expected = sorted((float(part[item - 1]) for part in given.values() if part[item - 1] > 0), reverse=True)
            assert [share for *_, share in parts] == pytest.approx(expected[:3], rel=1e-4)
            for key, _, share in parts:
                assert share == pytest.approx(given[key][item - 1], rel=1e-4)


def test_the_codes_that_are_kept_are_the_most_used(matcher):
    training = TrainingSequences(walks(40), N_ITEMS)
    matcher = Matcher(matcher.model, matcher.wide, replace(SMALL, positions_per_user=6))
    codes = matcher.codes_in_use(training, np.random.default_rng(0))
    asked = training.queries(np.random.default_rng(0), 6, SMALL.seq_len, 10**6)
    uses = np.bincount(matcher.query_side.codes(asked).ravel(), minlength=16)
    assert set(codes) == set(np.flatnonzero(uses)) and len(set(uses)) > 2
    assert (np.diff(uses[codes]) <= 0).all()


@pytest.mark.parametrize(("exclude_seen", "bias", "above"), [(True, None, -np.inf), (False, 0.5, 0.0)])
@pytest.mark.parametrize("index_loss", [0.02, None])
def test_the_table_is_weighed_and_cut_as_the_settings_say(matcher, exclude_seen, bias, above, index_loss, monkeypatch):
    measured, rankings = blend._measured, []

    def noted(scores, queries, k, *rest):
        rankings.append(rest)
        return measured(scores, queries, k, *rest)

    monkeypatch.setattr(blend, "_measured", noted)
    table = WideTable.fit(walks(), N_ITEMS, WideSettings(l2=1.0, lookups=12))
    users = walks(200, length=10)
    valid = Queries(Ragged.from_rows([row[:8] for row in users]), Ragged.from_rows([row[8:] for row in users]))
    settings = replace(SMALL, exclude_seen=exclude_seen, score_bias=bias, index_loss=index_loss)
    found = blended(matcher.model, table, settings, SimpleNamespace(valid=valid, catalogue=CATALOGUE))
    assert set(rankings) == {(exclude_seen, above)}
    deep = models.Exhaustive(matcher.model, 64).scores(valid)
    weight, _, _ = blend.choose_weight(deep, table.scores(valid.histories), valid, 5, exclude_seen, above)
    expected = table.scaled(weight)
    if index_loss is not None:
        expected, _ = blend.cut(deep, expected, valid, 5, exclude_seen, index_loss, above)
        assert expected.settings.lookups < 12
    assert found.settings == expected.settings
    np.testing.assert_array_equal(found.matrix.toarray(), expected.matrix.toarray())


NEWCOMER = Ragged.from_rows([[8, 9, 10, 41, 11, 12]] * 12)  # item 41 stands between 10 and 11


def test_a_new_item_is_recommended_after_what_stood_before_it_and_tells_what_follows(matcher, index):
    grown, more = matcher.add_items(index, NEWCOMER, N_ITEMS + 1)
    asked = Queries.without_targets(Ragged.from_rows([[8, 9, 10], [20, 21, 22], [9, 10, 41]]))
    items, _ = grown.through(more).recommend(asked, 5)
    assert 41 in items[0] and 41 not in items[1] and 11 in items[2]
    assert matcher.model.items.n_items == N_ITEMS  # the old matcher stays as it was


@pytest.mark.parametrize("interaction", ["dot", "MoL"])
def test_the_grown_index_answers_as_the_grown_model_scores(interaction):
    matcher = matcher_of(replace(SMALL, interaction=interaction))
    grown, more = matcher.add_items(matcher.build(np.arange(16), None)[0], NEWCOMER, N_ITEMS + 1)
    histories = Ragged.from_rows([[8, 9, 10], [41], [5, 41, 11, 12, 13, 14, 15]])
    asked = Queries.without_targets(histories)
    for seen in (True, False):
        items, scores = grown.through(more).recommend(asked, 30, seen)
        _, expected = grown.exhaustive().recommend(asked, 30, seen)
        np.testing.assert_allclose(scores, expected, atol=1e-4)
    # Nothing was added to what old items score for old histories.
    old = Queries.without_targets(Ragged.from_rows([[8, 9, 10], [30, 31]]))
    before, after = matcher.exhaustive().scores(old), grown.exhaustive().scores(old)
    np.testing.assert_allclose(after[:, :N_ITEMS], before, atol=1e-5)


def test_of_a_compact_index_too(matcher, index):
    _, more = matcher.add_items(index.compact("uint16"), NEWCOMER, N_ITEMS + 2)
    assert more.n_items == N_ITEMS + 2 and len(more) == len(index) + 2


def test_lists_of_items_are_not_cut_as_those_of_codes_are(matcher):
    short = Matcher(matcher.model, matcher.wide, replace(SMALL, max_postings=2))
    grown, more = short.add_items(short.build(np.arange(16), None)[0], NEWCOMER, N_ITEMS + 1)
    assert more.lengths()[:16].max() <= 2
    first, rows = grown.item_keys.first, grown.wide.matrix
    for item in range(1, N_ITEMS + 2):
        assert set(more.posting_list(first + item)[0]) == set(rows[item - 1].indices + 1), item


def test_a_limit_of_bytes_holds_for_what_grows(matcher):
    small = Matcher(matcher.model, matcher.wide, replace(SMALL, max_bytes=3000))
    index = small.build(np.arange(16), None)[0]
    _, more = small.add_items(index, NEWCOMER, N_ITEMS + 1)
    assert max(one.statistics()["bytes"] for one in (index, more.compact("uint8"))) <= 3000


def test_an_item_that_nobody_took_scores_nothing(matcher, index):
    grown, more = matcher.add_items(index, NEWCOMER, N_ITEMS + 2)
    asked = Queries.without_targets(walks(20))
    items, scores = grown.through(more).recommend(asked, N_ITEMS, False)
    unknown = scores[items == 42]
    assert (grown.model.items.vectors()[41] == 0).all() and np.abs(unknown).max(initial=0) < 1e-6


def test_what_cannot_grow_is_refused(matcher, index):
    with pytest.raises(UserError, match="40 items are asked for, and 40 are known"):
        matcher.add_items(index, NEWCOMER, N_ITEMS)
    alone = Matcher(matcher.model, None, SMALL)
    with pytest.raises(UserError, match="has no wide table"):
        alone.add_items(index, NEWCOMER, N_ITEMS + 1)
    described = Matcher(matcher.model, matcher.wide, replace(SMALL, item_features=("year",)))
    with pytest.raises(UserError, match="reads features of items"):
        described.add_items(index, NEWCOMER, N_ITEMS + 1)


def test_a_table_grows_on_the_scale_it_has(matcher):
    rows = {factor: matcher.wide.scaled(factor).add_items(NEWCOMER, N_ITEMS + 1).matrix for factor in (1.0, 7.0)}
    np.testing.assert_allclose(rows[7.0].toarray(), 7 * rows[1.0].toarray(), rtol=1e-4)


def test_a_table_that_counts_for_nothing_has_no_keys(matcher):
    """Its weight is chosen on validation users, and may be 0."""
    nothing = Matcher(matcher.model, matcher.wide.scaled(0.0), SMALL)
    queries = Queries.without_targets(walks(20))
    index, _ = nothing.build(np.unique(nothing.query_side.codes(queries)), queries)
    items, _ = nothing.through(index).recommend(queries, 5)
    np.testing.assert_array_equal(items, nothing.exhaustive().recommend(queries, 5)[0])


@pytest.mark.parametrize("most", [5, 60])
def test_no_more_items_of_a_history_are_looked_up_than_the_settings_say(most):
    """Where order says nothing, and half of what is taken is chance, so that as many are as may be."""
    rng = np.random.default_rng(0)
    groups = 10 * rng.integers(6, size=300)[:, None] + rng.permuted(np.tile(np.arange(1, 11), (300, 1)), axis=1)
    chance = rng.permuted(np.tile(np.arange(61, 121), (300, 1)), axis=1)[:, :5]
    taken = Ragged.from_rows(rng.permuted(np.hstack([groups[:, :5], chance]), axis=1))
    data = SimpleNamespace(
        training=TrainingSequences(taken.take(np.arange(100)), 120),
        catalogue=SimpleNamespace(n_items=120),
        valid=Queries(taken, Ragged.from_rows(groups[:, 5:])),
    )
    table = fit_wide(replace(SMALL, wide_lookups=most), data)
    assert table.settings.lookups == most
