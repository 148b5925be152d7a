"""Small models and data that many tests share."""

import gc
import os
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

os.environ.setdefault("GLOG_v", "3")
if (worker := os.environ.get("PYTEST_XDIST_WORKER", "")) and hasattr(os, "sched_setaffinity"):
    # A core for each process of `pytest -n`: MindSpore's threads are many times slower where they share theirs.
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})
_dumps = tempfile.TemporaryDirectory(prefix="sparcode-test-")  # removed when the session ends
os.environ.setdefault("MS_OM_PATH", _dumps.name)

N_ITEMS = 40
TOGETHER = ("attack", "experiments")  # folders whose files share what takes long to make


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in a hook of its own
def pytest_collection_modifyitems(items):
    """Under `pytest -n --dist loadgroup` such a folder stays in one process; all else goes to whichever is free."""
    for item in items:
        if (folder := item.path.parent.name) in TOGETHER:
            item.add_marker(pytest.mark.xdist_group(folder))


def pytest_collection_finish():
    """MindSpore collects garbage at each compilation; what the imports made, half a million objects, is passed over."""
    gc.freeze()


@pytest.fixture(scope="module")
def eager_mode():
    """MindSpore operator by operator: what takes few steps ends sooner than a graph of it is compiled."""
    import mindspore as ms

    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")


@pytest.fixture
def graph_mode():
    """MindSpore as work.py sets it, for one test: one that takes many steps, or guards that there is a graph."""
    import mindspore as ms

    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    yield
    ms.set_context(mode=before)


@pytest.fixture(scope="session")
def make_model():
    """make_model("DQMatch", K_u=2, ...) -> a small untrained model with the hyper-parameters and `Features` given."""
    import models
    from work import Hyperparameters

    def make(name="DQMatch", n_items=N_ITEMS, features=None, **changes):
        small = {
            "encoder": "DNN",
            "embedding_size": 8,
            "token_embedding_size": 8,
            "hidden": (16,),
            "interaction": "DNN",
            "interaction_hidden": (12, 6),
            "K_u": 3,
            "K_i": 2,
            "quantiser": "residual",
            "token_lookups": 4,
            "num_codebooks": 2,
            "K_c": 16,
            "seq_len": 6,
            "dropout": 0.0,
            "history_dropout": 0.0,
            "embedding_std": 1.0,
            "neg_num": 20,
            "batch_size": 32,
        }
        h = Hyperparameters(model=name, **{**small, **changes})
        return models.build(h, SimpleNamespace(n_items=n_items), features)

    return make


@pytest.fixture
def make_batch():
    """make_batch(model) -> a training batch of 32 rows: padded histories, positives, 20 shared negatives ..."""

    def make(model):
        return *_batch(model.noise_size([(32, 6)])), model.is_quantised, ((32, 6),)

    return make


def _batch(numbers):
    import mindspore as ms

    rng = np.random.default_rng(0)
    history = rng.integers(1, N_ITEMS + 1, (32, 6))
    history[np.arange(6)[None] < rng.integers(0, 6, (32, 1))] = 0
    arrays = (history, rng.integers(1, N_ITEMS + 1, 32), rng.integers(1, N_ITEMS + 1, 20))
    log_expected = np.full(20, np.log(20 / N_ITEMS), np.float32)
    noise = rng.random(numbers, np.float32)
    return *(ms.Tensor(a.astype(np.int32)) for a in arrays), ms.Tensor(log_expected), ms.Tensor(noise)
