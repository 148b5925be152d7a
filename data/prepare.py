"""From a source to a prepared folder.

Writes data.csv, valid.csv, test.csv, items.csv, cate_item.txt, users.csv, and dataset.json, which says where the data
comes from, how it was cut, and what is in it. Where they stand: `data.prepared`.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from data import sample
from data.disk import held, write_text, writing
from data.download import UnreachableError, download
from data.interactions import Interactions
from data.itemfile import Item
from data.movielens import ARCHIVES, BASE_URL
from data.prepared import (
    ABOUT,
    FORMAT,
    WRITTEN,
    being_prepared,
    description,
    folder_of,
    folders,
    is_prepared,
)
from data.progress import progress
from data.queries import Queries
from data.ragged import Ragged
from data.source import Source, find_source, known_file
from data.sourcefile import checksum, shown
from data.split import SPLITS, Split
from data.userfile import Users
from errors import UserError

NO_ID = ("NA", "N/A", "NaN", "nan", "NULL", "null", "None", "\\N", "-1")  # what programs write where none is known
NEEDED = {  # in a folder that was not prepared here, and what to do where it is missing
    ("data.csv",): "put the training data there, headed user_id,items or hist_items,pos_items,neg_items",
    ("test.csv",): "put the test queries there, headed hist_items,target_items",
    ("valid.csv",): "move some rows of test.csv (half of them, say) to a valid.csv headed hist_items,target_items",
    ("items.csv", "cate_item.txt"): "put a cate_item.txt there, a line item_id,cate_id per item",
}


@dataclass(frozen=True)
class Prepared:
    """What stands ready.

    Attributes:
        folder: where the files are.
        dataset: what is in it, "sample" after a fallback.
        label: what to call the data in results.
        note: "", or what a reader of the results must know.
        description: the contents of dataset.json; of a folder that this program did not write its name and checksum.
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
    user_file: str | Path | None = None,
    sort_rows: bool = False,
    base_url: str | None = None,
) -> Prepared:
    """Make sure that out/<dataset>/ holds the dataset, cut as asked for, and say in which folder.

    A folder that was prepared from the same files with this split and seed is used (from any, if none is at hand). Else
    the source is read: the one given; or what the folder named by the environment variable SPARCODE_DATA holds for the
    dataset; or, for MovieLens, the downloaded archive. If that cannot be had, the built-in sample takes its place, with
    a banner. Nothing that stands in out/ is changed or deleted, and any number of processes may do this at once.

    Args:
        dataset: "ml-1m", "ml-10m", "sample", or any name for an interactions file.
        source: an archive, an interactions file, or a folder of these or of a prepared dataset.
        out: where prepared folders and downloads go.
        split: one of `data.split.SPLITS`.
        seed: of the split, 0 or more.
        item_file: titles of the items, if they do not stand beside the source.
        user_file: what is known of the users, if it does not stand beside the source.
        sort_rows: sort an interactions file by time instead of refusing one that is out of order.
        base_url: where to download from (default: SPARCODE_DOWNLOAD in the environment, or GroupLens).

    Raises:
        UserError: an argument is wrong, or the data cannot be read or written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", dataset):
        raise UserError(f"dataset {shown(dataset)} is no plain name; use letters, digits, '.', '_', '-'.")
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; the splits are {', '.join(SPLITS)}.")
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more.")
    out = Path(out)
    parent = out / dataset
    wanted = {"format": FORMAT, "dataset": dataset, "split": split, "seed": seed}

    place = _place(dataset, source)
    for flag, given in (("--item_file", item_file), ("--user_file", user_file), ("--sort_rows", sort_rows or None)):
        if given is not None and place is None:
            raise UserError(f"{flag} belongs to a --source; give that too, or leave it out.")
    copy = place and _copy_at(place, dataset, wanted)
    if copy:
        if item_file or user_file or sort_rows:
            raise UserError(f"{copy} is prepared; leave out --item_file, --user_file and --sort_rows.")
        return _prepared(copy)
    if not is_prepared(parent) and any((parent / name).exists() for names in NEEDED for name in names):
        if (split, seed) != ("user", 0):
            raise UserError(f"{parent} holds files that are used as they are; leave out --split and --split_seed.")
        return _as_found(parent, dataset, source)

    found = _source(dataset, place, item_file, user_file, sort_rows)
    ready = _ready(parent, wanted | (found.checksums() if found else {}))
    if ready:
        return _prepared(ready)
    if found is None and dataset not in ARCHIVES:
        raise UserError(
            f"dataset {dataset!r} is not prepared with split {split} and split seed {seed}; give it a --source, a file "
            f"with the columns user_id,item_id,timestamp; without one there are {', '.join(ARCHIVES)} and sample."
        )
    if found is None:
        try:
            found = _downloaded(dataset, out, base_url)
        except UnreachableError as error:
            return _fallback(dataset, out, split, seed, str(error))
    return _prepared(_write(parent, wanted | found.checksums(), found))


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


def _copy_at(place: Path, dataset: str, wanted: dict) -> Path | None:
    """A folder that was prepared elsewhere, to be used where it stands."""
    for copy in (place, place / dataset):
        if is_prepared(copy):
            _require(copy, wanted)
            return copy
    if known_file(dataset, place):
        return None
    return _only(
        folders(place / dataset, wanted["split"], wanted["seed"]) or folders(place, wanted["split"], wanted["seed"])
    )


def _require(folder: Path, wanted: dict) -> None:
    """Refuse a folder that was named as source but prepared otherwise."""
    has = description(folder)
    if has.get("format") != FORMAT:
        raise UserError(f"{folder} was prepared by another version; give the original data as --source.")
    for key, flag in (("split", "--split"), ("seed", "--split_seed")):
        if has.get(key) != wanted[key]:
            raise UserError(
                f"{folder} was prepared with {key} {has.get(key)}, not {wanted[key]}; give {flag} {has.get(key)}, or "
                "give the original data as --source."
            )


def _ready(parent: Path, wanted: dict) -> Path | None:
    """The folder of `parent` that fits; without checksums in `wanted`, made from whatever source."""
    if "sha256" in wanted:
        folder = folder_of(parent, wanted)
        return folder if is_prepared(folder) else None
    return _only(folders(parent, wanted["split"], wanted["seed"]))


def _only(found: list[Path]) -> Path | None:
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise UserError(
            f"{names} were prepared from different sources; give --source, the original data or one of them."
        )
    return found[0] if found else None


def _source(
    dataset: str,
    place: Path | None,
    item_file: str | Path | None,
    user_file: str | Path | None,
    sort_rows: bool,
) -> Source | None:
    """How to read the dataset; None if there is only what is prepared or can be downloaded."""
    if dataset == "sample":
        return sample.SOURCE
    if place is None:
        return None
    files = (Path(name) if name else None for name in (item_file, user_file))
    return find_source(dataset, place, *files, sort_rows)


def _downloaded(dataset: str, out: Path, base_url: str | None) -> Source:
    """The archive, which stays in out/downloads so that another split need not fetch it again."""
    archive = ARCHIVES[dataset]
    path = out / "downloads" / archive.file
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.parent):  # a second process waits, and then finds the file
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


def _as_found(folder: Path, dataset: str, source: str | Path | None) -> Prepared:
    """CSV files that somebody put there, such as the release's: used as they are, not replaced."""
    if source is not None:
        raise UserError(f"{folder} holds files that were not prepared here; move them away, or give no source.")
    for names, cure in NEEDED.items():
        if not any((folder / name).exists() for name in names):
            raise UserError(f"{folder} holds no {' or '.join(names)}; {cure}.")
    note = f"{folder} holds no dataset.json: its files are used as they are."
    files = [folder / name for names in NEEDED for name in names if (folder / name).exists()]
    about = {"dataset": dataset, "sha256": checksum(files)}  # for whoever goes on with a run
    return Prepared(folder, dataset, f"{dataset}, files found in {folder}", note, about)


