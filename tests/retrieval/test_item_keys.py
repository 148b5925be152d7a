"""Item keys: the newest items, weighted by age; nothing for what is not there."""

from types import SimpleNamespace

import numpy as np

from retrieval.keys import ItemKeys

KEYS = ItemKeys(100, (0.25, 0.5, 1.0))


def histories(*rows):
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return SimpleNamespace(offsets=offsets, values=np.array([item for row in rows for item in row], np.int32))


def test_the_last_items_are_the_keys_and_the_newest_counts_most():
    keys, weights = KEYS.of(histories([7, 8, 9, 4], [5], [], [6, 2]))
    assert keys.tolist() == [[108, 109, 104], [-1, -1, 105], [-1, -1, -1], [-1, 106, 102]]
    assert weights.tolist() == [[0.25, 0.5, 1], [0, 0, 1], [0, 0, 0], [0, 0.5, 1]]


def test_without_any_item_there_is_no_key():
    keys, weights = KEYS.of(histories([], []))
    assert (keys == -1).all() and (weights == 0).all()


def test_codes_stand_before_the_items_with_weights_of_their_own():
    keys, weights = KEYS.beside(np.array([[3, 3]]), np.float32([[2, 0.5]]), histories([9]))
    assert keys.tolist() == [[3, 3, -1, -1, 109]] and weights.tolist() == [[2, 0.5, 0, 0, 1]]
