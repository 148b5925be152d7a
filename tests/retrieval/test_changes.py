"""An index that grew, shrank, split or joined answers as one that was built that way."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval import (
    IndexRecommender,
    Pruning,
    ShardedIndex,
    SparseInvertedIndex,
    build_index,
    merge_results,
)
from retrieval.build import build_pruned

NAMES = ("codes", "offsets", "items", "scores", "floors", "cuts", "removed")


class Table:
    """Scores from a table; the columns from `first` on."""

    def __init__(self, table, first=0):
        self.table = np.ascontiguousarray(table[:, first:])
        self.asked = []

    def scores(self, codes):
        self.asked.append(len(codes))
        return self.table[codes]


def pruned(table, pruning):
    return build_pruned(Table(table), np.arange(len(table)), table.shape[1], pruning)


def dense(index):
    scores = np.repeat(index.floors[:, None], index.n_items, axis=1)
    stored = np.zeros(scores.shape, bool)
    for row in range(len(index)):
        part = slice(index.offsets[row], index.offsets[row + 1])
        scores[row, index.items[part] - 1] += index.scores[part]
        stored[row, index.items[part] - 1] = True
    return scores, stored


def same(a, b):
    return (a.n_items, a.pruning) == (b.n_items, b.pruning) and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in NAMES
    )


def same_answers(a, b, codes, k, **options):
    results = zip(a.recommend(codes, k, **options), b.recommend(codes, k, **options), strict=True)
    return all(np.array_equal(one, other) for one, other in results)


def rows(lists):
    lengths = [len(one) for one in lists]
    return SimpleNamespace(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        values=np.array([item for one in lists for item in one], np.int32),
    )


PRUNINGS = [
    Pruning(relu=True),
    Pruning(relu=True, threshold=0.75),
    Pruning(relu=True, max_postings=12),
    Pruning(relu=True, threshold=0.5, max_postings=7),
    Pruning(relu=False),
    Pruning(relu=False, threshold=0.5),
    Pruning(relu=False, max_postings=12),
    Pruning(relu=False, max_postings=45),  # caps nothing at first, and something later
    Pruning(relu=False, threshold=-9.0, max_postings=45),
]


def scores_of(rng, relu, shape=(20, 60)):
    table = rng.normal(0 if relu else -1, 1, shape).astype(np.float32)
    return np.maximum(table, 0) if relu else table


# --- add_items


@pytest.mark.parametrize("pruning", PRUNINGS, ids=str)
@pytest.mark.parametrize("block", [None, 7])
def test_added_items_join_the_lists_that_a_build_would_put_them_in(rng, pruning, block):
    for _ in range(5):
        table = scores_of(rng, pruning.relu)
        grown = pruned(table[:, :40], pruning)
        for first, end in ((40, 41), (41, 60)):  # twice: the second finds what the first left
            scorer = Table(table[:, :end], first)
            grown = grown.add_items(scorer, end - first, block=block)
        assert sum(scorer.asked) == 20 and grown.n_items == 60
        built = pruned(table, pruning)
        scores, stored = dense(grown)
        np.testing.assert_array_equal(stored, dense(built)[1])
        np.testing.assert_allclose(scores[stored], table[stored], atol=1e-6)


def test_an_uncut_relu_index_that_grew_is_the_index_built_anew(rng):
    table = scores_of(rng, True)
    for pruning in (Pruning(), Pruning(max_postings=59)):
        grown = pruned(table[:, :33], pruning).add_items(Table(table, 33), 27)
        assert same(grown, pruned(table, pruning))


@pytest.mark.parametrize("relu", [True, False])
def test_floors_stay_when_items_are_added(rng, relu):
    table = scores_of(rng, relu)
    index = pruned(table[:, :40], Pruning(relu=relu, threshold=0.5, max_postings=5))
    grown = index.add_items(Table(table, 40), 20)
    np.testing.assert_array_equal(grown.floors, index.floors)
    scores, stored = dense(grown)
    kept = dense(index)[1] & stored[:, :40]
    np.testing.assert_array_equal(scores[:, :40][kept], dense(index)[0][kept])


def test_lists_that_left_nothing_out_get_their_floor_as_in_a_build(rng):
    """A plain sum: the floor of a full list is just below its lowest score, not a left-out mean."""
    table = np.array([[5, 6, 7, 8, -3, 9], [5, 6, 7, 8, 9, 9.5]], np.float32)
    for pruning in (Pruning(relu=False), Pruning(relu=False, threshold=1.0)):
        grown = pruned(table[:, :4], pruning).add_items(Table(table, 4), 2)
        built = pruned(table, pruning)
        np.testing.assert_allclose(dense(grown)[0], dense(built)[0], atol=1e-5)
        np.testing.assert_allclose(grown.floors, built.floors, atol=1e-5)
    capped = pruned(table[:, :4], Pruning(relu=False, max_postings=4)).add_items(Table(table, 4), 2)
    np.testing.assert_allclose(dense(capped)[0][0], [1, 6, 7, 8, 1, 9], atol=1e-5)  # (5 - 3) / 2


def test_a_relu_list_that_held_every_item_gets_its_floor_as_in_a_build(rng):
    table = np.array([[1, 2, 3, 4, 5, 0.5, 6], [1, 2, 3, 4, 5, 7, 6]], np.float32)
    pruning = Pruning(max_postings=5)
    grown, built = pruned(table[:, :5], pruning).add_items(Table(table, 5), 2), pruned(table, pruning)
    np.testing.assert_allclose(grown.floors, built.floors)
    np.testing.assert_allclose(dense(grown)[0], dense(built)[0])
    assert (built.floors > 0).all()


def test_ties_at_the_cap_are_cut_whole_whenever_they_arrive(rng):
    """Equal scores of old and new items; floors that no float32 holds exactly."""
    for _ in range(30):
        table = np.float32(0.1) * rng.integers(0, 6, (10, 30)).astype(np.float32)
        pruning = Pruning(relu=True, max_postings=int(rng.integers(1, 12)))
        grown = pruned(table[:, :15], pruning).add_items(Table(table, 15), 15, block=3)
        np.testing.assert_array_equal(dense(grown)[1], dense(pruned(table, pruning))[1])


def test_a_new_item_below_what_was_cut_stays_out():
    index = pruned(np.array([[4, 3, 2, 2, 2, 1]], np.float32), Pruning(max_postings=3))
    grown = index.add_items(Table(np.array([[1.9, 2.0, 2.1]], np.float32)), 3)
    np.testing.assert_array_equal(grown.items, [1, 2, 9])


def test_added_items_are_found_and_masked(rng):
    table = scores_of(rng, True)
    grown = pruned(table[:, :40], Pruning()).add_items(Table(table, 40), 20)
    codes, seen = rng.integers(0, 20, (50, 3)), rows([rng.integers(1, 61, 9) for _ in range(50)])
    assert same_answers(grown, pruned(table, Pruning()), codes, 60, seen=seen)


def test_items_join_an_index_without_codes_and_one_that_was_loaded(rng, tmp_path):
    table = scores_of(rng, True)
    empty = pruned(table, Pruning()).only([])
    assert empty.add_items(Table(table), 60).n_items == 120
    index = pruned(table[:, :40], Pruning(max_postings=9))
    index.save(tmp_path / "index")
    loaded = SparseInvertedIndex.load(tmp_path / "index")
    added = [one.add_items(Table(table, 40), 20, progress=True) for one in (index, loaded)]
    assert same(*added)


@pytest.mark.parametrize("n_new", [0, -1, 1.0, True, 2**31])
def test_bad_numbers_of_new_items_are_refused(rng, n_new):
    with pytest.raises(ValueError, match="new items must|holds at most"):
        pruned(scores_of(rng, True), Pruning()).add_items(Table(np.ones((20, 1))), n_new)


def test_bad_scores_of_new_items_are_refused(rng):
    index = pruned(scores_of(rng, True), Pruning())
    new = np.ones((20, 3), np.float32)
    with pytest.raises(ValueError, match="for 20 codes and 2 items"):
        index.add_items(Table(new), 2)
    new[4, 2] = np.nan
    with pytest.raises(ValueError, match="score of code 4 and item 63 is nan"):
        index.add_items(Table(new), 3)


# --- remove_items


@pytest.mark.parametrize("pruning", PRUNINGS, ids=str)
def test_removed_items_are_never_recommended_and_nothing_else_changes(rng, pruning):
    table = scores_of(rng, pruning.relu)
    index = pruned(table, pruning)
    gone = rng.choice(60, 25, False) + 1
    shrunk = index.remove_items(gone[:20]).remove_items(gone[15:])
    codes = rng.integers(0, 20, (60, 3))
    ids, scores = shrunk.recommend(codes, 60)
    masked_ids, masked_scores = index.recommend(codes, 60, seen=rows([gone] * 60))
    np.testing.assert_array_equal(ids, masked_ids)
    np.testing.assert_array_equal(scores, masked_scores)
    np.testing.assert_array_equal(shrunk.removed, np.sort(gone))
    assert len(index.removed) == 0


def test_removed_items_stay_removed(rng, tmp_path):
    table = scores_of(rng, True)
    scorer = Table(table)
    index = build_index(scorer, range(5), 60, relu=True, progress=False).remove_items([7, 8])
    index.save(tmp_path / "index")
    index = SparseInvertedIndex.load(tmp_path / "index")
    queries = SimpleNamespace(codes=np.array([[1, 12], [13, 13]]), histories=None)
    recommender = IndexRecommender(index, lambda q: q.codes, scorer)  # scores codes on demand
    ids, _ = recommender.recommend(queries, 60, exclude_seen=False)
    assert not np.isin([7, 8], ids).any()
    whole = pruned(table, Pruning())
    expected = whole.recommend(queries.codes, 60, seen=rows([[7, 8]] * 2))
    np.testing.assert_array_equal(ids, expected[0])
    grown = index.add_items(Table(table[:, :4]), 4)
    np.testing.assert_array_equal(grown.removed, [7, 8])
    with pytest.raises(ValueError, match="more items removed"):
        whole.extend(whole.only([]).remove_items([3]))


def test_removing_nothing_and_everything(rng):
    index = pruned(scores_of(rng, True), Pruning())
    assert same(index.remove_items([]), index)
    assert not index.remove_items(np.arange(1, 61)).recommend([[0, 1]], 60)[0].any()


@pytest.mark.parametrize("items", [[0], [61], [1, -1], [1.5], ["a"]])
def test_bad_items_to_remove_are_refused(rng, items):
    with pytest.raises(ValueError, match="outside the items 1..60|must be integers"):
        pruned(scores_of(rng, True), Pruning()).remove_items(items)


def test_arrays_that_hold_removed_items_are_refused():
    arrays = {
        "codes": np.array([3]),
        "offsets": np.array([0, 2]),
        "items": np.array([1, 4], np.uint32),
        "scores": np.ones(2, np.float32),
        "floors": np.zeros(1, np.float32),
        "n_items": 4,
    }
    for removed, message in (
        ([4], "holds an item that was removed"),
        ([5], "ids of the catalogue"),
        ([0], "ids of the catalogue"),
        ([3, 2], "ids of the catalogue"),
    ):
        with pytest.raises(ValueError, match=message):
            SparseInvertedIndex(**arrays, removed=np.array(removed, np.uint32))
    for cut in (np.nan, np.inf):
        with pytest.raises(ValueError, match="Cuts must be"):
            SparseInvertedIndex(**arrays, cuts=np.array([cut], np.float32))


# --- shard, merge


@pytest.mark.parametrize("pruning", PRUNINGS, ids=str)
@pytest.mark.parametrize("n_shards", [1, 2, 5, 60])
def test_shards_answer_together_what_the_whole_answers(rng, pruning, n_shards):
    table = scores_of(rng, pruning.relu)
    index = pruned(table, pruning)
    shards = index.shard(n_shards)
    assert len(shards) == n_shards
    held = np.sum([60 - len(shard.removed) for shard in shards])
    assert held == 60 and all(len(shard.removed) < 60 for shard in shards)
    sharded = ShardedIndex(shards)
    codes = rng.integers(0, 20, (70, 4))
    seen = rows([rng.integers(0, 61, rng.integers(0, 30)) for _ in range(70)])
    for k in (1, 10, 60):
        assert same_answers(sharded, index, codes, k, seen=seen)
    asked = SimpleNamespace(histories=seen)
    through = [IndexRecommender(each, lambda _: codes) for each in (sharded, index)]
    for one, other in zip(*(each.recommend(asked, 10) for each in through), strict=True):
        np.testing.assert_array_equal(one, other)
    assert same(shards[0].merge(*shards[1:]), index)
    shuffled = [shards[at] for at in rng.permutation(n_shards)]
    assert same(shuffled[0].merge(*shuffled[1:]), index)


def test_equal_scores_of_several_shards_stand_in_order_of_ids(rng):
    table = (rng.integers(0, 3, (6, 40)) / 8).astype(np.float32)
    index = pruned(table, Pruning())
    codes = rng.integers(0, 6, (100, 3))
    assert same_answers(ShardedIndex(index.shard(4)), index, codes, 25)


def test_shards_share_the_postings_evenly(rng):
    """Popular items stand at one end of the catalogue."""
    table = np.maximum(rng.normal(0, 1, (50, 400)) + np.linspace(2, -4, 400), 0).astype(np.float32)
    shards = pruned(table, Pruning()).shard(4)
    sizes = [len(shard.items) for shard in shards]
    assert max(sizes) < 1.1 * min(sizes)
    assert len(shards[0].removed) > len(shards[3].removed)


def test_codes_scored_later_join_a_shard_with_its_own_items_only(rng):
    table = scores_of(rng, True)
    index = build_index(Table(table), range(10), 60, relu=True, progress=False)
    more = build_index(Table(table), range(10, 20), 60, relu=True, progress=False)
    sharded = ShardedIndex([shard.extend(more) for shard in index.shard(3)])
    codes = rng.integers(0, 20, (40, 3))
    assert same_answers(sharded, pruned(table, Pruning()), codes, 60)


def test_indexes_that_are_not_parts_of_one_are_not_merged(rng):
    table = scores_of(rng, True)
    index = pruned(table, Pruning())
    one, two = index.shard(2)
    with pytest.raises(ValueError, match="Two of the indexes to merge hold item 1"):
        one.merge(two, index)
    with pytest.raises(ValueError, match="same codes"):
        one.merge(pruned(table[:19], Pruning()).shard(2)[1])
    with pytest.raises(ValueError, match="same item ids and pruning"):
        one.merge(pruned(table[:, :50], Pruning()).shard(2)[1])
    with pytest.raises(ValueError, match="same item ids and pruning"):
        one.merge(pruned(table, Pruning(max_postings=4)).shard(2)[1])
    a, b = pruned(table, Pruning(max_postings=4)), pruned(table + 1, Pruning(max_postings=4))
    with pytest.raises(ValueError, match="same floors"):
        a.shard(2)[0].merge(b.shard(2)[1])


def test_shards_that_grew_apart_keep_the_higher_cut(rng):
    """What a shard has cut for room of its own stays out of the whole, whichever shard stands first."""
    table = scores_of(rng, True, (3, 20))
    low, high = pruned(table, Pruning(max_postings=9)).shard(2)
    high = high._with(cuts=high.cuts + np.arange(3, dtype=np.float32))  # as where its new items were better
    for one, other in ((low, high), (high, low)):
        np.testing.assert_array_equal(one.merge(other).cuts, np.maximum(low.cuts, high.cuts))


@pytest.mark.parametrize("n_shards", [0, -1, 61, True, 2.5])
def test_bad_numbers_of_shards_are_refused(rng, n_shards):
    with pytest.raises(ValueError, match="There can be 1..60 shards of it"):
        pruned(scores_of(rng, True), Pruning()).shard(n_shards)


def test_what_can_not_be_searched_together_is_refused(rng):
    with pytest.raises(ValueError, match="at least one shard"):
        ShardedIndex([])
    a, b = (pruned(scores_of(rng, True, (3, n)), Pruning()) for n in (5, 6))
    with pytest.raises(ValueError, match="count their items differently"):
        ShardedIndex([a, b])
    with pytest.raises(ValueError, match="fewer than 7"):
        merge_results([a.recommend([[0]], 3), a.recommend([[0]], 3)], 7)


# --- prune


@pytest.mark.parametrize("pruning", PRUNINGS, ids=str)
@pytest.mark.parametrize("before", [None, 50, 30])
def test_a_pruned_index_is_the_one_built_with_these_limits(rng, pruning, before):
    table = scores_of(rng, pruning.relu)
    loose = pruned(table, Pruning(relu=pruning.relu, max_postings=before))
    cut = loose.prune(threshold=pruning.threshold, max_postings=pruning.max_postings)
    built = pruned(table, loose.pruning.tightened(pruning.threshold, pruning.max_postings))
    assert cut.pruning == built.pruning
    np.testing.assert_array_equal(dense(cut)[1], dense(built)[1])
    np.testing.assert_allclose(dense(cut)[0], dense(built)[0], atol=1e-5)
    np.testing.assert_allclose(cut.floors, built.floors, atol=1e-5)
    np.testing.assert_allclose(cut.cuts, built.cuts, atol=1e-5)


def test_a_floor_after_items_went_is_the_mean_of_those_that_are_there(rng):
    table = scores_of(rng, True, (6, 12))
    index = pruned(table, Pruning()).remove_items([2, 7])
    short = index.prune(max_postings=3)
    left = np.delete(table, [1, 6], axis=1)
    worst = np.sort(left, axis=1)[:, :-3]
    np.testing.assert_allclose(short.floors, worst.mean(1), rtol=1e-5)


@pytest.mark.parametrize("limits", [{"threshold": 1e9}, {"keep_share": 1e-9}])
def test_limits_that_leave_nothing_are_refused(rng, limits):
    with pytest.raises(ValueError, match="would be empty|no posting"):
        pruned(scores_of(rng, True), Pruning()).prune(**limits)


@pytest.mark.parametrize("cap", [0, 2.5, True, float("nan")])
def test_a_cap_is_a_whole_number(cap):
    with pytest.raises(ValueError, match="max_postings must be at least 1"):
        Pruning(max_postings=cap)


# --- all of them, in any order


@pytest.mark.parametrize("seed", range(25))
def test_any_sequence_of_changes_gives_the_index_built_anew(tmp_path, seed):
    """Random changes to an uncut index, against a table with columns added and a set of removed."""
    rng = np.random.default_rng(seed)
    table = np.maximum(rng.normal(size=(16, 80)), 0).astype(np.float32)
    codes, n_items, gone = [2, 3, 5], 10, set()
    index = build_index(Table(table[:, :10]), codes, 10, relu=True, progress=False)
    for _ in range(12):
        change = rng.integers(6)
        if change == 0 and n_items < 70:
            more = int(rng.integers(1, 9))
            index = index.add_items(Table(table[:, : n_items + more], n_items), more)
            n_items += more
        elif change == 1:
            some = rng.integers(1, n_items + 1, 2)
            gone |= set(some.tolist())
            index = index.remove_items(some)
        elif change == 2 and len(codes) < 16:
            new = rng.choice(np.setdiff1d(np.arange(16), codes), 1)
            scorer = Table(table[:, :n_items])
            index = index.extend(build_index(scorer, new, n_items, relu=True, progress=False))
            codes = [*codes, *new.tolist()]
        elif change == 3:
            one, *others = index.shard(int(rng.integers(1, 5)))
            index = one.merge(*others)
        elif change == 4:
            index.save(tmp_path / "index")
            index = SparseInvertedIndex.load(tmp_path / "index", mmap=bool(rng.integers(2)))
        else:
            index = index.prune(max_postings=n_items, keep_share=1.0)
            index = SparseInvertedIndex(
                **{name: getattr(index, name) for name in (*NAMES, "n_items")}, pruning=Pruning()
            )
    scorer = Table(table[:, :n_items])
    built = build_index(scorer, codes, n_items, relu=True, progress=False)
    assert same(index, built.remove_items(sorted(gone)))


# --- keys of two kinds


KINDS = [  # of code lists and of item lists
    (Pruning(relu=False, max_postings=12), Pruning(relu=False, threshold=0.0, max_postings=5)),
    (Pruning(relu=True, threshold=0.25), Pruning(relu=False, max_postings=5)),
    (Pruning(relu=False), Pruning(relu=True, max_postings=7)),
    (Pruning(relu=False, max_postings=5), Pruning(relu=False, max_postings=12)),
]


def two_kinds(rng, kinds, n_items):
    """An index of the codes 0..9, one of the keys 10..19, and the table of both."""
    table = np.concatenate([scores_of(rng, kind.relu, (10, 60)) for kind in kinds])
    scorer = Table(table[:, :n_items])
    parts = [build_pruned(scorer, np.arange(10) + 10 * at, n_items, kind) for at, kind in enumerate(kinds)]
    return *parts, table


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_what_shortens_and_keeps_lists_does_so_to_both_kinds(rng, tmp_path, kinds):
    codes, items, _ = two_kinds(rng, kinds, 60)
    joined = codes.extend(items)
    assert joined.pruning == codes.pruning
    for limits in ({"threshold": 1.0}, {"max_postings": 3}, {"threshold": 0.5, "max_postings": 6}):
        pruned_parts = codes.prune(**limits).extend(items.prune(**limits))
        assert same(joined.prune(**limits), pruned_parts)
    joined.save(tmp_path / "index")
    assert same(SparseInvertedIndex.load(tmp_path / "index"), joined)
    assert same(joined.remove_items([3, 4]), codes.remove_items([3, 4]).extend(items))
    one, *others = joined.shard(3)
    assert same(one.merge(*others), joined)
    queries = rng.integers(0, 20, (30, 4))
    assert same_answers(joined.compact("uint8").decode(), joined.compact("uint8"), queries, 20)
    assert same_answers(codes.compact("uint8").extend(items), joined.compact("uint8"), queries, 20)


@pytest.mark.parametrize("kinds", KINDS, ids=str)
def test_items_join_lists_of_both_kinds(rng, kinds):
    codes, items, table = two_kinds(rng, kinds, 40)
    grown = codes.extend(items).add_items(Table(table, 40), 20)
    scores, stored = dense(grown)
    np.testing.assert_allclose(scores[stored], table[stored], atol=1e-6)
    apart = [one.add_items(Table(table, 40), 20) for one in (codes, items)]
    np.testing.assert_array_equal(stored[:10], dense(apart[0])[1])
    before = np.diff(codes.extend(items).offsets)
    cap = codes.pruning.max_postings
    assert cap is None or (np.diff(grown.offsets) <= np.maximum(before, cap)).all()
    if cap is None or cap >= items.pruning.max_postings:
        assert (stored[10:] >= dense(apart[1])[1]).all()  # the longer cap is that of both


def test_equal_scores_of_old_and_new_items_are_cut_alike():
    """The floor of a list that leaves nothing out rounds its scores; their order and ties must survive that."""
    new = Table(np.array([[1, -2, 1]], np.float32))
    for old in ([1, 0], [1, 0.1], [1, -1000]):
        table = np.array([[*old, 1, -2, 1]], np.float32)
        for cap in (2, 3, 4):
            pruning = Pruning(relu=False, max_postings=cap)
            grown, built = pruned(table[:, :2], pruning).add_items(new, 3), pruned(table, pruning)
            np.testing.assert_array_equal(dense(grown)[1], dense(built)[1])
            np.testing.assert_allclose(dense(grown)[0], dense(built)[0], rtol=1e-5, atol=1e-5)
