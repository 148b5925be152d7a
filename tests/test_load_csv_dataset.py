import hashlib
import tracemalloc

import numpy as np
import pytest

from data.ragged import Ragged
from errors import UserError
from load_csv_dataset import (
    Features,
    TrainingRows,
    TrainingSequences,
    load_catalogue,
    load_features,
    load_queries,
    load_training,
)

QUERIES = "hist_items,target_items\n"
SEQUENCES = "user_id,items\n"
ROWS = "hist_items,pos_items,neg_items\n"


def write(tmp_path, text, name="data.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.fixture
def sequences() -> TrainingSequences:
    """200 users; user u holds an ascending run that starts at 30 * u + 1, 0 to 30 items long."""
    lengths = np.random.default_rng(0).integers(0, 31, 200)
    rows = [np.arange(30 * u + 1, 30 * u + 1 + length) for u, length in enumerate(lengths)]
    return TrainingSequences(Ragged.from_rows(rows), 6000)


def epoch(training, seed=0, batch_size=64, seq_len=5, neg_num=7, positions=4, neg_power=0.0):
    """The batches, and history and positive of all of them."""
    batches = list(training.epoch(np.random.default_rng(seed), batch_size, seq_len, neg_num, positions, neg_power))
    history, positive = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    return batches, history, positive


def test_batches_have_one_shape(sequences):
    batches, _, _ = epoch(sequences)
    expected = np.clip(sequences.sequences.lengths() - 1, 0, 4).sum() // 64
    assert len(batches) == sequences.steps(64, 4) == expected > 5
    for batch in batches:
        assert [part.shape for part in batch[:4]] == [(64, 5), (64,), (7,), (7,)]
        assert [part.dtype for part in batch[:4]] == [np.int32] * 3 + [np.float32]
        assert batch.user is None


def test_history_is_what_stands_right_before_the_target(sequences):
    _, history, positive = epoch(sequences)
    start = (positive - 1) // 30 * 30 + 1  # first item of the target's user
    expected = positive[:, None] + np.arange(-5, 0)
    assert np.array_equal(history, np.where(expected >= start[:, None], expected, 0))
    assert (history[:, -1] > 0).all()  # never an empty history: the first item is no target


def test_the_numbers_drawn_stay_the_same(sequences):
    """Another order of the draws would train another model from the same seed."""
    digest = hashlib.sha256()
    for batch in epoch(sequences, neg_power=0.5)[0]:
        for part in batch[:4]:
            digest.update(part.round(5).tobytes())
    assert digest.hexdigest()[:16] == "0dc9ff6e54c291e8"


def windows(training, seed=0, batch_size=64, seq_len=5, positions=10**6):
    """history and positive of all batches of an epoch that visits all positions, and how many batches there are."""
    rng = np.random.default_rng(seed)
    batches = list(training.epoch(rng, batch_size, seq_len, 7, positions, 0.0, all_positions=True))
    assert len(batches) == training.steps(batch_size, positions, all_positions=True, seq_len=seq_len)
    rows = min(batch_size, training.steps(1, positions, all_positions=True, seq_len=seq_len))
    for batch in batches:
        assert [part.shape for part in batch[:4]] == [(rows, seq_len)] * 2 + [(7,)] * 2
        assert [part.dtype for part in batch[:4]] == [np.int32] * 3 + [np.float32]
        assert batch.history.any()  # no batch without a row
    history, positive = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    return history, positive


@pytest.mark.parametrize(("batch_size", "seq_len"), [(64, 5), (10**4, 3), (7, 29), (1, 40)])
def test_all_positions_visits_every_target_once(sequences, batch_size, seq_len):
    _, positive = windows(sequences, 1, batch_size, seq_len)
    whole = [row[1:] for row in sequences.sequences]
    assert sorted(positive[positive > 0].tolist()) == sorted(np.concatenate(whole).tolist())


@pytest.mark.parametrize("all_positions", [False, True])
def test_a_target_is_one_of_the_next_items_of_its_sequence(sequences, all_positions):
    """The items of a user rise by one from 30 u + 1 on."""
    ahead = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for batch in sequences.epoch(rng, 16, 5, 5, 99, 0.0, all_positions=all_positions, next_items=3):
            positive = batch.positive if all_positions else batch.positive[:, None]
            last = batch.history[:, -positive.shape[1] :]
            has = positive > 0
            ahead |= set((positive - last)[has].tolist())
            assert ((positive - 1) // 30 == (last - 1) // 30)[has].all()
    assert ahead == {1, 2, 3}
    with pytest.raises(UserError, match="next_items is 0"):
        sequences.epoch(np.random.default_rng(0), 16, 5, 5, 99, 0.0, next_items=0)


@pytest.mark.parametrize("all_positions", [False, True])
def test_items_are_targets_as_often_as_told_whatever_a_target_is_drawn_from(all_positions):
    training = TrainingSequences(Ragged.from_rows([[1, 2, 3], list(range(4, 10)), [2, 11, 3, 10]]), 11)
    told, counts = training._target_frequencies(6, 6, all_positions, 3), np.zeros(12)
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        for batch in training.epoch(rng, 1, 6, 5, 6, 0.0, all_positions=all_positions, next_items=3):
            counts += np.bincount(batch.positive.ravel(), minlength=12)
    assert told.sum() == pytest.approx(10) and counts[1] == told[0] == 0
    np.testing.assert_allclose(counts[1:] / 2000, told, atol=0.06)


@pytest.mark.parametrize("all_positions", [False, True])
def test_items_are_targets_as_often_as_in_batch_negatives_are_told(all_positions):
    """A long history has fewer of its items drawn, and no first item is a target."""
    training = TrainingSequences(Ragged.from_rows([[1, 2, 3], list(range(4, 40)), [2, 41, 3, 40]]), 41)
    told, counts = training._target_frequencies(4, 6, all_positions), np.zeros(42)
    for seed in range(300):
        for batch in training.epoch(np.random.default_rng(seed), 1, 4, 5, 6, 0.0, all_positions=all_positions):
            counts += np.bincount(batch.positive.ravel(), minlength=42)
    assert told[0] == told[3] == 0 and counts[1] == 0
    np.testing.assert_allclose(counts[[2, 3, 40, 41]] / 300, told[[1, 2, 39, 40]], rtol=1e-9)
    assert abs(counts[5:40].sum() / 300 - told[4:39].sum()) < (1.5 if all_positions else 1e-9)


@pytest.mark.parametrize("all_positions", [False, True])
def test_targets_per_batch_leave_padding_out(sequences, all_positions):
    cut = 16, 20, all_positions, 7
    batches = list(sequences.epoch(np.random.default_rng(0), 16, 7, 5, 20, 0.0, all_positions=all_positions))
    assert len(batches) == sequences.steps(*cut)
    found = np.mean([np.count_nonzero(batch.positive) for batch in batches])
    assert sequences.targets_per_batch(*cut) == pytest.approx(found, rel=0.05)


def test_all_positions_target_is_the_next_item(sequences):
    """The items rise by one, so the next item is known; what stands before the window's first target is context."""
    history, positive = windows(sequences)
    has = positive > 0
    assert (history[has] == positive[has] - 1).all()
    rows = history.any(axis=1)
    assert has[rows, -1].all() and not has[~rows].any()
    assert (np.diff(has.astype(int), axis=1) >= 0).all()  # targets stand at the end
    start = (positive[rows, -1:] - 1) // 30 * 30 + 1
    due = positive[rows, -1:] + np.arange(-5, 0)
    assert np.array_equal(history[rows], np.where(due >= start, due, 0))  # context fills the window


def test_all_positions_cuts_anew_every_epoch(sequences):
    cuts = [{tuple(row) for row in windows(sequences, seed)[1].tolist()} for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1]
    assert len(cuts[0] & cuts[2]) < 0.7 * len(cuts[0])
    training = TrainingSequences(Ragged.from_rows([range(1, 14)]), 13)  # twelve targets in three windows of five
    first = {tuple((row > 0).sum() for row in windows(training, seed, 3)[1]) for seed in range(60)}
    assert {sum(counts) for counts in first} == {12}
    assert {tuple(sorted(counts)) for counts in first} == {(2, 5, 5), (3, 4, 5)}  # no window is ever a stub


def test_of_long_sequences_some_windows_are_drawn_anew_every_epoch(sequences):
    seen = []
    for seed in (0, 1):
        _, positive = windows(sequences, seed, positions=8)  # two windows of five hold eight
        users, counts = np.unique((positive[:, -1][positive[:, -1] > 0] - 1) // 30, return_counts=True)
        lengths = sequences.sequences.lengths() - 1
        np.testing.assert_array_equal(counts, np.minimum(-(-lengths[users] // 5), 2))
        seen.append(set(positive[positive > 0].tolist()))
        assert len(seen[-1]) == (positive > 0).sum()  # no target twice
    assert len(seen[0] & seen[1]) < 0.8 * len(seen[0])


def test_all_positions_needs_a_length_and_a_target(sequences):
    with pytest.raises(UserError, match="seq_len"):
        sequences.steps(64, 1, all_positions=True)
    with pytest.raises(UserError, match="two items"):
        TrainingSequences(Ragged.from_rows([[1], []]), 9).steps(64, 1, all_positions=True, seq_len=5)


def test_queries_are_those_of_the_batches_uncut(sequences):
    sequences.users = np.arange(200, dtype=np.int32)[:, None]
    whole = sequences.queries(np.random.default_rng(0), 4, 100)
    _, history, targets = epoch(sequences, batch_size=1)
    found = np.column_stack([whole.histories.tail(5), whole.targets.tail(1)])
    assert sorted(map(tuple, found.tolist())) == sorted((*h, t) for h, t in zip(history.tolist(), targets, strict=True))
    assert whole.histories.lengths().max() > 5
    assert np.array_equal(whole.users[:, 0], (found[:, -1] - 1) // 30)


@pytest.mark.parametrize("most", [1, 37, 200, 700])
def test_fewer_queries_are_of_as_many_users(sequences, most):
    users = (sequences.sequences.lengths() > 1).sum()
    some = sequences.queries(np.random.default_rng(0), 4, 100, most)
    every = len(sequences.queries(np.random.default_rng(0), 4, 100))
    assert 0.8 * min(most, every) <= len(some) <= min(most, every)  # some users have fewer than their share
    owners = np.unique((some.targets.values - 1) // 30)
    assert len(owners) > 0.9 * min(most, users)


def test_queries_hold_the_items_that_are_read(sequences):
    whole, cut = (sequences.queries(np.random.default_rng(0), 4, length) for length in (100, 3))
    np.testing.assert_array_equal(cut.histories.tail(9)[:, -3:], whole.histories.tail(3))
    assert cut.histories.lengths().max() == 3 and np.array_equal(cut.targets.values, whole.targets.values)


def test_positions_are_drawn_without_replacement_all_if_few(sequences):
    _, _, targets = epoch(sequences, batch_size=1)
    assert len(np.unique(targets)) == len(targets)
    counts = np.bincount((targets - 1) // 30, minlength=200)
    assert np.array_equal(counts, np.clip(sequences.sequences.lengths() - 1, 0, 4))


def test_positions_are_uniform():
    training = TrainingSequences(Ragged.from_rows([range(1, 12)] * 4000), 11)
    _, _, targets = epoch(training, batch_size=1000, positions=3)
    counts = np.bincount(targets, minlength=12)
    assert counts[1] == 0
    assert np.abs(counts[2:] - 1200).max() < 150  # four standard deviations


def test_epochs_differ_and_a_seed_repeats_them(sequences):
    def batches(rng):
        return [[part.tolist() for part in batch[:4]] for batch in sequences.epoch(rng, 64, 5, 7, 4, 0.5)]

    rng = np.random.default_rng(3)
    first, second, again = batches(rng), batches(rng), batches(np.random.default_rng(3))
    assert first == again
    assert all(a[part] != b[part] for a, b in zip(first, second, strict=False) for part in (0, 1, 2))
    targets = [set().union(*(batch[1] for batch in part)) for part in (first, second)]
    assert len(targets[0] & targets[1]) < 0.5 * len(targets[0])  # drawn anew, not only shuffled


def test_users_are_shuffled(sequences):
    _, _, targets = epoch(sequences)
    users = (targets - 1) // 30
    assert abs(np.corrcoef(users, np.arange(len(users)))[0, 1]) < 0.2


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ({"batch_size": 10**6}, "less than one batch"),
        ({"batch_size": 0}, "batch_size"),
        ({"seq_len": 0}, "seq_len"),
        ({"neg_num": 0}, "neg_num"),
        ({"positions": 0}, "positions_per_user"),
    ],
)
def test_settings_without_a_batch_are_refused(sequences, setting, part):
    with pytest.raises(UserError, match=part):
        epoch(sequences, **setting)


def test_one_item_has_no_negative():
    with pytest.raises(UserError, match="two"):
        TrainingSequences(Ragged.from_rows([[1]]), 1)


def test_sequences_file(tmp_path):
    path = write(tmp_path, SEQUENCES + 'a,"[3, 1, 2]"\nb,"[2,3]"\n')
    training = load_training(path, 3)
    assert isinstance(training, TrainingSequences)
    assert [row.tolist() for row in training.sequences] == [[3, 1, 2], [2, 3]]


@pytest.fixture
def release_rows(tmp_path) -> TrainingRows:
    text = ROWS + '"[0, 0, 1, 2]",3,"[4, 5]"\n"[5, 4, 0, 0]",1,"[2, 3]"\n"[1, 2, 3, 4]",5,"[6, 6]"\n'
    return load_training(write(tmp_path, text), 6)


def test_release_rows_lose_their_padding(release_rows):
    assert [row.tolist() for row in release_rows.queries(None, 1, 100).histories] == [
        [1, 2],
        [5, 4],
        [1, 2, 3, 4],
    ]
    assert len(release_rows.queries(np.random.default_rng(0), 1, 100, 2)) == 2
    assert release_rows.positives.tolist() == [3, 1, 5]
    assert release_rows.negatives.tolist() == [[4, 5], [2, 3], [6, 6]]
    assert release_rows.positives.dtype == release_rows.negatives.dtype == np.int32


def test_release_rows_give_their_own_negatives(release_rows):
    orders = set()
    for seed in range(5):
        batches, history, positive = epoch(release_rows, seed, 1, 3, 2, positions=99)
        assert len(batches) == release_rows.steps(1, 99) == 3
        orders.add(tuple(positive.tolist()))
        rows = {batch[1][0]: (batch[0][0].tolist(), batch[2][0].tolist()) for batch in batches}
        assert rows == {3: ([0, 1, 2], [4, 5]), 1: ([0, 5, 4], [2, 3]), 5: ([2, 3, 4], [6, 6])}
        assert all((batch[3] == np.zeros((1, 2))).all() for batch in batches)
    assert len(orders) > 1  # shuffled


def test_release_rows_have_one_target_in_the_last_column(release_rows):
    rng = np.random.default_rng(0)
    batches = list(release_rows.epoch(rng, 1, 3, 2, 1, 0.0, all_positions=True))
    assert len(batches) == release_rows.steps(1, 1, all_positions=True, seq_len=3) == 3
    assert sorted(batch.positive.tolist() for batch in batches) == [[[0, 0, 1]], [[0, 0, 3]], [[0, 0, 5]]]
    assert all(batch.positive.dtype == np.int32 for batch in batches)
    assert all(batch.negative.shape == batch.log_expected.shape == (3, 2) for batch in batches)  # of each place


def test_release_rows_refuse_more_negatives_than_given(release_rows):
    with pytest.raises(UserError, match="neg_num is 3"):
        epoch(release_rows, batch_size=1, neg_num=3)


def test_release_rows_refuse_targets_drawn_from_several_items(release_rows):
    with pytest.raises(UserError, match="next_items is 2"):
        release_rows.epoch(np.random.default_rng(0), 1, 3, 2, 1, 0.0, next_items=2)


def test_queries_file(tmp_path):
    long = list(range(1, 40_001))  # a cell beyond csv's own limit of 131,072 characters
    text = QUERIES + '"[0, 3, 1, 0]","[2, 5]"\n[4],[1]\n' + f'"{long}",[40001]\n'
    queries = load_queries(write(tmp_path, text), 40_001)
    assert len(queries) == 3
    assert [row.tolist() for row in queries.histories][:2] == [[3, 1], [4]]
    assert [row.tolist() for row in queries.targets] == [[2, 5], [1], [40001]]
    assert queries.histories.lengths()[2] == 40_000
    taken = queries.take([1])
    assert (taken.histories[0].tolist(), taken.targets[0].tolist()) == ([4], [1])


def test_byte_order_mark_is_no_part_of_the_header(tmp_path):
    assert len(load_queries(write(tmp_path, "\ufeff" + QUERIES + "[1],[2]\n"), 2)) == 1


def test_equal_queries_of_two_users_are_fine(tmp_path):
    assert len(load_queries(write(tmp_path, QUERIES + "[1],[2]\n[1],[2]\n"), 2)) == 2


GOOD = '"[1, 2]","[3]"\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        (QUERIES, ["no rows"]),
        ("hist_items,target\n", ["line 1", "'target_items'"]),
        (QUERIES + GOOD + '"[1, 2]"\n', ["line 3", "1 fields"]),
        (QUERIES + GOOD + '"[1, 2","[3]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + '"[1, 2]",3 4\n', ["line 3", "target_items", "JSON"]),
        (QUERIES + GOOD + '"[1, 2.0]","[3]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + '"[1, true]","[3]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + '"[1, ""2""]","[3]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + '"{}","[3]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + '"[[1]]","[3]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + '"[1]","[1' + "0" * 30 + ']"\n', ["line 3", "target_items", "JSON"]),
        (QUERIES + GOOD + '"' + "[" * 99999 + '","[1]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + ',"[3]"\n', ["line 3", "hist_items", "JSON"]),
        (QUERIES + GOOD + '"[]","[3]"\n', ["line 3", "hist_items", "too few"]),
        (QUERIES + GOOD + '"[0, 0]","[3]"\n', ["line 3", "hist_items", "too few"]),
        (QUERIES + GOOD + '"[1]","[]"\n', ["line 3", "target_items", "too few"]),
        (QUERIES + GOOD + '"[1, 0, 2]","[3]"\n', ["line 3", "hist_items", "padding"]),
        (QUERIES + GOOD + '"[1, 2]","[3, 0]"\n', ["line 3", "target_items", "padding"]),
        (QUERIES + GOOD + '"[1, 7]","[3]"\n', ["line 3", "hist_items", "item 7", "1 to 6"]),
        (QUERIES + GOOD + '"[1]","[-3]"\n', ["line 3", "target_items", "item -3"]),
        (
            QUERIES + GOOD + '"[1, 2]","[3, 2]"\n',
            ["line 3", "target_items", "item 2", "hist_items"],
        ),
        (QUERIES + GOOD + '"[1, 2]","[3, 4, 3]"\n', ["line 3", "target_items", "item 3", "twice"]),
        (QUERIES + GOOD + '"[1, 2]","[3]\n', ["line 3", "quotes"]),
        (QUERIES.encode() + b"[1],[2]\n[\xff],[2]\n", ["line 3", "UTF-8"]),
    ],
)
def test_bad_queries_are_refused_with_the_place(tmp_path, text, parts):
    with pytest.raises(UserError) as refusal:
        load_queries(write(tmp_path, text, "test.csv"), 6)
    message = str(refusal.value)
    for part in ["test.csv", *parts]:
        assert part in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("user,items\n1,[1]\n", ["line 1", "user_id,items", "hist_items,pos_items,neg_items"]),
        (SEQUENCES + '1,"[1, 2]"\n2,"[1]"\n', ["line 3", "items", "a history and a target"]),
        (SEQUENCES + '1,"[1, 2]"\n1,"[3, 4]"\n', ["line 3", "user_id", "line 2"]),
        (SEQUENCES + '1,"[1, 2]"\n2,"[3, 4, 3]"\n', ["line 3", "items", "item 3", "twice"]),
        (SEQUENCES + '1,"[1, 2]"\n2,"[0, 3, 4]"\n', ["line 3", "items", "padding"]),
        (SEQUENCES + '1,"[1, 2]"\n2,"[3, 9]"\n', ["line 3", "items", "item 9"]),
        (ROWS + "[1],2,[3]\n[1],1,[3]\n", ["line 3", "pos_items", "item 1", "hist_items"]),
        (ROWS + "[1],2,[3]\n[1],3,[3]\n", ["line 3", "pos_items", "item 3", "neg_items"]),
        (ROWS + "[1],2,[3]\n[1],0,[3]\n", ["line 3", "pos_items", "padding"]),
        (ROWS + '[1],2,[3]\n[1],2,"[3, 4]"\n', ["line 3", "neg_items", "1 ids as in the first"]),
        (ROWS + '[1],2,[3]\n[1],"[2, 4]",[3]\n', ["line 3", "pos_items", "one"]),
        (ROWS + "[1],2,[3]\n[4],2,[3]\n[1],2,[3]\n", ["line 4", "line 2"]),
    ],
)
def test_bad_training_is_refused_with_the_place(tmp_path, text, parts):
    with pytest.raises(UserError) as refusal:
        load_training(write(tmp_path, text), 6)
    for part in ["data.csv", *parts]:
        assert part in str(refusal.value)


def test_catalogue(tmp_path):
    text = 'id,original_id,title,categories\n1,50,"A, B (1999)",Drama|War\n2,7,\u00e9,\n'
    write(tmp_path, text, "items.csv")
    catalogue = load_catalogue(tmp_path)
    assert catalogue.n_items == 2
    assert catalogue.original_ids == ["", "50", "7"]
    assert catalogue.titles == ["", "A, B (1999)", "\u00e9"]
    assert catalogue.categories == ["", "Drama|War", ""]
    assert catalogue.years == ["", "", ""]
    assert catalogue.find(["50", "7", "a, b", ""]) == [2, 1]  # an item named twice stays in its last place
    catalogue.original_ids[2] = " x 1 "  # ids may be any text
    assert catalogue.find(["x 1", " x 1 ", "50 "]) == [2, 1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["empty"]),
        ("id,original_id,title,categories\n", ["no items"]),
        ("id,title\n1,a\n", ["line 1", "'original_id'"]),
        ("id,original_id,title,categories\n1,5,a,\n3,6,b,\n", ["line 3", "column id", "2 is due"]),
        ("id,original_id,title,categories\n2,5,a,\n1,6,b,\n", ["line 2", "column id", "1 is due"]),
        ("id,original_id,title,categories\n1,5,a,\n2,5,b,\n", ["line 3", "original_id", "line 2"]),
    ],
)
def test_bad_catalogue_is_refused_with_the_place(tmp_path, text, parts):
    write(tmp_path, text, "items.csv")
    with pytest.raises(UserError) as refusal:
        load_catalogue(tmp_path)
    for part in ["items.csv", *parts]:
        assert part in str(refusal.value)


def test_release_folder_without_items_file(tmp_path):
    """Ids may have gaps, as in MovieLens: the category belongs to the id, not to the line."""
    write(tmp_path, "1,3\n4,2\n", "cate_item.txt")
    catalogue = load_catalogue(tmp_path)
    assert catalogue.n_items == 4
    assert catalogue.categories == ["", "3", "", "", "2"]
    write(tmp_path, "1,3\n1,2\n", "cate_item.txt")
    with pytest.raises(UserError, match="line 2"):
        load_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("1,1\n2000000000,1\n", "line 2, column item_id: item 2000000000 of 2 items.*up to 100000"),
        ("1" * 30 + ",1\n", "line 1: not item_id,cate_id"),
        ("1" * 9999 + ",1\n", "line 1: not item_id,cate_id"),
    ],
)
def test_one_large_id_is_refused_before_memory_is_taken(tmp_path, lines, part):
    write(tmp_path, lines, "cate_item.txt")
    tracemalloc.start()
    with pytest.raises(UserError, match=part):
        load_catalogue(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_hostile_cells_are_shortened_and_escaped(tmp_path):
    hostile = "\x1b[2J" + "9" * 10**6
    for text in (QUERIES + f"{hostile},[1]\n", f"{hostile},b\n1,2\n"):
        with pytest.raises(UserError) as refusal:
            load_queries(write(tmp_path, text), 6)
        assert len(str(refusal.value)) < 500 and str(refusal.value).isprintable()


@pytest.fixture
def with_users(tmp_path):
    """A folder of one's own with users.csv; user d is asked about, but not trained on."""
    write(
        tmp_path, "id,original_id,title,categories,year\n1,x,A,War|Drama,1990\n2,y,B,,\n3,z,C,Drama,1991\n", "items.csv"
    )
    write(tmp_path, "user_id,sex,job\na,F,10\nb,M,\nd,X,10|F\n", "users.csv")
    write(tmp_path, SEQUENCES + 'b,"[3, 1, 2]"\na,"[2,3]"\n')
    write(tmp_path, "user_id," + QUERIES + "d,[1],[2]\na,[2],[3]\nd,[1],[3]\n", "test.csv")
    return tmp_path


def test_features_of_users(with_users):
    found = load_features(with_users, ("job", "sex"), ())
    assert found.item is None and found.user.names == ["", "job=10", "sex=F", "sex=M"]  # one vocabulary, not d's values
    assert found.user.n_values == 3 and found.user.values.dtype == np.int32
    # d has two jobs of which one is known, and a sex that no training user has
    assert found.user.values.tolist() == [[0, 0, 0], [1, 0, 2], [0, 0, 3], [1, 0, 0]]
    training = load_training(with_users / "data.csv", 3, found)
    assert training.users.tolist() == [[0, 0, 3], [1, 0, 2]]
    queries = load_queries(with_users / "test.csv", 3, found)
    assert queries.users.tolist() == [[1, 0, 0], [1, 0, 2], [1, 0, 0]]
    assert queries.take([1]).users.tolist() == [[1, 0, 2]]
    assert queries.take(np.array([True, False, False])).users.tolist() == [[1, 0, 0]]
    assert load_queries(with_users / "test.csv", 3).users is None
    assert load_training(with_users / "data.csv", 3, load_features(with_users, (), ("year",))).users is None


def test_features_of_items(with_users):
    found = load_features(with_users, (), ("categories", "year"))
    assert found.user is None
    assert found.item.names == ["", "categories=Drama", "categories=War", "year=1990", "year=1991"]
    assert found.item.values.tolist() == [[0, 0, 0], [2, 1, 3], [0, 0, 0], [1, 0, 4]]
    assert load_features(with_users, (), ()) == Features()


def test_features_of_the_release_format(tmp_path):
    write(tmp_path, "1,7\n3,8\n", "cate_item.txt")
    assert load_features(tmp_path, (), ("categories",)).item.values.tolist() == [[0], [1], [0], [2]]
    write(tmp_path, "user_id,age\nu,5\nv,6\n", "users.csv")
    write(tmp_path, "user_id," + ROWS + "v,[1],2,[3]\nu,[2],1,[3]\nv,[3],1,[2]\n")
    features = load_features(tmp_path, ("age",), ())
    rows = load_training(tmp_path / "data.csv", 3, features)
    assert rows.users.tolist() == [[2], [1], [2]]
    batch = next(rows.epoch(np.random.default_rng(0), 3, 4, 1, 1, 0.0))
    assert sorted(zip(batch.history[:, -1].tolist(), batch.user[:, 0].tolist(), strict=True)) == [
        (1, 2),
        (2, 1),
        (3, 2),
    ]
    write(tmp_path, ROWS + "[1],2,[3]\n")
    with pytest.raises(UserError, match="data.csv, line 1: no column 'user_id'"):
        load_features(tmp_path, ("age",), ())
    with pytest.raises(UserError, match="test.csv, line 1: no column 'user_id'"):
        load_queries(write(tmp_path, QUERIES + "[1],[2]\n", "test.csv"), 3, features)


@pytest.mark.parametrize(
    ("user_features", "item_features", "part"),
    [
        (("age",), (), "--user_features: .* has no 'age'; choose from 'sex, job'"),
        ((), ("colour",), "--item_features: .* has no 'colour'; choose from 'categories, year'"),
    ],
)
def test_unknown_features_are_refused(with_users, user_features, item_features, part):
    with pytest.raises(UserError, match=part):
        load_features(with_users, user_features, item_features)


def test_missing_users_and_values_are_refused(with_users):
    features = load_features(with_users, ("sex",), ())
    write(with_users, "user_id," + QUERIES + "a,[1],[2]\nwho,[2],[3]\n", "test.csv")
    with pytest.raises(UserError, match="test.csv, line 3, column user_id: nothing is known of user 'who'"):
        load_queries(with_users / "test.csv", 3, features)
    write(with_users, "id,original_id,title,categories\n1,x,A,\n", "items.csv")
    with pytest.raises(UserError, match="no item has a year"):
        load_features(with_users, (), ("year",))
    (with_users / "users.csv").write_text("user_id,age\na,\n")
    with pytest.raises(UserError, match="no user has a age; leave age out of --user_features"):
        load_features(with_users, ("age",), ())
    (with_users / "users.csv").write_text("user_id\na\n")
    with pytest.raises(UserError, match="this data knows none; give a --user_file"):
        load_features(with_users, ("sex",), ())
    (with_users / "users.csv").unlink()
    with pytest.raises(UserError, match="holds no users.csv"):
        load_features(with_users, ("sex",), ())


@pytest.mark.parametrize("all_positions", [False, True])
def test_every_row_has_the_features_of_its_user(sequences, all_positions):
    sequences.users = np.stack([np.arange(200), np.arange(200) % 3], axis=1).astype(np.int32) + 1
    rng = np.random.default_rng(0)
    for batch in sequences.epoch(rng, 64, 5, 7, 4, 0.0, all_positions=all_positions):
        assert batch.user.shape == (64, 2) and batch.user.dtype == np.int32
        last = batch.history[:, -1]  # the first user's items are 1 to 30 ...
        due = sequences.users[np.maximum(last - 1, 0) // 30] * (last > 0)[:, None]
        assert np.array_equal(batch.user, due)


def test_absent_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"items\.csv"):
        load_catalogue(tmp_path)
    with pytest.raises(UserError, match=r"valid\.csv"):
        load_queries(tmp_path / "valid.csv", 3)
