"""Two tiny finished runs, whose copies are attacked.

All is seeded; `pytest tests/attack --attack_rounds N` does N times as much.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
TINY = """--dataset tiny --epoch 4 --pretrain_epoch 2 --hidden 8 --interaction_hidden 4 --embedding_size 8
    --encoder DNN --token_embedding_size 8 --K_u 2 --K_i 2 --K_c 8 --positions_per_user 10 --neg_num 32 --lr 0.02
    --batch_size 64 --inference_batch_size 16 --topk 5,20 --monitor recall@20 --index_loss none""".split()  # noqa: SIM905
SECONDS = 600  # after which a process that should have ended counts as hanging


def pytest_addoption(parser):
    parser.addoption("--attack_rounds", type=int, default=1, help="how many times as long to attack")


@pytest.fixture(scope="session")
def rounds(request) -> int:
    return request.config.getoption("--attack_rounds", 1)


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """150 users walk around a ring of 60 items, some of which everybody likes."""
    rng, lines = np.random.default_rng(5), []
    for user in range(150):
        steps = rng.choice([1, 1, 1, 2, 3], 25).cumsum() + rng.integers(60)
        items = dict.fromkeys([*(steps % 60).tolist(), *rng.permutation(6)[:3].tolist()])
        lines += [f"u{user},i{item},{when}\n" for when, item in enumerate(items)]
    path = tmp_path_factory.mktemp("source") / "tiny.csv"
    path.write_text("user_id,item_id,timestamp\n" + "".join(lines))
    return path


@pytest.fixture(scope="session")
def start(source):
    """start(folder, *flags) -> the process of `work.py` on the tiny data, in that folder."""

    def begin(folder: Path, *flags: str) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "work.py"), *flags]
        if "--checkpoint" not in flags:
            command += [*TINY, "--source", str(source)]
        quiet = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=folder, env=quiet, **pipe)

    return begin


@pytest.fixture(scope="session")
def finish():
    """finish(process) -> its output, once it ended well."""

    def end(process: subprocess.Popen) -> str:
        said, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, said
        return said

    return end


@pytest.fixture(scope="session")
def finished(tmp_path_factory, start, finish):
    """A folder with data/ and the exported runs/a and runs/b, of two seeds; and the seconds that the second took."""
    folder = tmp_path_factory.mktemp("finished")
    for seed, name in enumerate("ab"):
        begun = time.monotonic()
        finish(start(folder, "--name", name, "--seed", str(seed)))
        seconds = time.monotonic() - begun
    for name in "ab":
        finish(start(folder, "--mode", "export", "--checkpoint", f"runs/{name}/best.ckpt"))
    return folder, seconds


@pytest.fixture
def damaged_run(finished, tmp_path, monkeypatch):
    """A copy of runs/a to damage, in the working directory, with its data."""
    shutil.copytree(finished[0] / "data", tmp_path / "data")
    shutil.copytree(finished[0] / "runs" / "a", tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    return Path("runs/a")


@pytest.fixture
def killed_at():
    """killed_at(point, action) -> whether a process doing `action` got to its change `point` of the disk and died."""

    def run(point: int, action) -> bool:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _die_at(point)
                action()
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        assert os.WIFSIGNALED(ended) or ended == 0
        return os.WIFSIGNALED(ended)

    return run


def _die_at(point: int) -> None:
    """Kills this process when it is about to change the disk for the time `point`, counted from 0."""
    left = iter(range(point, -1, -1))

    def deadly(call):
        def instead(*arguments, **options):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return instead

    for name in ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir", "chmod"):
        setattr(os, name, deadly(getattr(os, name)))


@pytest.fixture
def digits():
    """digits(folder of a run) -> all the numbers of it that may not depend on when it was interrupted."""

    def read(run: Path) -> dict:
        log = [line.split(",") for line in (run / "log.csv").read_text().splitlines()]
        timed = log[0].index("samples_per_s")
        found = {name: (run / name).read_bytes() for name in ("metrics.csv", "wide.npz", "config.json")}
        return found | {
            "log.csv": [line[:timed] + line[timed + 1 :] for line in log],
            "index": json.loads((run / "index" / "index.json").read_text()),
        }

    return read
