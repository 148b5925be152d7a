"""Small data that the tests of the baselines share."""

import numpy as np
import pytest

import baselines
from data.queries import Queries
from data.ragged import Ragged


@pytest.fixture
def n_items():
    return 30


@pytest.fixture
def sequences():
    """60 users with 0 to 12 of the items 1..28; nobody has taken the items 29 and 30."""
    rng = np.random.default_rng(0)
    return Ragged.from_rows([rng.permutation(28)[: rng.integers(0, 13)] + 1 for _ in range(60)])


@pytest.fixture
def installed():
    """installed("ALS") -> the name; skips a test of Spark, which alone is not in requirements-dev.txt, without it."""

    def check(name):
        if name == "SparkALS" and (why := baselines.missing(name)):
            pytest.skip(why)
        return name

    return check


@pytest.fixture
def fitted(sequences, n_items, installed):
    """fitted("EASE", regularisation=5.0) -> the baseline, fitted to `sequences`."""
    return lambda name, **settings: baselines.fit(installed(name), sequences, n_items, **settings)


@pytest.fixture
def queries():
    """20 users with a history of 1 to 10 items that training knows, and a target each."""
    rng = np.random.default_rng(1)
    rows = [rng.permutation(28)[: rng.integers(2, 12)] + 1 for _ in range(20)]
    return Queries(Ragged.from_rows([row[:-1] for row in rows]), Ragged.from_rows([row[-1:] for row in rows]))


@pytest.fixture
def checkerboard():
    """Users take all even or all odd items in any order, but for one: (sequences, queries that ask for it)."""
    rng = np.random.default_rng(2)
    rows, withheld = [], []
    for user in range(300):
        items = rng.permutation(np.arange(1 + user % 2, 21, 2))
        rows.append(items[1:])
        withheld.append(items[:1])
    histories = Ragged.from_rows(rows)
    return histories, Queries(histories, Ragged.from_rows(withheld))