def _prepared(folder: Path) -> Prepared:
    about = description(folder)
    return Prepared(folder, str(about.get("dataset")), str(about.get("source")), "", about)


def _write(parent: Path, wanted: dict, source: Source) -> Path:
    """Read, cut and write; gives the folder."""
    folder = folder_of(parent, wanted)
    print(f"preparing {folder} from {source.label}", flush=True)
    everything = source.read()
    kept = everything.frequent()
    if not len(kept):
        raise UserError(f"{source.label}: no user has 5 interactions with items that have 5; give more data.")
    histories = kept.histories()
    split = SPLITS[wanted["split"]](histories, wanted["seed"], kept.ratings)
    items, users = source.items(), source.users()
    _require_known(source, "item", everything.item_ids, items)
    _require_known(source, "user", everything.user_ids, users.rows)

    with being_prepared(folder) as new:
        _write_csv(new / "data.csv", ["user_id", "items"], _names(kept, split.users), _json_lists(split.sequences))
        _write_queries(new / "valid.csv", _names(kept, split.valid_users), split.valid)
        _write_queries(new / "test.csv", _names(kept, split.test_users), split.test)
        _write_items(new, kept.item_ids, items)
        _write_users(new / "users.csv", kept.user_ids, users)
        about = {
            **wanted,
            "source": source.label + (f" ({split.note})" if split.note else ""),
            "columns": source.columns(),
            "statistics": _statistics(everything, kept, histories, split) | _doubts(everything, histories),
            "items_told_of": {source.item_file: len(items.keys() & set(kept.item_ids))} if items else {},
            "files": {name: checksum([new / name]) for name in WRITTEN if name != ABOUT},
        }
        write_text(new / ABOUT, [json.dumps(about, indent=2, ensure_ascii=False), "\n"])
    return folder


