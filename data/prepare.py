"""From a source to data/<dataset>/.

Writes data.csv, valid.csv, test.csv, items.csv, cate_item.txt, and dataset.json, which says where
the data comes from, how it was cut, and what is in it.
"""

from __future__ import annotations

import csv
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data import sample
from data.download import UnreachableError, download
from data.interactions import Interactions
from data.movielens import ARCHIVES, BASE_URL
from data.ragged import Ragged
from data.source import Source, Titles, checksum, find_source
from data.split import SPLITS, Split
from errors import UserError

FORMAT = 1  # of the prepared folder: raise it when older folders must be prepared anew
WRITTEN = ("data.csv", "valid.csv", "test.csv", "items.csv", "cate_item.txt", "dataset.json")
NEEDED = {  # in a folder that was not prepared here, and what to do where it is missing
    ("data.csv",): "put the training data there, headed user_id,items or hist_items,pos_items,neg_items",
    ("test.csv",): "put the test queries there, headed hist_items,target_items",
    ("valid.csv",): "move some rows of test.csv (half of them, say) to a valid.csv headed hist_items,target_items",
    ("items.csv", "cate_item.txt"): "put a cate_item.txt there, a line item_id,cate_id per item",
}


@dataclass(frozen=True)
class Prepared:
    """What stands ready.

    folder: where the files are. dataset: what is in it, "sample" after a fallback. label: what to
    call the data in results. note: "", or what a reader of the results must know. description: the
    contents of dataset.json ({} for a folder that this program did not write).
    """

    folder: Path
    dataset: str
    label: str
    note: str
    description: dict


