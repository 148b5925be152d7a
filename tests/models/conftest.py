"""Tests of the models run MindSpore operator by operator, but for those that ask for `graph_mode`."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _eager_mode(eager_mode):
    """Asked for here once instead of in every module."""
