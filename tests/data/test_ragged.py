import numpy as np
import pytest

from data.ragged import Ragged

ROWS = [[5, 3, 8], [], [1], [2, 9]]


@pytest.fixture
def ragged() -> Ragged:
    return Ragged.from_rows(ROWS)


def test_rows_come_back(ragged):
    assert len(ragged) == 4
    assert [row.tolist() for row in ragged] == ROWS
    assert ragged[-1].tolist() == [2, 9]
    assert ragged.lengths().tolist() == [3, 0, 1, 2]
    assert ragged.offsets.dtype == np.int64 and ragged.values.dtype == np.int32
    with pytest.raises(IndexError):
        ragged[4]


def test_row_is_a_view(ragged):
    assert np.shares_memory(ragged[0], ragged.values)


def test_take_by_index_and_mask(ragged):
    assert [r.tolist() for r in ragged.take([3, 0, 0])] == [[2, 9], [5, 3, 8], [5, 3, 8]]
    assert [r.tolist() for r in ragged.take(np.array([True, True, False, False]))] == ROWS[:2]
    assert len(ragged.take([])) == 0


def test_tail_keeps_the_newest_in_the_last_column(ragged):
    assert ragged.tail(2).tolist() == [[3, 8], [0, 0], [0, 1], [2, 9]]
    assert ragged.tail(4).tolist() == [[0, 5, 3, 8], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 2, 9]]
    assert ragged.tail(3).dtype == np.int32


def test_tail_agrees_with_a_loop():
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 99, rng.integers(0, 9)).tolist() for _ in range(50)]
    expected = [([0] * 5 + row)[-5:] for row in rows]
    assert Ragged.from_rows(rows).tail(5).tolist() == expected


def test_nothing_at_all():
    empty = Ragged.from_rows([])
    assert len(empty) == 0 and empty.tail(3).shape == (0, 3)
    assert Ragged.from_rows([[], []]).tail(2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("offsets", [[1, 2], [0, 3], [0, 2, 1, 2], []])
def test_offsets_that_do_not_fit_are_refused(offsets):
    with pytest.raises(ValueError):
        Ragged(np.array(offsets), np.array([4, 5]))


def test_slices_stay_inside_their_rows(ragged):
    rows = np.array([0])
    assert ragged.slices(rows, np.array([1]), np.array([3]))[0].tolist() == [3, 8]
    with pytest.raises(ValueError):
        ragged.slices(rows, np.array([1]), np.array([4]))
