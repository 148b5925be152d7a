"""Baselines that RecBole has too, on the same random data. It is optional: it wants PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("recbole", reason="RecBole is not installed: pip install recbole, in an environment of its own")

from recbole.model.general_recommender import EASE  # noqa: E402
from recbole.model.general_recommender.itemknn import ComputeSimilarity  # noqa: E402

from baselines.similarity import incidence  # noqa: E402


class Settings(dict):
    """What a model of RecBole reads of its configuration."""

    device = "cpu"
    final_config_dict = {}


@pytest.fixture
def taken(sequences, n_items):
    return incidence(sequences, n_items)


def test_ease(fitted, taken):
    settings = Settings(USER_ID_FIELD="user", ITEM_ID_FIELD="item", NEG_PREFIX="not ", device="cpu", reg_weight=5.0)
    data = SimpleNamespace(num=lambda field: taken.shape[field == "item"], inter_matrix=lambda form: taken)
    theirs = np.asarray(EASE(settings, data).item_similarity)
    ours = fitted("EASE", regularisation=5.0, neighbours=None, last_items=None).lists.toarray()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_item_knn(fitted, taken, n_items):
    _, theirs = ComputeSimilarity(taken, topk=n_items).compute_similarity()
    ours = fitted("ItemKNN", neighbours=None).lists.toarray()
    np.testing.assert_allclose(ours, theirs.toarray(), rtol=1e-5, atol=1e-6)
