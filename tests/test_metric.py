"""Metrics by hand, against scikit-learn and ir-measures, and by their properties."""

import ir_measures
import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel
from sklearn.metrics import ndcg_score

import metric
from data.queries import Queries as QueriesOfUsers
from data.ragged import Ragged
from metric import Metrics, averaged, compare, evaluate, measure

TOPK = (1, 5, 10, 20, 50)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


class Rows:
    def __init__(self, lists):
        self.lists = [list(one) for one in lists]
        self.offsets = np.concatenate([[0], np.cumsum([len(one) for one in self.lists])])
        self.values = np.array([item for one in self.lists for item in one], np.int32)


class Queries:
    def __init__(self, histories, targets):
        self.histories, self.targets = Rows(histories), Rows(targets)

    def __len__(self):
        return len(self.targets.lists)

    def take(self, rows):
        return Queries([self.histories.lists[row] for row in rows], [self.targets.lists[row] for row in rows])


class Fixed:
    """Recommends what it was given; the first item of a history names the user."""

    def __init__(self, items, scores=None):
        self.items = np.asarray(items)
        self.scores = scores

    def recommend(self, queries, k, exclude_seen):
        users = queries.histories.values[queries.histories.offsets[:-1]] - 10_001
        items = self.items[users, :k]
        if self.scores is not None:
            return items, np.asarray(self.scores, np.float32)[users, :k]
        return items, np.broadcast_to(-np.arange(k, dtype=np.float32), items.shape)


def users_of(targets, more=()):
    """Queries whose histories start with 10,001, 10,002 ... (ids that nothing recommends)."""
    return Queries([[10_001 + user, *more] for user in range(len(targets))], targets)


def random_case(rng, users=60, n_items=200, k=50):
    items = np.stack([rng.permutation(n_items)[:k] + 1 for _ in range(users)])
    for user in range(0, users, 5):
        items[user, rng.integers(0, k) :] = 0  # empty slots
    targets = [rng.permutation(n_items)[: rng.integers(1, 80)] + 1 for _ in range(users)]
    return items, targets


def one(items, target, k, name):
    return float(measure(np.array([items]), Rows([target]), [k]).per_user(name, k)[0])


def test_by_hand():
    """Targets 3, 5, 9; the list hits at ranks 2 and 4."""
    items, target = [1, 3, 2, 9], [3, 5, 9]
    discount = 1 / np.log2(np.arange(2, 8))
    expected = {
        ("hit", 1): 0,
        ("hit", 2): 1,
        ("recall", 2): 1 / 3,
        ("recall", 4): 2 / 3,
        ("precision", 2): 1 / 2,
        ("precision", 4): 2 / 4,
        ("ndcg", 1): 0,
        ("ndcg", 2): discount[1] / discount[:2].sum(),
        ("ndcg", 4): (discount[1] + discount[3]) / discount[:3].sum(),
        ("map", 2): (1 / 2) / 2,
        ("map", 4): (1 / 2 + 2 / 4) / 3,
        ("mrr", 1): 0,
        ("mrr", 4): 1 / 2,
    }
    for (name, k), value in expected.items():
        assert one(items, target, k, name) == pytest.approx(value), (name, k)


def test_a_perfect_list_scores_one():
    """Also where there are fewer targets than slots, or more: the release gave recall .02 here."""
    for target in ([4, 2], list(range(1, 81))):
        filler = [item for item in range(100, 150) if item not in target]
        items = [*target, *filler][:50]
        for name in ("hit", "ndcg", "map", "mrr"):
            assert one(items, target, 50, name) == pytest.approx(1.0), name
        assert one(items, target, 50, "recall") == min(len(target), 50) / len(target)
        assert one(items, target, 50, "precision") == min(len(target), 50) / 50


def test_nothing_found_scores_zero():
    for name in metric.NAMES:
        assert one([1, 2, 3], [4], 3, name) == 0


def test_empty_slots_never_hit():
    for name in metric.NAMES:
        assert one([0, 0, 0], [7], 3, name) == 0
    assert one([0, 7, 0], [7], 3, "mrr") == 1 / 2  # an empty slot keeps its rank


