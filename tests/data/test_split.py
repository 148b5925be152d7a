import numpy as np
import pytest

from data.ragged import Ragged
from data.split import last_three, leave_one_out, user_split
from errors import UserError


@pytest.fixture
def histories() -> Ragged:
    """100 users with 5 to 24 items, each item unlike all others: user * 100 + place."""
    return Ragged.from_rows([[u * 100 + p + 1 for p in range(5 + u % 20)] for u in range(100)])


def test_users_are_cut_80_10_10_and_disjoint(histories):
    split = user_split(histories, seed=0)
    assert len(split.sequences) == 80 and len(split.users) == 80
    owners = [
        {int(value - 1) // 100 for value in part.values}
        for part in (split.sequences, split.valid.histories, split.test.histories)
    ]
    assert [len(owner) for owner in owners] == [80, 10, 10]
    assert len(set.union(*owners)) == 100
    assert owners[0] == set(split.users)


def test_query_is_the_first_80_percent_and_targets_the_rest(histories):
    test = user_split(histories, seed=0).test
    for history, targets in zip(test.histories, test.targets, strict=True):
        whole = histories[(history[0] - 1) // 100]
        assert np.concatenate([history, targets]).tolist() == whole.tolist()
        assert len(history) == int(len(whole) * 0.8)
        assert len(targets) >= 1


def test_seed_decides_the_users(histories):
    first, again, other = (user_split(histories, seed=s).users for s in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


def test_leave_one_out_keeps_time_order():
    split = leave_one_out(Ragged.from_rows([[1, 2, 3], [4, 5, 6, 7, 8]]), seed=0)
    assert split.left_out == 1 and split.users.tolist() == [1]
    assert split.sequences[0].tolist() == [4, 5, 6]
    assert (split.valid.histories[0].tolist(), split.valid.targets[0].tolist()) == ([4, 5, 6], [7])
    assert (split.test.histories[0].tolist(), split.test.targets[0].tolist()) == ([4, 5, 6, 7], [8])


def test_users_of_queries_are_those_they_were_cut_from(histories):
    for split in (user_split(histories, 0), leave_one_out(histories, 0), last_three(histories, 0)):
        parts = ((split.users, split.sequences), (split.valid_users, split.valid.histories))
        for users, rows in (*parts, (split.test_users, split.test.histories)):
            assert [int(row[0] - 1) // 100 for row in rows] == users.tolist()


def test_last_three_asks_for_each_with_what_stood_before():
    split = last_three(Ragged.from_rows([range(1, 8), range(11, 20)]), seed=0)
    assert split.left_out == 1 and split.users.tolist() == [1] and "no ratings" in split.note
    assert [row.tolist() for row in split.sequences] == [[11, 12, 13]]
    for part, targets in ((split.valid, [14, 15, 16]), (split.test, [17, 18, 19])):
        assert [row.tolist() for row in part.targets] == [[target] for target in targets]
        assert [row.tolist() for row in part.histories] == [list(range(11, target)) for target in targets]


def test_last_three_counts_only_what_was_liked():
    """Ratings of 2 and less are no targets; they stay in histories and training."""
    ratings = np.array([5, 1, 5, 2, 2.5, 3, 1, 4, 2], np.float32)
    split = last_three(Ragged.from_rows([range(1, 10)]), 0, ratings)
    assert split.note == "1 of 3 test targets are asked for, those rated above 2"
    assert split.valid.targets.values.tolist() == [5, 6] and split.test.targets.values.tolist() == [8]
    assert split.test.histories[0].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert split.valid_users.tolist() == [0, 0] and split.sequences[0].tolist() == [1, 2, 3]
    with pytest.raises(UserError, match="no target of last-3 is rated above 2"):
        last_three(Ragged.from_rows([range(1, 10)]), 0, ratings * 0)


def test_too_few_users_are_refused():
    few = Ragged.from_rows([[1, 2, 3]] * 9)
    with pytest.raises(UserError, match="needs 10"):
        user_split(few, 0)
    with pytest.raises(UserError, match="leave-one-out"):
        leave_one_out(few, 0)
    with pytest.raises(UserError, match="8 items that last-3 needs"):
        last_three(few, 0)