def prepare(
    dataset: str,
    source: str | Path | None = None,
    out: str | Path = "data",
    split: str = "user",
    seed: int = 0,
    *,
    item_file: str | Path | None = None,
    sort_rows: bool = False,
    base_url: str | None = None,
) -> Prepared:
    """Make sure that out/<dataset>/ holds the dataset, cut as asked for, and say where.

    A prepared copy is used if it has this split and seed and, where a source is at hand, the
    checksum of it. Else the source is read: the one given; or what the folder named by the
    environment variable SPARCODE_DATA holds for the dataset; or, for MovieLens, the downloaded
    archive. If that cannot be had, the built-in sample takes its place, with a banner.

    dataset: "ml-1m", "ml-10m", "sample", or any name for an interactions file.
    item_file: titles of the items, if they do not stand beside the source.
    sort_rows: sort an interactions file by time instead of refusing one that is out of order.
    base_url: where to download from (default: SPARCODE_DOWNLOAD in the environment, or GroupLens).
    Raises UserError.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", dataset):
        raise UserError(f"dataset {dataset!r} is no plain name; use letters, digits, '.', '_', '-'.")
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; the splits are {', '.join(SPLITS)}.")
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more.")
    out = Path(out)
    folder = out / dataset
    wanted = {"format": FORMAT, "dataset": dataset, "split": split, "seed": seed}

    place = _place(dataset, source)
    if item_file is not None and place is None:
        raise UserError("--item_file names the items of a --source; give that too, or leave it out.")
    for copy in (place, place / dataset) if place else ():
        if _is_prepared(copy):
            return _given_copy(copy, wanted)
    if not (folder / "dataset.json").exists() and any((folder / name).exists() for name in WRITTEN):
        return _as_found(folder, dataset, source)

    found = _source(dataset, place, item_file, sort_rows)
    if _is_prepared(folder):
        description = _description(folder)
        same = all(description.get(key) == value for key, value in wanted.items())
        if same and (found is None or description.get("sha256") == found.checksum()):
            return _prepared(folder, description)
    if found is None and dataset not in ARCHIVES:
        raise UserError(
            f"dataset {dataset!r} is not prepared with split {split} and split seed {seed}; give it a --source, a file "
            f"with the columns user_id,item_id,timestamp; without one there are {', '.join(ARCHIVES)} and sample."
        )
    with _disk(out):
        if found is None:
            try:
                found = _downloaded(dataset, out, base_url)
            except UnreachableError as error:
                return _fallback(dataset, out, split, seed, str(error))
        description = _write(folder, wanted, found)
    return _prepared(folder, description)


def _place(dataset: str, source: str | Path | None) -> Path | None:
    """The file or folder to read: the given one, or what SPARCODE_DATA holds for the dataset."""
    if dataset == "sample":
        if source is not None:
            raise UserError("the built-in sample takes no source; name a dataset or drop the source.")
        return None
    if source is not None:
        return Path(source)
    root = os.environ.get("SPARCODE_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise UserError(f"SPARCODE_DATA is {root}, which is no folder; correct or unset it.")
    candidates = (Path(root) / dataset, Path(root) / f"{dataset}.zip")
    return next((path for path in candidates if path.exists()), None)


def _source(dataset: str, place: Path | None, item_file: str | Path | None, sort_rows: bool) -> Source | None:
    """How to read the dataset; None if there is only what is prepared or can be downloaded."""
    if dataset == "sample":
        return sample.SOURCE
    if place is None:
        return None
    return find_source(dataset, place, Path(item_file) if item_file else None, sort_rows)


def _downloaded(dataset: str, out: Path, base_url: str | None) -> Source:
    """The archive, which stays in out/downloads so that another split need not fetch it again."""
    archive = ARCHIVES[dataset]
    path = out / "downloads" / archive.file
    if not path.exists():
        base = base_url or os.environ.get("SPARCODE_DOWNLOAD") or BASE_URL
        download(f"{base.rstrip('/')}/{archive.file}", path, archive.md5)
    return find_source(dataset, path)


def _fallback(dataset: str, out: Path, split: str, seed: int, reason: str) -> Prepared:
    """Prepare the sample instead, and say so where nobody can miss it."""
    prepared = prepare("sample", None, out, split, seed)
    note = f"{dataset} could not be had: these results are about the BUILT-IN SAMPLE, not {dataset}."
    line = "#" * 100
    print(f"\n{line}\n#\n# {note}\n# {reason}\n#\n{line}\n", flush=True)
    return replace(prepared, note=f"{note} {reason}")


def _given_copy(folder: Path, wanted: dict) -> Prepared:
    """A copy that was prepared elsewhere, used where it stands."""
    description = _description(folder)
    for key, flag in (("format", None), ("split", "--split"), ("seed", "--split_seed")):
        has = description.get(key)
        if has != wanted[key]:
            same = f"give {flag} {has}, or " if flag else ""
            raise UserError(
                f"{folder} was prepared with {key} {has}, not {wanted[key]}; {same}give the original data as --source."
            )
    return _prepared(folder, description)


def _as_found(folder: Path, dataset: str, source: str | Path | None) -> Prepared:
    """CSV files that somebody put there, such as the release's: used as they are, not replaced."""
    if source is not None:
        raise UserError(f"{folder} holds files that were not prepared here; move them away, or give no source.")
    for names, cure in NEEDED.items():
        if not any((folder / name).exists() for name in names):
            raise UserError(f"{folder} holds no {' or '.join(names)}; {cure}.")
    note = f"{folder} holds no dataset.json: its files are used as they are."
    return Prepared(folder, dataset, f"{dataset}, files found in {folder}", note, {})


def _is_prepared(folder: Path) -> bool:
    return all((folder / name).is_file() for name in WRITTEN)


def _description(folder: Path) -> dict:
    path = folder / "dataset.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        description = None
    if not isinstance(description, dict):
        raise UserError(f"{path} is damaged; delete {folder} to have it prepared anew.")
    return description


def _prepared(folder: Path, description: dict) -> Prepared:
    """Says so if a file was changed after preparation: the results are then about other data."""
    changed = [name for name, digest in description.get("files", {}).items() if checksum([folder / name]) != digest]
    note = f"changed by hand since preparation: {', '.join(changed)}." if changed else ""
    label = str(description.get("source")) + (f" ({note[:-1]})" if changed else "")
    return Prepared(folder, str(description.get("dataset")), label, note, description)