def test_precision_counts_empty_slots():
    assert one([7, 0, 0, 0], [7], 4, "precision") == 1 / 4


def test_a_target_named_twice_counts_once():
    assert one([7, 1], [7, 7, 2], 2, "recall") == 1 / 2


def test_against_scikit_learn(rng):
    """Binary relevance; scikit-learn gets the list as falling scores of all items."""
    items, targets = random_case(rng)
    measured = measure(items, Rows(targets), TOPK)
    for user, (ranking, target) in enumerate(zip(items, targets, strict=True)):
        relevance, scores = np.zeros((1, 201)), np.zeros((1, 201))
        relevance[0, target] = 1
        found = ranking[ranking > 0]
        scores[0, found] = np.arange(len(found), 0, -1) + 1.0
        for k in TOPK:
            if k <= len(found):  # it would go on to rank the items that were never recommended
                expected = ndcg_score(relevance, scores, k=k)
                assert measured.per_user("ndcg", k)[user] == pytest.approx(expected)


def test_against_ir_measures(rng):
    items, targets = random_case(rng)
    measured = measure(items, Rows(targets), TOPK)
    qrels = [ir_measures.Qrel(str(user), str(item), 1) for user, one in enumerate(targets) for item in one]
    run = [
        ir_measures.ScoredDoc(str(user), str(item), -float(rank))
        for user, ranking in enumerate(items)
        for rank, item in enumerate(ranking)
        if item > 0
    ]
    theirs = {
        "hit": "Success",
        "recall": "R",
        "precision": "P",
        "ndcg": "nDCG",
        "map": "AP",
        "mrr": "RR",
    }
    measures = {ir_measures.parse_measure(f"{their}@{k}"): (name, k) for name, their in theirs.items() for k in TOPK}
    values = list(ir_measures.iter_calc(measures, qrels, run))
    assert len(values) == len(items) * len(measures)
    for value in values:
        name, k = measures[value.measure]
        user = int(value.query_id)
        expected = value.value
        if name == "map":  # trec_eval divides by |T|, which a list of k can't reach
            expected *= len(targets[user]) / min(len(targets[user]), k)
        assert measured.per_user(name, k)[user] == pytest.approx(expected, abs=1e-9), (name, k)


def test_order_of_users_and_targets_and_batches_change_nothing(rng):
    items, targets = random_case(rng)
    whole = measure(items, Rows(targets), TOPK)
    order = rng.permutation(len(items))
    shuffled = measure(items[order], Rows([rng.permutation(targets[user]) for user in order]), TOPK)
    recommended = Fixed(items)
    for name in metric.NAMES:
        np.testing.assert_array_equal(shuffled.values[name], whole.values[name][order])
    for block in (1, 7, 1024):
        part = evaluate(recommended, users_of(targets), TOPK, block=block)
        for name in metric.NAMES:
            np.testing.assert_array_equal(part.values[name], whole.values[name])


def test_scores_do_not_matter_and_neither_do_ties(rng):
    items, targets = random_case(rng)
    flat = evaluate(Fixed(items, np.zeros(items.shape)), users_of(targets), TOPK)
    falling = evaluate(Fixed(items), users_of(targets), TOPK)
    for name in metric.NAMES:
        np.testing.assert_array_equal(flat.values[name], falling.values[name])


def test_metrics_that_only_grow_with_k(rng):
    items, targets = random_case(rng)
    measured = measure(items, Rows(targets), TOPK)
    for name in ("hit", "recall", "mrr"):
        assert (np.diff(measured.values[name], axis=1) >= 0).all()
    for values in measured.values.values():
        assert values.min() >= 0 and values.max() <= 1


