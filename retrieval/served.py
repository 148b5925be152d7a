"""What serves a run without a model's framework: files of one run, tied together by a manifest of their checksums."""

from __future__ import annotations

import json
from pathlib import Path

from files import content_digest, digest, fresh
from retrieval.engines.onnx_query import CODES, LANDMARKS, OnnxQuery
from retrieval.keys import ItemKeys
from retrieval.postings import load_index
from retrieval.recommender import IndexRecommender
from retrieval.reranked import Reranked
from retrieval.scorer import load_scorer

MANIFEST, VERSION = "manifest.json", 2  # version 1 had no checksum of its own
INDEX, QUERY, SCORER = "index/index.json", "query.onnx", "scorer.npz"  # the first holds the checksums of its arrays
RERANKER = "reranker.npz"  # scores tokens without codes
EXPORTED = QUERY, SCORER, CODES, LANDMARKS, RERANKER  # what --mode export makes anew
OWN = "put back the run's own, or train it anew"


class ManifestError(ValueError):
    """Files that do not belong together, or are not what was written."""


def write_manifest(
    folder: str | Path, names: list[str], item_keys: ItemKeys | None = None, rerank: int = 0, times: int = 1
) -> None:
    """Tie files of a folder together.

    Args:
        folder: of a run.
        names: of the files, relative to the folder.
        item_keys: the item keys of the index, or None where it has codes alone.
        rerank: so many of the best items of the index are put in order by scores without codes.
        times: that these are multiplied by, see `Reranked`.
    """
    folder = Path(folder)
    keys = None if item_keys is None else {"first": item_keys.first, "weights": list(item_keys.weights)}
    files = {name: digest(folder / name) for name in names}
    manifest = {"version": VERSION, "item_keys": keys, "rerank": rerank, "times": times, "files": files}
    with fresh(folder / MANIFEST, "w") as file:
        json.dump(manifest | {"sha256": content_digest(manifest)}, file, indent=2)
        file.write("\n")


def read_manifest(folder: str | Path, names: list[str]) -> dict:
    """The manifest of a folder, once the named files are known to be those that it was written for.

    Args:
        folder: of a run.
        names: of the files that are going to be read.

    Raises:
        FileNotFoundError: there is no manifest.
        ManifestError: it cannot be read, or a file is missing, damaged or of another run.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; finish the run with --resume 1, or train it anew")
    try:
        manifest = json.loads(path.read_text())
        version, files, checksum = manifest["version"], dict(manifest["files"]), manifest.pop("sha256", None)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ManifestError(f"{path} cannot be read ({error}); {OWN}.") from error
    if version not in (1, VERSION):
        raise ManifestError(f"{path} is of version {version}, not {VERSION}; {OWN}.")
    if (version, checksum) != (1, None) and checksum != content_digest(manifest):
        raise ManifestError(f"{path} is damaged (its checksum is wrong); {OWN}.")
    for name in names:
        mend = "export the run with --mode export" if name in EXPORTED else OWN
        if name not in files or not (path.parent / name).is_file():
            raise ManifestError(f"{path.parent} has no {name}; {mend}.")
        if digest(path.parent / name) != files[name]:
            raise ManifestError(f"{path.parent / name} is damaged or of another run than {path}; {mend}.")
    return manifest


def open_served(folder: str | Path, threads: int | None = None) -> IndexRecommender | Reranked:
    """A recommender from the files that `python work.py --mode export` leaves in the folder of a run.

    Its queries have `histories`, and `users` as of `OnnxQuery.keys` where the run reads features of users.

    Args:
        folder: holds manifest.json, index/, query.onnx and scorer.npz; of some runs codes.onnx and landmarks.npz, and
            reranker.npz where the best items are put in order by scores without codes.
        threads: of a search and of scoring codes that the index lacks; all cores unless told.

    Raises:
        ImportError: onnxruntime is missing.
        FileNotFoundError, ValueError: a file is missing, damaged, or of another run.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, [INDEX, QUERY, SCORER])
    read_manifest(folder, [name for name in (CODES, LANDMARKS, RERANKER) if name in manifest["files"]])
    query, keys = OnnxQuery(folder / QUERY), manifest["item_keys"]
    item_keys = keys and ItemKeys(int(keys["first"]), tuple(map(float, keys["weights"])))

    def encode(queries):
        rows = queries.histories
        histories = [rows.values[a:b] for a, b in zip(rows.offsets, rows.offsets[1:], strict=False)]
        tokens, *keys = query.encode(histories, getattr(queries, "users", None))
        return tokens, item_keys.beside(*keys, rows) if item_keys else tuple(keys)

    index, scorer = load_index(folder / "index"), load_scorer(folder / SCORER, threads)
    recommender = IndexRecommender(index, lambda queries: encode(queries)[1], scorer, threads=threads)
    if not (rerank := manifest.get("rerank", 0)):
        return recommender
    scorer, times = load_scorer(folder / RERANKER, threads), manifest.get("times", 1)
    return Reranked(recommender, encode, scorer, query.codes_per_user, rerank, times)
