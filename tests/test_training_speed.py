"""The benchmark of training against PyTorch compares the same models."""

import sys

import numpy as np
import pytest

import models
from benchmarks import training_speed
from defaults import settled
from work import Hyperparameters


def test_a_missing_torch_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match="pip install torch"):
        training_speed.main([])


@pytest.mark.parametrize("name", training_speed.MODELS)
def test_batches_are_made_by_the_settings_of_a_run(name):
    data = training_speed.histories()
    (batch,) = training_speed.batches_of(settled(Hyperparameters(**training_speed.MODELS[name][0]), data), data, 1)
    assert batch.history.any() and batch.positive.any()


@pytest.mark.parametrize("name", training_speed.MODELS)
def test_the_model_in_torch_has_as_many_weights_as_ours_and_learns(name, graph_mode):
    pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    from benchmarks.torch_models import TorchModel

    data = training_speed.histories()
    h = settled(Hyperparameters(**training_speed.MODELS[name][0]), data)
    model, other = models.build(h, data.catalogue), TorchModel(h, training_speed.N_ITEMS)
    assert sum(p.size for p in model.trainable_params()) == sum(p.numel() for p in other.parameters())
    batch = training_speed.batches_of(h, data, 1)[0]
    step = training_speed.torch_step(h)
    losses = [step(batch) for _ in range(5)]
    assert losses[-1] < losses[0] and losses[0] == pytest.approx(np.log(training_speed.N_ITEMS), abs=1.5)