def test_means_intervals_rows_and_table(rng):
    items, targets = random_case(rng)
    measured = measure(items, Rows(targets), TOPK)
    values = measured.per_user("recall", 20)
    assert measured.mean("recall", 20) == pytest.approx(values.mean())
    assert measured.mean()["recall@20"] == measured.mean("recall", 20)
    low, high = student.interval(0.95, len(values) - 1, values.mean(), values.std(ddof=1) / np.sqrt(len(values)))
    assert measured.interval("recall", 20) == pytest.approx((low, high))
    rows = measured.rows(model="DQMatch")
    assert len(rows) == 6 * len(TOPK)
    row = next(row for row in rows if row["metric"] == "recall" and row["k"] == 20)
    assert row["model"] == "DQMatch" and row["users"] == 60
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((values.mean(), low, high))

    lines = measured.table("index").splitlines()
    assert lines[0].startswith("index (60 users")
    assert lines[1].split() == [f"@{k}" for k in TOPK]
    assert [line.split()[0] for line in lines[2:]] == list(metric.NAMES)
    assert len({len(line) for line in lines[1:]}) == 1  # columns are aligned
    assert f"{values.mean():.4f}" in next(line for line in lines if line.startswith("recall"))


def test_interval_covers_the_truth_as_often_as_it_says(rng):
    inside = 0
    for _ in range(400):
        values = {name: (rng.random((80, 1)) < 0.3).astype(float) for name in metric.NAMES}
        low, high = Metrics((1,), values).interval("hit", 1)
        inside += low <= 0.3 <= high
    assert 0.92 < inside / 400 < 0.98


def test_one_user_has_a_mean_but_no_interval():
    measured = measure(np.array([[1]]), Rows([[1]]), [1])
    assert measured.mean("hit", 1) == 1 and np.isnan(measured.interval("hit", 1)).all()
    assert "±" not in measured.table().splitlines()[2]


def test_paired_test_is_the_paired_t_test(rng):
    items, targets = random_case(rng)
    better = items.copy()
    for user in range(40):
        better[user, 0] = targets[user][0]
    a, b = measure(better, Rows(targets), TOPK), measure(items, Rows(targets), TOPK)
    result = compare(a, b, "ndcg", 10)
    expected = ttest_rel(a.per_user("ndcg", 10), b.per_user("ndcg", 10))
    assert (result.t, result.p) == pytest.approx((expected.statistic, expected.pvalue))
    interval = expected.confidence_interval()
    assert (result.low, result.high) == pytest.approx((interval.low, interval.high))
    assert result.difference > 0 and result.users == 60 and "60 users" in str(result)
    assert compare(b, a, "ndcg", 10).t == pytest.approx(-result.t)
    assert compare(a, a, "ndcg", 10).p == 1
    with pytest.raises(ValueError, match="same users"):
        compare(a, measure(items[:5], Rows(targets[:5]), TOPK), "ndcg", 10)
    with pytest.raises(ValueError, match="ndcg@3 was not measured"):
        compare(a, b, "ndcg", 3)


@pytest.mark.parametrize(
    ("changes", "unseen", "sure"),
    [
        ([0.0] * 100, True, True),
        ([0.0] * 99, True, False),  # too few to be sure by, whatever they say
        ([0.1, -0.1] * 50, True, False),  # nothing on average, but a hundred users cannot tell
        ([0.1, -0.1] * 5000, True, True),
        ([-0.001] * 99 + [-0.0011], False, True),  # certain, and small
        ([-0.01] * 100, False, False),
    ],
)
def test_a_loss_may_be_unseen_or_surely_small(changes, unseen, sure):
    def of(values):
        return Metrics((50,), {name: np.reshape(values, (-1, 1)) for name in metric.NAMES})

    before, found = of(np.full(len(changes), 0.5)), of(0.5 + np.array(changes))
    for wanted, expected in ((False, unseen), (True, sure)):
        row, nothing = metric.cost(found, before, 50, 0.005, wanted)
        assert nothing is expected is row["loses nothing"]
        assert row["ndcg change"] == pytest.approx(np.mean(changes))


@pytest.mark.parametrize(
    ("items", "scores", "message"),
    [
        ([[1, 1]], [[1, 0]], "user 0 hold an item twice"),
        ([[1, -2]], [[1, 0]], "negative item id"),
        ([[1, 2]], [[0, 1]], "not in descending order"),
        ([[1, 2]], [[1, np.nan]], "not numbers"),
        ([[1, 77]], [[1, 0]], "item of the history, although"),
        ([[1]], [[1]], "returned ids"),
        ([[1.0, 2.0]], [[1, 0]], "returned ids"),
    ],
)
def test_what_is_no_ranking_is_refused(items, scores, message):
    queries = users_of([[5]], more=[77])
    with pytest.raises(ValueError, match=message):
        evaluate(Fixed(items, scores), queries, topk=[2])


