"""Users' factors are those of the library; a library that is missing is named with what installs it."""

import importlib.util

import numpy as np
import pytest
from implicit import als

import baselines
from baselines.als import ALS
from baselines.similarity import incidence
from errors import UserError


@pytest.mark.parametrize(("name", "command"), [("ALS", "pip install implicit"), ("SparkALS", "default-jre")])
def test_a_missing_library_is_named_with_its_command(sequences, n_items, name, command, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda library: None)
    assert command in baselines.missing(name)
    with pytest.raises(UserError, match=command):
        baselines.fit(name, sequences, n_items)


def test_what_needs_no_library_misses_none():
    assert baselines.missing("EASE") == ""


def test_missing_java_is_named_with_its_command(sequences, n_items, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda library: library)  # pyspark is there
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="Java.*default-jre"):
        baselines.fit("SparkALS", sequences, n_items)


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("implicit", [True, False])
def test_user_factors_minimise_the_loss(implicit, nonnegative):
    rng = np.random.default_rng(0)
    model = ALS(factors=4, regularisation=0.3, confidence=2.0)
    model.implicit, model.nonnegative = implicit, nonnegative
    model.learn = lambda sequences, n_items: rng.standard_normal((n_items, 4))
    history = np.array([2, 5, 6])
    model.fit(type("Every", (), {"values": np.arange(1, 11)}), 10)

    def loss(x):
        scores = model.item_factors @ x
        taken = np.isin(np.arange(1, 11), history)
        absent = np.sum((taken - scores) ** 2) if implicit else 0
        return absent + (2.0 if implicit else 1.0) * np.sum((1 - scores[taken]) ** 2) + 0.3 * x @ x

    found = model.user_factors(history)
    assert not nonnegative or (found >= 0).all()
    for _ in range(200):
        other = found + 0.01 * rng.standard_normal(4)
        assert loss(np.maximum(other, 0) if nonnegative else other) >= loss(found)


def test_users_get_the_factors_of_implicit(sequences, n_items):
    model = als.AlternatingLeastSquares(factors=5, regularization=0.5, alpha=3.0, iterations=4, random_state=0)
    taken = incidence(sequences, n_items)
    model.fit(taken, show_progress=False)
    expected = model.recalculate_user(np.arange(len(sequences)), taken)
    ours = ALS(factors=5, regularisation=0.5, confidence=2.0, iterations=4, seed=0).fit(sequences, n_items)
    found = np.array([ours.user_factors(history) for history in sequences])
    known = sequences.lengths() > 0
    np.testing.assert_allclose(found[known], expected[known], rtol=1e-3, atol=1e-4)
    assert np.isnan(found[~known]).all()
    first = sequences[int(np.argmax(known))]
    np.testing.assert_allclose(ours.user_factors(np.repeat(first, 2)), ours.user_factors(first), rtol=1e-6)


def test_factors_of_spark_tell_what_a_user_took(sequences, n_items, installed):
    installed("SparkALS")
    ours = baselines.fit("SparkALS", sequences, n_items, factors=4, iterations=15)
    found = np.nan_to_num([ours.user_factors(history) for history in sequences])
    taken = incidence(sequences, n_items).toarray()
    scores = found @ np.nan_to_num(ours.item_factors).T
    assert scores[taken > 0].mean() > scores[taken == 0].mean() + 0.2
