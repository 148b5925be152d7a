import numpy as np
import pytest

from data.ragged import Ragged
from data.split import leave_one_out, user_split
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


def test_too_few_users_are_refused():
    few = Ragged.from_rows([[1, 2, 3]] * 9)
    with pytest.raises(UserError, match="needs 10"):
        user_split(few, 0)
    with pytest.raises(UserError, match="leave-one-out"):
        leave_one_out(few, 0)