def test_the_refusal_names_the_user_across_batches():
    items = [[1, 2], [3, 4], [5, 5]]
    with pytest.raises(ValueError, match="of user 2 hold an item twice"):
        evaluate(Fixed(items), users_of([[1], [1], [1]]), topk=[2], block=2)


def test_empty_slots_are_a_ranking():
    scores = [[1.0, -np.inf, -np.inf]]
    measured = evaluate(Fixed([[5, 0, 0]], scores), users_of([[5]]), topk=[3])
    assert measured.mean("precision", 3) == pytest.approx(1 / 3)


def test_history_items_are_allowed_when_not_excluded():
    measured = evaluate(Fixed([[77, 5]]), users_of([[77]], [77]), topk=[2], exclude_seen=False)
    assert measured.mean("hit", 2) == 1


@pytest.mark.parametrize(
    ("targets", "message"), [([[1], []], "User 1 has no target"), ([[1], [0]], "target is item 0")]
)
def test_bad_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        measure(np.array([[1], [2]]), Rows(targets), [1])


@pytest.mark.parametrize("topk", [[], [0], [-5, 10]])
def test_bad_cut_offs_are_refused(topk):
    with pytest.raises(ValueError, match="topk must name"):
        evaluate(Fixed([[1]]), users_of([[1]]), topk)


def test_no_queries_are_refused():
    with pytest.raises(ValueError, match="no queries"):
        evaluate(Fixed([[1]]), users_of([]))


def test_a_user_with_several_queries_counts_once():
    """The mean is that over queries; the interval is that over the two users."""
    asked = users_of([[1], [2], [3], [4]])
    asked.askers = np.array([7, 7, 7, 2])
    found = evaluate(Fixed([[1, 9], [2, 9], [9, 8], [9, 8]]), asked, [1])
    assert len(found) == 2 and found.mean("hit", 1) == 2 / 4
    np.testing.assert_allclose(found.per_user("hit", 1), [0, 1])  # 2 hits of 4 queries / 2 users


def test_numbers_of_queries_that_differ_widen_no_interval():
    users = np.repeat(np.arange(9), np.arange(9) % 3 + 1)
    asked = users_of([[1]] * len(users))
    asked.askers = users
    found = evaluate(Fixed([[1]] * len(users)), asked, [1])
    assert found.mean("hit", 1) == 1 and found.interval("hit", 1) == (1, 1)  # every query hits: nothing varies
    hits = evaluate(Fixed([[1 if user < 5 else 2] for user in users]), asked, [1])
    share, counts = hits.mean("hit", 1), np.bincount(users)
    off = (counts * (np.arange(9) < 5) - share * counts) / counts.mean()
    low, high = hits.interval("hit", 1)
    assert share == 9 / 18 and high - low == pytest.approx(2 * 2.306004 * off.std(ddof=1) / 3)
    twice = averaged([hits, found])
    assert twice.queries.tolist() == counts.tolist()


def test_numbers_of_queries_that_differ_widen_no_test():
    """Each of 200 queries gains as much, of users with one and with three."""
    counts = np.array([1, 3] * 50)
    gain = np.where(np.arange(100) < 98, 0.1, 0.11) * counts * 100 / counts.sum()
    found, before = (Metrics((5,), {"recall": values[:, None]}, counts) for values in (gain, 0 * gain))
    test, (low, high) = compare(found, before, "recall", 5), found.interval("recall", 5)
    assert (test.low, test.high) == pytest.approx((low, high)) and high - low < 0.002


def test_queries_keep_their_users_when_some_are_taken():
    rows = Ragged.from_rows([[1], [2], [3]])
    assert QueriesOfUsers(rows, rows, None, np.array([5, 5, 6])).take([2, 0]).askers.tolist() == [6, 5]
