"""The query side of a run as keys, by onnxruntime: the other half of serving without MindSpore."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval.queries import integers, item_ids
from retrieval.scorer import load_scorer

FORMAT = 3  # of the metadata that models/onnx_export.py writes
CODES, LANDMARKS = "codes.onnx", "landmarks.npz"  # beside the file, where codes are of what users score


class OnnxQuery:
    """Histories -> keys of the index, from the file that `python work.py --mode export` writes.

    Needs onnxruntime, which this package does without elsewhere. A call uses one thread, for a query is too small to
    share; several threads may call at once.

    Args:
        path: the file; codes.onnx and landmarks.npz are read beside it where it gives tokens and not codes.

    Attributes:
        seq_len: the last items of a history that count.
        codes_per_user: codes per history, C.
        n_items: the items are 1..n_items.
        user_values: what the values of users mean, such as "gender=F", entry 0 being none; empty without features of
            users.

    Raises:
        ImportError: onnxruntime is missing.
        FileNotFoundError: there is no such file.
        ValueError: it is no such export, or of another version.
    """

    def __init__(self, path: str | Path):
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError("Serving from query.onnx needs onnxruntime: pip install onnxruntime") from error
        self._session = _session(onnxruntime, path)
        about = self._session.get_modelmeta().custom_metadata_map
        if about.get("sparcode_format") != str(FORMAT):
            raise ValueError(
                f"{path} is not a query side of format {FORMAT}; write it again with "
                "`python work.py --mode export` of this version."
            )
        self.seq_len, self.n_items = int(about["seq_len"]), int(about["n_items"])
        self._outputs = [each.name for each in self._session.get_outputs()]
        self.codes_per_user = self._session.get_outputs()[0].shape[1]
        self._landmarks = None
        if "codes" not in self._outputs:
            self.codes_per_user = int(about["codes_per_user"])
            self._landmarks = load_scorer(Path(path).with_name(LANDMARKS), 1)
            self._codes = _session(onnxruntime, Path(path).with_name(CODES))
        self.user_values = json.loads(about.get("user_values", "[]"))

    def keys(
        self, histories: Sequence[Sequence[int]], users: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What histories look up: the codes and weights of `encode`."""
        return self.encode(histories, users)[1:]

    def encode(
        self, histories: Sequence[Sequence[int]], users: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tokens of histories, and what they look up.

        Args:
            histories: U sequences of item ids, each oldest first and of any length.
            users: integers (U, W), what is known of each user as numbers of `user_values`, 0 for nothing. Needed where
                there are such values, and not looked at elsewhere.

        Returns:
            Tokens before quantisation float32 (U, K, D); codes int64 (U, C) and their weights float32 (U, C).

        Raises:
            ValueError: an id is outside 1..n_items; users are missing, or not such.
        """
        padded = np.zeros((len(histories), self.seq_len), np.int64)
        for row, history in enumerate(histories):
            item_ids(history, self.n_items)  # for its check
            last = history[-self.seq_len :]
            padded[row, self.seq_len - len(last) :] = last
        inputs = {"history": padded}
        if self.user_values:
            inputs["user"] = self._users(users, len(padded))
        if not len(padded):  # on an empty batch onnxruntime 1.31 ends the process
            shape, tokens = (0, self.codes_per_user), (0, *self._session.get_outputs()[-1].shape[1:])
            return np.zeros(tokens, np.float32), np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        found = dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        tokens = found["tokens"]
        if self._landmarks is None:
            return tokens, found["codes"], found["weights"]
        scores = self._landmarks.token_scores(tokens.reshape(-1, tokens.shape[2]))
        scores = scores.reshape(*tokens.shape[:2], -1).sum(1)
        codes, weights = self._codes.run(["codes", "weights"], {"scores": scores})
        return tokens, codes, weights

    def codes(self, histories: Sequence[Sequence[int]], users: np.ndarray | None = None) -> np.ndarray:
        """The codes of `keys` alone."""
        return self.keys(histories, users)[0]

    def user(self, names) -> np.ndarray:
        """What is known of one user, texts of `user_values`, as `keys` takes it: int64 (1, W).

        Raises:
            ValueError: a text is none of them.
        """
        if unknown := sorted(set(names) - set(self.user_values)):
            raise ValueError(f"{unknown[0]!r} is nothing that the run knows of users, as is {self.user_values[-1:]}.")
        return np.array([[self.user_values.index(name) for name in names or [""]]])

    def _users(self, users, n_queries) -> np.ndarray:
        if users is None:
            raise ValueError("the run reads features of users; say what is known of each of them, as in gender=F.")
        users = integers(users)
        if users.ndim != 2 or len(users) != n_queries:
            raise ValueError(f"{n_queries} queries need a row of values each, not {list(users.shape)}.")
        if users.size and not 0 <= users.min() <= users.max() < len(self.user_values):
            raise ValueError(f"the values of users must be within 0..{len(self.user_values) - 1}.")
        return users


def _session(onnxruntime, path):
    """A file opened by onnxruntime for one thread."""
    with open(path, "rb") as file:
        model = file.read()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a kind for each way a file can be damaged
        raise ValueError(f"{path} cannot be read as an ONNX model: {error}") from error
