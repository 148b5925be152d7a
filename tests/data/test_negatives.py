"""The sampler draws as often as it says."""

import numpy as np
import pytest

from data.negatives import NegativeSampler


@pytest.mark.parametrize(("power", "weights"), [(0, [1, 1, 1, 1]), (1, [1, 2, 4, 9]), (0.5, [1, 2**0.5, 2, 3])])
def test_frequencies_and_their_log(power, weights):
    sampler = NegativeSampler(np.array([0, 1, 3, 8]), power)  # + 1: 1, 2, 4, 9
    items, log_expected = sampler.draw(np.random.default_rng(0), 100_000)
    assert items.dtype == np.int32 and log_expected.dtype == np.float32
    expected = 100_000 * np.array(weights) / np.sum(weights)
    assert np.abs(np.bincount(items, minlength=5)[1:] - expected).max() < 2  # evenly spread
    np.testing.assert_allclose(np.exp(log_expected), expected[items - 1], rtol=1e-4)
