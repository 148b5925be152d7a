"""Training steps, ours beside the same model in PyTorch: same sizes, same batches, in turns.

    pip install torch
    taskset -c 0 python benchmarks/training_speed.py [--rounds 3] [--steps 30] [--models SASRec LiGR]

The batches are of made-up histories: 3,416 items by Zipf's law, 20 to 300 items a user. A step is the batch into
tensors, forward, backward and Adam; drawing the batch is left out of both. Ours draws its dropout noise on the host.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import models  # noqa: E402
from benchmarks.measuring import show  # noqa: E402
from benchmarks.trained import on_cpu  # noqa: E402
from data.ragged import Ragged  # noqa: E402
from defaults import settled  # noqa: E402
from load_csv_dataset import TrainingSequences  # noqa: E402
from training import TrainStep  # noqa: E402
from work import Hyperparameters  # noqa: E402

N_ITEMS, USERS = 3416, 3000
MODELS = {  # goal: ours at least so many times as fast
    "TwoTower, DNN": ({"model": "TwoTower", "encoder": "DNN"}, 1.0),
    "windows, dot": ({"model": "AllToAll", "encoder": "DNN", "neg_num": 256}, 1.0),
    "windows, DNN 16": ({"model": "AllToAll", "encoder": "DNN", "neg_num": 256, "interaction": "DNN"}, 1.0),
    "GRU4Rec": ({"model": "TwoTower", "encoder": "GRU4Rec"}, 0.9),
    "SASRec": ({"model": "TwoTower", "encoder": "SASRec"}, 0.9),
    "LiGR": ({"model": "TwoTower", "encoder": "LiGR"}, 0.9),
}


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--steps", type=int, default=30, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each; the best counts")
    args = parser.parse_args(arguments)
    try:
        import torch  # noqa: F401
    except ImportError:
        sys.exit("This compares with PyTorch; `pip install torch`.")
    rows = [["model", "batch", "ours, positions/s", "PyTorch", "ours / PyTorch", "goal"]]
    with on_cpu():
        for name in args.models:
            flags, goal = MODELS[name]
            data = histories()
            h = settled(Hyperparameters(**flags), data)
            batches = batches_of(h, data, args.steps)
            engines = mindspore_step(h, data), torch_step(h)
            for step in engines:  # compiles, warms
                rate(step, batches[:3])
            best = np.array([[rate(step, batches) for step in engines] for _ in range(args.rounds)]).max(0)
            shape = " x ".join(map(str, batches[0][1].shape))
            rows.append([name, shape, *(f"{each:,.0f}" for each in best), f"{best[0] / best[1]:.2f}x", f"{goal}x"])
    show(rows)


def histories():
    """Data as `defaults.settled` reads it."""
    rng = np.random.default_rng(0)
    popularity = 1 / (np.arange(N_ITEMS) + 10)
    lengths = rng.integers(20, 300, USERS)
    items = rng.choice(N_ITEMS, lengths.sum(), p=popularity / popularity.sum()).astype(np.int32) + 1
    training = TrainingSequences(Ragged.from_lengths(lengths, items), N_ITEMS)
    return SimpleNamespace(training=training, valid=(), catalogue=SimpleNamespace(n_items=N_ITEMS))


def batches_of(h, data, count):
    """The first batches of an epoch."""
    whole = h.encoder != "DNN"
    rng = np.random.default_rng(0)
    epoch = data.training.epoch(
        rng, h.batch_size, h.seq_len, h.neg_num, h.positions_per_user, h.neg_power, h.negatives, whole
    )
    return list(itertools.islice(epoch, count))


def mindspore_step(h, data):
    """A step of ours, as `training.Trainer` takes it."""
    model = models.build(h, data.catalogue)
    step = TrainStep(model, nn.Adam(model.trainable_params(), learning_rate=h.lr))
    step.set_train(True)
    rng = np.random.default_rng(1)

    def run(batch):
        noise = rng.random(model.noise_size(batch.shapes), np.float32)
        loss, _ = step(*(ms.Tensor(array) for array in (*batch[:4], noise)), False, batch.shapes)
        return float(loss.asnumpy())

    return run


def torch_step(h):
    """The same of PyTorch."""
    import torch

    from benchmarks.torch_models import TorchModel

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = TorchModel(h, N_ITEMS).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=h.lr)

    def run(batch):
        history, positive, negative = (torch.from_numpy(array).long() for array in batch[:3])
        optimiser.zero_grad()
        loss = model(history, positive, negative, torch.from_numpy(batch[3]))
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return run


def rate(step, batches) -> float:
    """Positions with a target per second."""
    began = time.perf_counter()
    for batch in batches:
        step(batch)
    return sum(np.count_nonzero(batch[1]) for batch in batches) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
