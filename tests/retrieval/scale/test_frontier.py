"""A budget is never exceeded nor left unused, and the frontier tells what each setting costs."""

import numpy as np
import pytest

from retrieval import CompactIndex, build_index, bytes_of, frontier, overlap

EMPTY = [0] * 30
ONE_EACH = [1] * 30
OVERHEAD = bytes_of(EMPTY, 200)


class Table:
    def __init__(self, table):
        self.table = table

    def scores(self, codes):
        return self.table[codes]


def build(table, relu=True, **options):
    return build_index(Table(table), np.arange(len(table)), table.shape[1], relu=relu, progress=False, **options)


@pytest.fixture(params=[True, False])
def relu(request):
    return request.param


@pytest.fixture
def table(rng, relu):
    """Codes of uneven worth: one cap for all and one threshold for all cut differently."""
    table = rng.normal(0, 1, (30, 200)).astype(np.float32) * np.linspace(0.2, 3, 30)[:, None]
    table = table.astype(np.float32)
    return np.maximum(table, 0) if relu else table


def lengths(index):
    return np.diff(index.offsets)


@pytest.mark.parametrize("format", ["float32", "uint16", "uint8"])
@pytest.mark.parametrize("postings", [30, 31, 500, 2000])
def test_a_budget_by_threshold_keeps_the_best_postings_of_all(table, relu, postings, format):
    best = np.sort(table[table > 0] if relu else table.ravel())[-postings:]
    budget = bytes_of((table >= best[0]).sum(1), 200, format)
    index = build(table, relu)

    def within(most):
        cut = index.prune(max_bytes=most, format=format)
        stored = cut if format == "float32" else cut.compact(format)
        assert stored.statistics()["bytes"] <= most
        return cut

    if budget < (least := bytes_of(ONE_EACH, 200, format)):  # the best are of few codes, and dense there
        with pytest.raises(ValueError, match=f"takes {least}"):
            within(budget)
        return
    cut = within(budget)
    free = int(len(cut.items) - postings)  # what costs nothing more: further items of dense rows
    assert free == 0 if format == "float32" else free >= 0
    found = np.sort(np.repeat(cut.floors, lengths(cut)) + cut.scores)
    np.testing.assert_allclose(found[free:], best, atol=1e-5)
    if budget > least:
        assert len(within(budget - 1).items) < postings


def test_a_budget_that_everything_fits_cuts_nothing(table, relu):
    index = build(table, relu)
    cut = index.prune(max_bytes=index.statistics()["bytes"])
    assert cut.pruning == index.pruning
    np.testing.assert_array_equal(cut.scores, index.scores)


@pytest.mark.parametrize("budget", [-1, 0, OVERHEAD, bytes_of(ONE_EACH, 200) - 8])
def test_budgets_too_small_are_refused_with_the_least(table, relu, budget):
    least = bytes_of(ONE_EACH, 200)
    with pytest.raises(ValueError, match=f"{budget} bytes are too few .* takes {least}"):
        build(table, relu).prune(max_bytes=budget)


def test_a_share_is_the_share_of_a_build(table, relu):
    a, b = build(table, relu).prune(keep_share=0.1), build(table, relu, keep_share=0.1)
    np.testing.assert_array_equal(a.items, b.items)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    with pytest.raises(ValueError, match="keep_share"):
        a.prune(keep_share=0)


def test_limits_hold_together_and_bad_ones_are_refused(table, relu):
    index = build(table, relu)
    cut = index.prune(max_postings=9, keep_share=0.3, threshold=0.4, max_bytes=10**7)
    assert lengths(cut).max() <= 9 and cut.pruning.threshold >= 0.4
    assert cut.prune(max_postings=50).pruning.max_postings == 9
    with pytest.raises(ValueError, match="max_postings must be"):
        index.prune(max_postings=0)
    with pytest.raises(ValueError, match="Unknown posting format"):
        index.prune(max_bytes=10**6, format="float64")


def test_the_budget_counts_removed_items(table, relu):
    index = build(table, relu).remove_items(np.arange(100, 150))
    budget = bytes_of([10] * 30, 200, n_removed=50)
    cut = index.prune(max_bytes=budget)
    assert cut.statistics()["bytes"] == budget and len(cut.items) == 300


def test_frontier_rows(table, relu, rng):
    index = build(table, relu)
    codes = rng.integers(0, 30, (40, 3))
    settings = [
        {},
        {"max_postings": 30},
        {"keep_share": 0.02},
        {"format": "uint8"},
        {"max_bytes": bytes_of([20] * 30, 200, "uint16"), "format": "uint16"},
    ]
    seen = []

    def evaluate(one):
        seen.append(one)
        return overlap(index, one, codes, 20)["overlap"]

    rows = frontier(index, settings, evaluate)
    assert [row["setting"] for row in rows] == settings
    for row, one in zip(rows, seen, strict=True):
        assert row["postings"] == one.lengths().sum()
        assert row["bytes"] == one.statistics()["bytes"]
        assert row["postings_per_code"] == row["postings"] / 30
        assert row["value"] == overlap(index, one, codes, 20)["overlap"]
    assert seen[0] is index and rows[0]["value"] == 1
    assert rows[2]["value"] <= rows[1]["value"] <= 1  # shorter lists cost more
    assert isinstance(seen[3], CompactIndex) and rows[4]["bytes"] <= settings[4]["max_bytes"]
    assert [row["format"] for row in rows] == ["float32"] * 3 + ["uint8", "uint16"]
    with pytest.raises(TypeError, match="colour"):
        frontier(index, [{"colour": 1}], evaluate)
