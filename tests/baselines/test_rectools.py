"""Baselines that RecTools has too, on the same random data. It is optional: its pandas is older than ours."""

import numpy as np
import pytest
from scipy import sparse

pytest.importorskip("rectools", reason="RecTools is not installed: pip install rectools, in an environment of its own")

import pandas as pd  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.models import EASEModel, ImplicitItemKNNWrapperModel, PopularModel  # noqa: E402


@pytest.fixture
def dataset(sequences):
    """What the sequences hold, as RecTools reads it; users and items by their numbers."""
    frame = pd.DataFrame({"user_id": sequences.row_of_value(), "item_id": sequences.values, "weight": 1.0})
    return Dataset.construct(frame.assign(datetime=pd.Timestamp("2026-01-01")))


@pytest.fixture
def placed(dataset, n_items):
    """placed(matrix of RecTools' items) -> the same by our ids; an item that nobody took has zeros."""

    def place(matrix):
        ids = dataset.item_id_map.external_ids - 1
        found = np.zeros((n_items, n_items))
        found[np.ix_(ids, ids)] = matrix
        return found

    return place


def test_ease(fitted, dataset, placed):
    model = EASEModel(regularization=5.0).fit(dataset)
    ours = fitted("EASE", regularisation=5.0, neighbours=None, last_items=None).lists.toarray()
    np.testing.assert_allclose(ours, placed(model.weight), rtol=1e-3, atol=1e-6)


def test_item_knn(fitted, dataset, placed):
    from implicit.nearest_neighbours import CosineRecommender

    model = ImplicitItemKNNWrapperModel(CosineRecommender(K=30)).fit(dataset)
    theirs = sparse.csr_matrix(model.model.similarity).toarray()
    np.fill_diagonal(theirs, 0)
    np.testing.assert_allclose(fitted("ItemKNN", neighbours=None).lists.toarray(), placed(theirs), rtol=1e-5, atol=1e-6)


def test_popular(fitted, dataset, sequences, queries):
    table = PopularModel().fit(dataset).recommend([0], dataset, k=5, filter_viewed=False)
    counts = np.bincount(sequences.values)
    ours = fitted("GlobalHot").recommend(queries, 5, exclude_seen=False)[0]
    assert (counts[ours] == counts[table.item_id.to_numpy()]).all()  # equally popular items stand in any order