def _write(folder: Path, wanted: dict, source: Source) -> dict:
    """Read, cut and write. The folder appears, or is replaced, as a whole."""
    digest = source.checksum()
    everything = source.read()
    kept = everything.frequent()
    if not len(kept):
        raise UserError(f"{source.label}: no user has 5 interactions with items that have 5; give more data.")
    histories = kept.histories()
    split = SPLITS[wanted["split"]](histories, wanted["seed"])
    titles = source.titles()
    users = [kept.user_ids[i] for i in split.users]

    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_lists(new / "data.csv", ["user_id", "items"], users, split.sequences)
        for name, part in (("valid.csv", split.valid), ("test.csv", split.test)):
            columns = (part.histories, part.targets)
            _write_lists(new / name, ["hist_items", "target_items"], *columns)
        _write_items(new, kept.item_ids, titles)
        description = {
            **wanted,
            "source": source.label,
            "sha256": digest,
            "statistics": _statistics(everything, kept, histories, split),
            "files": {name: checksum([new / name]) for name in WRITTEN if name != "dataset.json"},
        }
        text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
        (new / "dataset.json").write_text(text, encoding="utf-8")
        new.chmod(0o755)  # mkdtemp makes folders that nobody else may read
        _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return description


def _replace(folder: Path, new: Path) -> None:
    """Put the new folder in place of the old one. Files that are not ours move over unharmed."""
    if not folder.exists():
        new.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    folder.replace(old)
    new.rename(folder)
    for path in old.iterdir():
        if path.name not in WRITTEN:
            path.rename(folder / path.name)
    shutil.rmtree(old)


def _statistics(everything: Interactions, kept: Interactions, histories: Ragged, split: Split) -> dict:
    users, items = len(kept.user_ids), len(kept.item_ids)
    lengths = histories.lengths()
    return {
        "users": users,
        "items": items,
        "interactions": len(kept),
        "density": len(kept) / (users * items),
        "interactions_per_user": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        },
        "train_users": len(split.sequences),
        "valid_users": len(split.valid.histories),
        "test_users": len(split.test.histories),
        "left_out": {
            "repeated_interactions": everything.repeats,
            "infrequent_items": len(everything.item_ids) - items,
            "infrequent_users": len(everything.user_ids) - users,
            "interactions_of_these": len(everything) - len(kept),
            "users_too_short_for_split": split.left_out,
        },
    }


def _write_lists(path: Path, header: list[str], *columns: Ragged | list[str]) -> None:
    """One CSV row per user; a Ragged column becomes JSON lists."""
    cells = [_json_lists(column) if isinstance(column, Ragged) else column for column in columns]
    with open(path, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(zip(*cells, strict=True))


def _json_lists(rows: Ragged) -> Iterator[str]:
    for row in rows:
        yield "[" + ", ".join(map(str, row.tolist())) + "]"


def _write_items(folder: Path, item_ids: list[str], titles: Titles) -> None:
    """items.csv, and cate_item.txt as the release has it: item_id,cate_id, the category being the
    first of the item. Categories are numbered from 1 by name; the unknown one comes last."""
    known = [titles.get(item, ("", "")) for item in item_ids]
    first = [categories.split("|")[0] for _, categories in known]
    names = sorted(set(first) - {""}) + [""]
    number = {name: i for i, name in enumerate(names, start=1)}
    with open(folder / "items.csv", "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["id", "original_id", "title", "categories"])
        writer.writerows((i, item_ids[i - 1], *known[i - 1]) for i in range(1, len(known) + 1))
    lines = (f"{i},{number[name]}\n" for i, name in enumerate(first, start=1))
    (folder / "cate_item.txt").write_text("".join(lines), encoding="utf-8")


@contextmanager
def _disk(out: Path) -> Iterator[None]:
    """A disk that is full or closed to us becomes a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no disk space left in {out.absolute()}; free some and run again.") from error
        raise UserError(
            f"preparing in {out.absolute()} failed ({error}); make that a folder you may write to and run again."
        ) from error
