import numpy as np
import pytest

from data.sample import CLUSTERS, read_sample, sample_items
from data.split import user_split


@pytest.fixture(scope="module")
def interactions():
    return read_sample()


def test_sample_is_the_same_on_every_call(interactions):
    again = read_sample.__wrapped__()  # not the one that is kept
    assert np.array_equal(interactions.users, again.users)
    assert np.array_equal(interactions.items, again.items)


def test_sample_survives_the_five_core_whole(interactions):
    kept = interactions.frequent()
    assert len(kept) == len(interactions) > 100_000
    assert (len(kept.user_ids), len(kept.item_ids)) == (2000, 1000)
    pairs = interactions.users.astype(np.int64) * 1000 + interactions.items
    assert len(np.unique(pairs)) == len(pairs)


def test_popularity_is_skewed(interactions):
    counts = np.sort(np.bincount(interactions.items))[::-1]
    assert counts[:100].sum() > 0.25 * counts.sum()  # a tenth of the films has a quarter


def test_tastes_drift(interactions):
    """Clusters of a user's first items are found again less often later on than soon after."""
    histories = interactions.histories()
    places = (0, 8, 40)  # of windows of eight items
    cluster = [(histories.tail(48)[:, p : p + 8] - 1) % CLUSTERS for p in places]
    soon, late = ((cluster[0][:, :, None] == c[:, None, :]).mean() for c in cluster[1:])
    assert soon > 1.3 * late > 1.3 / CLUSTERS


def test_titles_are_distinct_and_films_of_a_cluster_share_genre_and_noun():
    items = sample_items()
    assert len({item.title for item in items.values()}) == 1000
    nouns = [items[str(i + 1)].title.split()[2] for i in range(1000)]
    assert len(set(nouns)) == CLUSTERS and len(set(nouns[::CLUSTERS])) == 1
    genres = [items[str(i + 1)].categories.split("|")[0] for i in range(0, 1000, CLUSTERS)]
    assert len(set(genres)) == 1
    assert all(1950 <= int(item.year) < 2020 for item in items.values())
    assert len({item.categories.split("|")[0] for item in items.values()}) == 20


def test_models_can_be_ranked_on_it(interactions):
    """Recall@50 of held-out users: chance < popularity < neighbours < those of recent items."""
    split = user_split(interactions.histories(), seed=0)
    n = len(interactions.item_ids) + 1

    def indicator(rows):
        matrix = np.zeros((len(rows), n), np.float32)
        matrix[rows.row_of_value(), rows.values] = 1
        return matrix

    def recall(scores):
        scores = np.where(indicator(split.test.histories) > 0, -np.inf, scores)
        scores[:, 0] = -np.inf
        top = np.argsort(-scores, axis=1, kind="stable")[:, :50]
        hits = indicator(split.test.targets)[np.arange(len(top))[:, None], top].sum(axis=1)
        return (hits / split.test.targets.lengths()).mean()

    train = indicator(split.sequences)
    together = train.T @ train
    count = np.maximum(np.diag(together).copy(), 1)
    cosine = together / np.sqrt(count[:, None] * count)
    np.fill_diagonal(cosine, 0)
    seen = split.test.histories
    recent = np.zeros((len(seen), n), np.float32)
    recent[np.arange(len(seen))[:, None], seen.tail(20)] = 1
    chance = recall(np.random.default_rng(0).random((len(seen), n)))
    popularity = recall(np.tile(count, (len(seen), 1)))
    neighbours = recall(indicator(seen) @ cosine)
    recently = recall(recent @ cosine)
    assert chance < 0.08
    assert 2 * chance < popularity < 0.25
    assert neighbours > 1.5 * popularity
    assert recently > 1.1 * neighbours
