"""The folder of a run, runs/NAME: who trains in it, and what it holds."""

import dataclasses
import fcntl
import json
import re
import shutil
from pathlib import Path

from config import BEST, read_config, same_data
from errors import UserError
from files import sweep
from retrieval.served import EXPORTED, INDEX, MANIFEST, write_manifest

RUNS = Path("runs")
WIDE = "wide.npz"
LAST = "last.ckpt"
TRAINED = BEST, WIDE, INDEX  # files of a run that belong together, beside those EXPORTED
RESULTS = ("per_user_*.npz", "metrics.csv", "*index.json", "codebooks.json", WIDE, *EXPORTED, MANIFEST)  # beside index/


class RunFolder:
    """A folder runs/NAME that one process at a time trains in.

    A folder without a checkpoint holds nothing that could be resumed: whoever claims it starts anew in it. What a
    process that was killed in it left half written is cleaned away.

    Attributes:
        path: the folder. begun: whether it holds a run to go on with. has_results: whether it tells of one that ended.
    """

    def __init__(self, path, lock):
        self.path, self._lock = path, lock
        self.begun = any((path / name).exists() for name in (BEST, LAST))
        self.has_results = (path / "metrics.csv").exists()
        sweep(path)

    @classmethod
    def hold(cls, path):
        """The folder, locked until the `with` block is left or the process ends; None if another process holds it."""
        lock = open(path / ".lock", "w")  # noqa: SIM115 (held as long as the folder is)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError:
            lock.close()
            return None
        return cls(path, lock)

    @classmethod
    def claim(cls, name, named, resume, asked=None):
        """The folder to train in, locked until the `with` block is left or the process ends.

        Args:
            name: of the folder. named: whether a user chose it; if not, the next free one is taken.
            resume: whether to go on with the run in it; where no user chose the name, with the latest that has not
                ended of all that would have it.
            asked: settings and data of what comes. A baseline or a test under a chosen name may be repeated; one of
                other settings or data is kept. None: it may go.

        Raises:
            UserError: there is nothing to resume, the name is taken, or another process trains there.
        """
        path, number = RUNS / name, 2
        if resume and not named:
            path = _latest(path)
        if resume and not path.is_dir():
            raise UserError(f"there is no run {path} to resume; leave out --resume, or name the run.")
        while True:
            path.mkdir(parents=True, exist_ok=True)
            folder = cls.hold(path)
            ended = folder is not None and folder.has_results and not folder.begun
            others = ended and named and asked is not None and bool(folder.changed(*asked))
            taken = folder is not None and (folder.begun or others or (ended and not named))
            if folder is not None and (not others if resume else not taken):
                if not folder.begun:
                    folder.clear()
                return folder
            if folder is not None:
                folder.release()
            if named or resume:
                what = "exists" if folder else "is being trained by another process"
                raise UserError(f"{path} {what}; give another --name. A stopped training goes on with --resume 1.")
            path, number = RUNS / f"{name}-{number}", number + 1

    def clear(self):
        """Takes away the results of what stood here before: a baseline, or a test."""
        shutil.rmtree(self.path / "index", ignore_errors=True)
        for pattern in RESULTS:
            for old in self.path.glob(pattern):
                old.unlink()

    def release(self):
        """Let others train here."""
        self._lock.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.release()

    def require_same(self, h, data):
        """Refuses to go on under other settings or on other data than the run was begun with.

        Raises:
            UserError: with the names of the settings that differ.
        """
        if changed := self.changed(h, data):
            what = ", ".join(changed)
            raise UserError(f"{self.path} was begun with other {what}; use the same, or another --name.")

    def changed(self, h, data):
        """What differs from the run that stands here: "data", which many settings follow, or settings by name."""
        before = read_config(self.path / "config.json")
        if not same_data(before["data"], data.prepared.description):
            return ["data"]
        now = json.loads(json.dumps(dataclasses.asdict(h)))
        return [name for name, value in now.items() if before["hyperparameters"].get(name) != value]


def _latest(path):
    """Of a folder of RUNS and those that are numbered after it, NAME-2 and on, the last with a run that has not ended;
    if all have, the last with one."""
    usual = re.compile(re.escape(path.name) + "(?:-([0-9]+))?")
    numbered = [(int(name[1] or 1), other) for other in RUNS.glob("*") if (name := usual.fullmatch(other.name))]
    begun = [other for _, other in sorted(numbered) if any((other / name).exists() for name in (BEST, LAST))]
    running = [other for other in begun if not (other / "metrics.csv").exists()]
    return (running or begun or [path])[-1]


def tie(folder, matcher, names, rerank=0):
    """Writes the manifest of those of the named files that the folder of a run holds by now; see `write_manifest`."""
    times = matcher.model.quantiser.times if matcher.model.has_quantiser else 1
    there = [name for name in names if (Path(folder) / name).exists()]
    write_manifest(folder, there, matcher.item_keys, rerank, times)
