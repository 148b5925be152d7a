"""Every test of the models runs MindSpore in graph mode."""

import pytest


@pytest.fixture(autouse=True)
def _graph_mode(graph_mode):
    """Asked for here once instead of in every test."""
