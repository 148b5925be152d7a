"""Scores of an interaction as inner products of longer vectors."""

import numpy as np
import pytest

from models.vq import score_features
from models.vq.score_features import ScoreFeatures

RANK, N_ITEMS = 3, 600
RNG = np.random.default_rng(0)
TOKENS = RNG.standard_normal((300, 2, 4)).astype(np.float32)
ITEMS = RNG.standard_normal((N_ITEMS, RANK)).astype(np.float32)


def scores(tokens, items):
    """No product of a token and an item; its rows over the items have rank 3."""
    table = ITEMS if items is None else ITEMS[items]
    curved = np.stack([np.square(tokens).sum(1), np.maximum(tokens[:, 0], 0), np.abs(tokens[:, 1] * tokens[:, 2])], 1)
    return (curved @ table.T + 7).astype(np.float32)


@pytest.fixture
def features():
    found = ScoreFeatures(scores, N_ITEMS)
    found.fit(TOKENS, 0)
    return found


def centred(rows):
    return rows - rows.mean(1, keepdims=True)


def test_products_of_the_features_are_the_scores_of_any_user(features):
    """Up to a number per user; of users who were not among those it was fitted to, and from 256 of 600 items."""
    tokens = np.random.default_rng(1).standard_normal((50, 2, 4)).astype(np.float32)
    expected = centred(scores(tokens[:, 0], None) + scores(tokens[:, 1], None))
    z = features.of(tokens)
    assert z.shape == (50, 1, score_features.WIDTH)
    np.testing.assert_allclose(centred(z[:, 0] @ features.items.asnumpy().T), expected, atol=0.02 * expected.std())


def test_a_user_is_scored_on_landmarks_alone():
    asked = []

    def counted(tokens, items):
        asked.append(N_ITEMS if items is None else len(items))
        return scores(tokens, items)

    features = ScoreFeatures(counted, N_ITEMS)
    features.fit(TOKENS, 0)
    del asked[:]
    features.of(TOKENS)
    assert asked == [score_features.WIDTH]


def test_features_add_up_over_tokens(features):
    each = features.of(TOKENS[:, :1]) + features.of(TOKENS[:, 1:])
    np.testing.assert_allclose(features.of(TOKENS), each, atol=1e-3)


def test_the_same_seed_gives_the_same_features(features):
    again = ScoreFeatures(scores, N_ITEMS)
    again.fit(TOKENS, 0)
    for one, other in zip(features.get_parameters(), again.get_parameters(), strict=True):
        np.testing.assert_array_equal(one.asnumpy(), other.asnumpy())
        assert not one.requires_grad


def test_fewer_users_than_directions_will_do():
    few = ScoreFeatures(scores, N_ITEMS)
    few.fit(TOKENS[:20], 0)
    expected = centred(scores(TOKENS[:20, 0], None) + scores(TOKENS[:20, 1], None))
    found = few.of(TOKENS[:20])[:, 0] @ few.items.asnumpy().T
    np.testing.assert_allclose(centred(found), expected, atol=0.02 * expected.std())


def test_scores_that_tell_nothing_apart_are_features_of_zeros():
    dull = ScoreFeatures(
        lambda tokens, items: np.ones((len(tokens), N_ITEMS if items is None else len(items))), N_ITEMS
    )
    dull.fit(TOKENS, 0)
    assert not dull.of(TOKENS).any()
