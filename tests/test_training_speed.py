"""The benchmark of training against PyTorch compares the same models."""

import numpy as np
import pytest

from benchmarks import training_speed
from work import Hyperparameters
from workflow import settled


def test_a_missing_torch_is_told_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(SystemExit, match="pip install torch"):
        training_speed.main([])


@pytest.mark.parametrize("name", training_speed.MODELS)
def test_both_learn_from_a_batch_and_have_as_many_weights(name, graph_mode):
    torch = pytest.importorskip("torch")
    import models
    from benchmarks.torch_models import TorchModel

    data = training_speed.histories()
    h = settled(Hyperparameters(**training_speed.MODELS[name][0]), data)
    model, other = models.build(h, data.catalogue), TorchModel(h, training_speed.N_ITEMS)
    assert sum(p.size for p in model.trainable_params()) == sum(p.numel() for p in other.parameters())
    batch = training_speed.batches_of(h, data, 1)[0]
    step = training_speed.torch_step(h)
    losses = [step(batch) for _ in range(5)]
    assert losses[-1] < losses[0] and losses[0] == pytest.approx(np.log(training_speed.N_ITEMS), abs=1.5)
    torch.set_num_threads(1)
