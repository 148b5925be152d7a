"""Scores of codes x items through any interaction, in blocks, on the CPU's cores or on an array library."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import threading
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from files import fresh
from retrieval.gpu.library import ArrayLibrary
from retrieval.interactions import Operations, interaction, settings_of
from retrieval.kernels import KERNELS
from retrieval.queries import item_ids
from retrieval.search import available_cores

VERSION = 2  # of the file format
CACHE_BYTES = 4 << 20  # what a block of pairs may take on a CPU core
TOKENS = 128  # in a block: of a few with a great many items a matrix product waits for memory


class CodeScorer:
    """Scores a code c and an item i by s = interaction(token of c, item i), or by ReLU(s + score_bias).

    The token of a code is its codeword c_1 of the first codebook plus c_2 of the second ...

    Args:
        name: of the interaction, a key of `retrieval.interactions.INTERACTIONS`.
        settings: its flags and their values; others are left aside.
        weights: its weights by name, float32.
        items: embeddings (n_items, E) float32; row j is item j + 1.
        codewords: (M, N, D) float32; without them tokens can be scored, codes can't.
        score_bias: the bias in front of the ReLU, or None for the plain score.
        threads: of the CPU, None for all cores.
        library: computes everything; None stands for NumPy and numba on the CPU's cores.

    Attributes:
        n_items: columns of the scores.

    Raises:
        ValueError: arrays that don't fit together or are not finite.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping,
        weights: Mapping,
        items,
        *,
        codewords=None,
        score_bias: float | None = None,
        threads: int | None = None,
        library: ArrayLibrary | None = None,
    ):
        self.name, self.settings = name, settings_of(name, settings)
        self.formula = interaction(name, self.settings, None if library else KERNELS)
        expected = self.formula.weights(np.random.default_rng(0))
        if set(weights) != set(expected):
            raise ValueError(f"Scorer: {name} has the weights {sorted(expected)}, not {sorted(weights)}.")
        self.weights = {key: _finite(key, weights[key], array.shape) for key, array in expected.items()}
        self.items = _finite("items", items, (None, self.formula.embedding_size))
        self.codewords = None if codewords is None else _codebooks(codewords, self.formula.token_embedding_size)
        self.score_bias = None if score_bias is None else _number("score_bias", score_bias)
        self.n_items = len(self.items)

        self.threads = 1 if library else threads or available_cores()
        self.library = library or ArrayLibrary("numpy")
        self._xp = Operations(self.library.xp)
        self._weights = {key: self.library.put(array) for key, array in self.weights.items()}
        with self.library.full_precision():
            self._items = self.formula.item_side(self._xp, self._weights, self.library.put(self.items))
        work_bytes = self.library.work_bytes if library else CACHE_BYTES
        self._pairs = max(1, work_bytes // (4 * self.formula.pair_floats))  # in a block

    def on(self, library: ArrayLibrary) -> CodeScorer:
        """This scorer on an array library; its scores are equal to float32 rounding."""
        parts = {"codewords": self.codewords, "score_bias": self.score_bias}
        return CodeScorer(self.name, self.settings, self.weights, self.items, library=library, **parts)

    def of(self, rows: slice) -> CodeScorer:
        """This scorer of some of its items, which are numbered from 1 anew."""
        parts = {"codewords": self.codewords, "score_bias": self.score_bias, "threads": self.threads}
        return CodeScorer(self.name, self.settings, self.weights, self.items[rows], **parts)

    @property
    def linear(self) -> bool:
        """Whether the scores of tokens add up to those of the tokens' sum."""
        return self.formula.linear and self.score_bias is None

    def tokens(self, codes) -> np.ndarray:
        """Quantised tokens of codes, int64 (c,) -> float32 (c, D).

        Raises:
            ValueError: a code is out of range, or the scorer has no codewords.
        """
        if self.codewords is None:
            raise ValueError("This scorer has no codewords; give it some, or score tokens.")
        codes = np.asarray(codes)
        if codes.ndim != 1 or codes.dtype.kind not in "iu":
            raise ValueError(f"Codes must be one row of integers, not {codes.dtype} of shape {codes.shape}.")
        n_books, n_codewords, _ = self.codewords.shape
        n_codes = n_codewords**n_books
        outside = (codes < 0) | (codes >= n_codes)
        if outside.any():
            raise ValueError(f"Code {codes[outside][0]} is outside 0..{n_codes - 1}, the codes of these codebooks.")
        words = np.empty((len(codes), n_books), np.int64)
        for book in range(n_books - 1, -1, -1):  # the last codebook is the lowest digit
            codes, words[:, book] = np.divmod(codes, n_codewords)
        return self.codewords[np.arange(n_books), words].sum(1)

    def scores(self, codes) -> np.ndarray:
        """Scores of all items, codes int64 (c,) -> float32 (c, n_items); column j is item j + 1."""
        return self.token_scores(self.tokens(codes))

    def token_scores(self, tokens) -> np.ndarray:
        """Scores of all items for any tokens, float32 (c, D) -> float32 (c, n_items)."""
        return self.library.get(self._scores(tokens))

    def pair_scores(self, tokens, items) -> np.ndarray:
        """Scores of a few items for each query, summed over its tokens.

        Args:
            tokens: float32 (U, K, D).
            items: ids 1..n_items, integers (U, C).

        Returns:
            float32 (U, C).

        Raises:
            ValueError: an item is outside the catalogue.
        """
        item_ids(items, self.n_items)
        (n_queries, n_tokens, width), rows = tokens.shape, np.asarray(items) - 1
        scores = np.empty(rows.shape, np.float32)
        with self._shared() as each:
            side = self.formula.token_side(self._xp, self._weights, self.library.put(tokens.reshape(-1, width)))

            def fill(query: int) -> None:
                own = slice(query * n_tokens, (query + 1) * n_tokens)
                scores[query] = self.library.get(self._block(side, own, rows[query])).sum(0)

            list(each(fill, range(n_queries)))
        return scores

    def array_scores(self, codes):
        """`scores`, left on the device as an array of the library."""
        return self._scores(self.tokens(codes))

    def _scores(self, tokens):
        scores = self.library.empty((len(tokens), self.n_items))
        with self._shared() as each:
            side = self.formula.token_side(self._xp, self._weights, self.library.put(tokens))

            def fill(block: tuple) -> None:
                scores[block] = self._block(side, *block)

            list(each(fill, self._blocks(len(tokens))))
        return scores

    @contextlib.contextmanager
    def _shared(self):
        """A `map` that the threads share."""
        with self.library.full_precision(), _one_blas_thread(self.threads > 1) as limited:
            # Where the BLAS can't be told to keep to one thread, it has the cores and we keep to one.
            if self.threads == 1 or not limited:
                yield map
            else:
                with ThreadPoolExecutor(self.threads) as pool:
                    yield pool.map

    def _block(self, side, tokens, items):
        """Scores of some rows of the tokens' side and some of the items', slices or row numbers, (T, C)."""
        of_tokens = tuple(each[tokens] for each in side)
        of_items = tuple(each[items] for each in self._items)
        found = self.formula.pairs(self._xp, self._weights, of_tokens, of_items)
        return found if self.score_bias is None else self._xp.relu(found + self.score_bias)

    def _blocks(self, n_tokens: int) -> list[tuple]:
        """Rows and columns of the scores that are computed at once: as many pairs as fit, and work for every thread.

        Where rows alone are work enough, blocks are the same for any number of threads, and so is every digit."""
        rows = max(min(n_tokens, max(self._pairs // self.n_items, min(TOKENS, math.isqrt(self._pairs)))), 1)
        threads_per_row = -(-self.threads // max(-(-n_tokens // rows), 1))
        columns = min(self._pairs // rows, -(-self.n_items // threads_per_row))
        return [
            (slice(token, token + rows), slice(item, item + columns))
            for token in range(0, n_tokens, rows)
            for item in range(0, self.n_items, columns)
        ]


def save_scorer(scorer: CodeScorer, path) -> None:
    """Write `scorer` to `path` (.npz), whole or not at all, so that codes can be scored where no model is.

    Raises:
        OSError: the disk refuses.
    """
    parts = {"codewords": scorer.codewords, "score_bias": scorer.score_bias}
    parts = {name: part for name, part in parts.items() if part is not None}
    parts |= {f"weights.{name}": array for name, array in scorer.weights.items()}
    with fresh(path) as file:
        settings = json.dumps(scorer.settings)
        np.savez(file, version=VERSION, name=scorer.name, settings=settings, items=scorer.items, **parts)


def load_scorer(path, threads: int | None = None) -> CodeScorer:
    """Read what `save_scorer` wrote: a scorer of the same scores.

    Raises:
        FileNotFoundError: no file is there.
        ValueError: it is foreign, damaged or of another version.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = {name: file[name] for name in file.files}
        version = int(parts.pop("version"))
        if version != VERSION:
            raise ValueError(f"It has version {version}; this program reads version {VERSION}.")
        weights = {name: parts.pop(name) for name in list(parts) if name.startswith("weights.")}
        weights = {name.removeprefix("weights."): array for name, array in weights.items()}
        name, settings = str(parts.pop("name")), json.loads(str(parts.pop("settings")))
        return CodeScorer(name, settings, weights, threads=threads, **parts)
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a saved scorer, or damaged; export it anew. {error}") from error


class _OneBlasThread:
    """Holds the BLAS to one thread per call while anyone wants that: calls may overlap, in threads of a server."""

    def __init__(self):
        self._lock, self._users, self._limit = threading.Lock(), 0, None

    @contextlib.contextmanager
    def __call__(self, wanted: bool):
        """Yields whether it is held."""
        blas = _blas() if wanted else None
        if blas is None:
            yield False
            return
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limit = blas.limit(limits=1)
        try:
            yield True
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._limit.restore_original_limits()


_one_blas_thread = _OneBlasThread()


@functools.cache
def _blas():
    """The BLAS that is loaded, to be held back; None without threadpoolctl. Looking for it takes milliseconds."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def _number(name: str, value) -> float:
    if not np.isfinite(value):
        raise ValueError(f"Scorer: {name} must be a finite number, not {value}.")
    return float(value)


def _codebooks(codewords, width: int) -> np.ndarray:
    codewords = _finite("codewords", codewords, (None, None, width))
    n_books, n_codewords, _ = codewords.shape
    if n_codewords**n_books > 2**63 - 1:
        raise ValueError(f"{n_books} codebooks of {n_codewords} codewords give more codes than 64 bits can count.")
    return codewords


def _finite(name: str, array, shape: tuple) -> np.ndarray:
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=False)):
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"Scorer: {name} has shape {array.shape}, expected {wanted}.")
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Scorer: {name} is empty or holds numbers that are not finite.")
    return array