def _require_known(source: Source, what: str, ids: list[str], known: dict) -> None:
    """Refuses what is told of items or users that none of the interactions has: of other data, or by other ids."""
    if known and not known.keys() & set(ids):
        raise UserError(
            f"{source.label}: of no {what} in it is anything told by the file of {what}s, which knows "
            f"{shown(next(iter(known)))} and the like, where the interactions have {shown(ids[0])}; write the ids "
            "alike, or take that file away."
        )


def _statistics(everything: Interactions, kept: Interactions, histories: Ragged, split: Split) -> dict:
    users, items = len(kept.user_ids), len(kept.item_ids)
    lengths = histories.lengths()
    return {
        "users": users,
        "items": items,
        "interactions": len(kept),
        "tied_share": everything.ties / (len(everything) + everything.repeats),
        "density": len(kept) / (users * items),
        "interactions_per_user": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        },
        "train_users": len(split.sequences),
        "valid_users": len(np.unique(split.valid_users)),
        "test_users": len(np.unique(split.test_users)),
        "valid_queries": len(split.valid),
        "test_queries": len(split.test),
        "left_out": {
            "repeated_interactions": everything.repeats,
            "infrequent_items": len(everything.item_ids) - items,
            "infrequent_users": len(everything.user_ids) - users,
            "interactions_of_these": len(everything) - len(kept),
            "users_too_short_for_split": split.left_out,
        },
    }


def _doubts(everything: Interactions, histories: Ragged) -> dict:
    """What a person should look at: ids that mean no id, with their share of the rows where that is more than one in a
    hundred; and the share of histories in which items stand by their ids, as where these were sorted by id."""
    unknown = {}
    for numbers, ids in ((everything.users, everything.user_ids), (everything.items, everything.item_ids)):
        shares = np.bincount(numbers, minlength=len(ids)) / len(everything)
        unknown |= {name: shares[ids.index(name)] for name in NO_ID if name in ids and shares[ids.index(name)] > 0.01}
    rising = np.ones(len(histories.values), bool)
    rising[1:] = histories.values[1:] > histories.values[:-1]
    rising[histories.offsets[:-1]] = True  # the first of a history follows nothing
    sorted_ = np.logical_and.reduceat(rising, histories.offsets[:-1])
    return {"unknown_ids": unknown, "share_by_id": float(sorted_.mean())}


def _names(kept: Interactions, users: np.ndarray) -> list[str]:
    return [kept.user_ids[user] for user in users]


def _write_queries(path: Path, users: list[str], queries: Queries) -> None:
    columns = (users, _json_lists(queries.histories), _json_lists(queries.targets))
    _write_csv(path, ["user_id", "hist_items", "target_items"], *columns)


def _write_items(folder: Path, item_ids: list[str], items: dict[str, Item]) -> None:
    """items.csv, and cate_item.txt as the release has it: item_id,cate_id, the category being the first of the item.

    Categories are numbered from 1 by name; the unknown one comes last.
    """
    known = [items.get(item, Item()) for item in item_ids]
    numbers = range(1, len(known) + 1)
    columns = (numbers, item_ids, *zip(*known, strict=True))
    _write_csv(folder / "items.csv", ["id", "original_id", *Item._fields], *columns)
    first = [item.categories.split("|")[0] for item in known]
    names = sorted(set(first) - {""}) + [""]
    number = {name: i for i, name in enumerate(names, start=1)}
    write_text(folder / "cate_item.txt", (f"{i},{number[name]}\n" for i, name in zip(numbers, first, strict=True)))


def _write_users(path: Path, user_ids: list[str], users: Users) -> None:
    """A row per user that is known."""
    known = [user for user in user_ids if user in users.rows]
    columns = zip(*(users.rows[user] for user in known), strict=True)
    _write_csv(path, ["user_id", *users.columns], known, *columns)


def _write_csv(path: Path, header: Sequence[str], *columns: Iterable) -> None:
    with writing(path), open(path, "w", encoding="utf-8", newline="") as out:
        writer, quoting = (csv.writer(out, lineterminator="\n", quoting=q) for q in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
        writer.writerow(header)
        with progress(f"writing {path.name}", None, " rows") as reached:
            for number, row in enumerate(zip(*columns, strict=True), start=1):
                bare = any(isinstance(cell, str) and "\r" in cell for cell in row)  # which csv leaves unquoted
                (quoting if bare else writer).writerow(row)
                reached(number)


def _json_lists(rows: Ragged) -> Iterator[str]:
    for row in rows:
        yield "[" + ", ".join(map(str, row.tolist())) + "]"
