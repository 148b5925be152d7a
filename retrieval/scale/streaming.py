"""Build an index larger than memory: block by block to disk, resumable after any interruption.

While a build of `folder` runs, its state lies beside it in `.<name>.building`: the arrays of the index in the making,
and a journal that says how much of them counts. Entries behind that are cut off when the build goes on, so a crash at
any moment costs at most the blocks since the last entry.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

import files
from retrieval import blocks, storage
from retrieval.blocks import Scorer
from retrieval.build import choose_pruning, why_empty
from retrieval.index import DTYPES, SparseInvertedIndex
from retrieval.postings import about
from retrieval.pruning import Pruning
from retrieval.sizes import offsets_of

CHECKPOINT_SECONDS = 5.0
PROBES = 32
GROWING = {name: DTYPES[name] for name in ("items", "scores", "floors", "cuts")}
JOB, JOURNAL = "job.json", "journal.json"


def build_to_disk(
    scorer: Scorer,
    codes: ArrayLike,
    n_items: int,
    folder: str | Path,
    *,
    relu: bool,
    max_postings: int | None = None,
    keep_share: float | None = None,
    block_bytes: int | None = None,
    progress: bool = True,
    restart: bool = False,
) -> SparseInvertedIndex:
    """The index that build_index makes of these arguments, written to `folder` and mapped from it.

    Called again after an interruption with the same arguments, it goes on where it stopped. Beyond what the scorer
    itself takes, it needs at most 3 * max(block_bytes, 4 * n_items) + 64 bytes per code + 16 MB, whatever the number of
    postings: 222 MB for 65,536 codes and a million items. A keep_share needs 192 MiB up to a million items, and 192
    bytes per item beyond, for the sample that it scores first.

    Args:
        scorer, codes, n_items, relu, max_postings, keep_share: as of build_index.
        folder: where the index is put.
        block_bytes: of the scores asked for at once; 64 MiB unless told.
        progress: show a bar on standard error.
        restart: throw an interrupted build of this folder away.

    Returns:
        The index, memory-mapped.

    Raises:
        ValueError: without restart, `folder` has an interrupted build with other arguments or another scorer; another
            process builds there; else as build_index and save.
        OSError: the disk refuses.
    """
    codes = blocks.checked_codes(codes)
    folder = storage.place_for(folder)
    work = folder.parent / f".{folder.name}.building"
    with files.writing(folder), _alone(work):
        return _build(
            scorer, codes, n_items, folder, work, relu, max_postings, keep_share, block_bytes, progress, restart
        )


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Keep `work` to this process until the block ends or the process does, however it ends."""
    path = work.with_name(work.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(lock.fileno()).st_nlink:  # its holder removed it meanwhile: a third may hold a new one
                raise BlockingIOError
        except BlockingIOError:
            raise ValueError(f"another process builds in {work}; wait for it, or name another folder.") from None
        except OSError:  # a file system without locks
            yield
            return
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _build(scorer, codes, n_items, folder, work, relu, max_postings, keep_share, block_bytes, progress, restart):
    if restart and work.exists():
        if not (work / JOB).is_file():
            _read_job(work)  # what is not a build is not thrown away
        shutil.rmtree(work)
    wanted = {
        "codes": hashlib.sha256(codes.astype("<i8").tobytes()).hexdigest(),
        "n_codes": len(codes),
        "n_items": int(n_items),
        "relu": bool(relu),
        "max_postings": None if max_postings is None else int(max_postings),
        "keep_share": None if keep_share is None else float(keep_share),
    }
    job = _resumable(work, wanted, scorer, codes)
    if job is None:
        pruning = choose_pruning(scorer, codes, n_items, relu, max_postings, keep_share)
        job = {**wanted, "threshold": pruning.threshold, "probe": _probe(scorer, codes, n_items, relu)}
        (work / "index").mkdir(parents=True)
        _write(work / JOB, job)
    pruning = Pruning(relu=relu, threshold=job["threshold"], max_postings=max_postings)
    _score(scorer, codes, n_items, pruning, work, block_bytes, progress)
    lengths = np.load(work / "lengths.npy")
    if not lengths.any():
        shutil.rmtree(work)
        raise ValueError(why_empty(len(codes), pruning))
    arrays = {"codes": codes, "offsets": offsets_of(lengths), "removed": np.zeros(0, np.uint32)}
    described = about(n_items, pruning, SparseInvertedIndex.format)
    storage.complete(work / "index", described, arrays, DTYPES)
    storage.put_in_place(work / "index", folder)
    shutil.rmtree(work, ignore_errors=True)
    return SparseInvertedIndex.load(folder)


def _score(scorer, codes, n_items, pruning, work: Path, block_bytes, progress: bool) -> None:
    """Score what the journal lacks; leaves the arrays whole and closed."""
    block = blocks.codes_per_block(n_items, block_bytes)
    done = _read(work / JOURNAL) if (work / JOURNAL).exists() else {"codes": 0, "postings": 0}
    with contextlib.ExitStack() as opened:

        def open_array(path: Path, dtype: type, length: int) -> storage.GrowingArray:
            array = storage.GrowingArray(path, dtype, length)
            opened.callback(array.close)
            return array

        arrays = {}
        for name, dtype in GROWING.items():
            length = done["postings" if name in ("items", "scores") else "codes"]
            arrays[name] = open_array(work / "index" / f"{name}.npy", dtype, length)
        arrays["lengths"] = open_array(work / "lengths.npy", np.int64, done["codes"])

        def checkpoint() -> None:
            for array in arrays.values():
                array.flush()
            _write(work / JOURNAL, done)

        starts = range(done["codes"], len(codes), block)
        if progress:
            starts = blocks.with_progress(starts, len(codes), block)
        written = time.monotonic()
        try:
            for start in starts:
                part = codes[start : start + block]
                done = _append(scorer, part, n_items, pruning, arrays, done)
                if time.monotonic() - written >= CHECKPOINT_SECONDS:
                    checkpoint()
                    written = time.monotonic()
        finally:
            checkpoint()  # also of what was whole when something went wrong


def _append(scorer, codes, n_items, pruning, arrays, done: dict) -> dict:
    """Score and write one block; a function of its own, so that nothing of it outlives it."""
    scores = blocks.checked_scores(scorer.scores(codes), codes, n_items, pruning.relu)
    columns = pruning.compact(scores)
    del scores
    for name, column in zip(("lengths", "floors", "cuts", "items", "scores"), columns, strict=True):
        arrays[name].append(column)
    return {"codes": done["codes"] + len(codes), "postings": done["postings"] + len(columns[3])}


def _resumable(work: Path, wanted: dict, scorer: Scorer, codes) -> dict | None:
    """The job of the interrupted build in `work`; None if there is nothing to go on with."""
    if not work.exists():
        return None
    job = _read_job(work)
    if job is None or not (work / "index").is_dir():  # cut off in its first or last moment
        shutil.rmtree(work)
        return None
    differ = [name for name, value in wanted.items() if job.get(name) != value]
    if differ:
        raise ValueError(
            f"{work} holds an interrupted build with other arguments ({', '.join(differ)}); finish "
            "that one, or pass restart=True to throw it away."
        )
    if len(codes):
        now = blocks.checked_scores(scorer.scores(codes[:1]), codes[:1], wanted["n_items"], wanted["relu"])[0]
        items, before = np.array(job["probe"]["items"]), np.array(job["probe"]["scores"])
        close = 1e-3 * max(1e-6, np.abs(before).max())  # a BLAS may round another way today
        if np.abs(now[items - 1] - before).max() > close:
            raise ValueError(
                f"{work} holds an interrupted build with another scorer (its scores of code "
                f"{codes[0]} differ); finish that one, or pass restart=True to throw it away."
            )
    return job


def _probe(scorer: Scorer, codes, n_items: int, relu: bool) -> dict:
    """Some scores of the first code, high ones and others, to know the scorer by."""
    if not len(codes):
        return {}
    scores = blocks.checked_scores(scorer.scores(codes[:1]), codes[:1], n_items, relu)[0]
    best = np.argsort(-scores, kind="stable")[:PROBES]
    some = np.union1d(best, np.linspace(0, n_items - 1, PROBES).astype(np.int64))
    return {"items": (some + 1).tolist(), "scores": scores[some].tolist()}


def _read_job(work: Path) -> dict | None:
    """The job of a build; None if it was cut off before there was one."""
    if (work / JOB).is_file():
        return _read(work / JOB)
    names = {path.name for path in work.iterdir()} if work.is_dir() else {"a file"}
    if any(name not in ("index", JOURNAL) and not name.startswith(f".{JOB}.") for name in names):
        raise ValueError(f"{work} is not an interrupted build; remove it or name another folder.")
    return None


def _write(path: Path, value: dict) -> None:
    with files.fresh(path, "w") as file:
        json.dump(value, file)


def _read(path: Path) -> dict:
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged; pass restart=True or remove its folder.")
    return value
