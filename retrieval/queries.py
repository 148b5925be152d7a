"""What a search is asked, checked: weighted keys, histories, item ids."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

LARGEST_WEIGHT = 1e6  # sums of many weighted scores must stay finite


class Histories(Protocol):
    """Rows of item ids, one per query.

    Attributes:
        offsets: integers (U + 1,): row u is values[offsets[u] : offsets[u + 1]].
        values: integers; 0 is ignored.
    """

    offsets: np.ndarray
    values: np.ndarray


def integers(values: ArrayLike) -> np.ndarray:
    """Codes or ids of any shape as int64.

    Raises:
        ValueError: they are not integers, or too large.
    """
    values = np.asarray(values)
    if values.size == 0 and values.dtype == np.float64:  # np.asarray([]) knows no better
        values = values.astype(np.int64)
    if values.dtype.kind not in "iu" or not np.can_cast(values.dtype, np.int64):
        raise ValueError(f"Codes and item ids must be integers (int64), not {values.dtype}.")
    return values.astype(np.int64, copy=False)


def query_keys(codes: ArrayLike, weights: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The weighted keys of queries.

    Args:
        codes: integers (U, K).
        weights: numbers (U, K) from 0 to LARGEST_WEIGHT; None: all 1.

    Returns:
        Codes int64 (U, K) and weights float32 (U, K).

    Raises:
        ValueError: they are none such; the message names the query.
    """
    codes = integers(codes)
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise ValueError(f"Query codes must have the shape [queries, codes per query], not {list(codes.shape)}.")
    codes = np.ascontiguousarray(codes)
    if weights is None:
        return codes, np.ones(codes.shape, np.float32)
    weights = np.asarray(weights)
    if weights.shape != codes.shape or weights.dtype.kind not in "fiu":
        raise ValueError(
            f"Weights must be numbers of the shape of the codes, {list(codes.shape)}, "
            f"not {weights.dtype} of {list(weights.shape)}."
        )
    weights = np.ascontiguousarray(weights, np.float32)
    wrong = ~((weights >= 0) & (weights <= LARGEST_WEIGHT))  # NaN too
    if wrong.any():
        query, slot = np.argwhere(wrong)[0]
        raise ValueError(
            f"Query {query} gives code {codes[query, slot]} the weight {weights[query, slot]}; "
            f"weights are numbers from 0 to {LARGEST_WEIGHT:g}."
        )
    return codes, weights


def histories(seen: Histories | None, n_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """The items that each query leaves out.

    Args:
        seen: rows of item ids as an object with offsets (U + 1,) and values; None: no items.
        n_queries: U.

    Returns:
        Offsets int64 (U + 1,) and values int32; ids are not compared with a catalogue here.

    Raises:
        ValueError: offsets don't fit, or values are not integers.
    """
    if seen is None:
        return np.zeros(n_queries + 1, np.int64), np.zeros(0, np.int32)
    offsets = np.ascontiguousarray(seen.offsets, np.int64)
    values = np.asarray(seen.values)
    if values.dtype != np.int32:
        if values.dtype.kind not in "iu" and values.size:
            raise ValueError(f"Seen items must be integers, not {values.dtype}.")
        values = np.clip(values, -1, 2**31 - 1).astype(np.int32)  # what is clipped is out of range for any catalogue
    if offsets.shape != (n_queries + 1,):
        raise ValueError(f"{n_queries} queries need {n_queries + 1} offsets of seen items, not {offsets.size}.")
    if offsets[0] < 0 or offsets[-1] > values.size or np.any(offsets[1:] < offsets[:-1]):
        raise ValueError(f"Offsets of seen items must rise within 0..{values.size}, the number of values.")
    return offsets, np.ascontiguousarray(values)


def item_ids(items: ArrayLike, n_items: int) -> np.ndarray:
    """Item ids: int64, ascending, each once.

    Raises:
        ValueError: one is not an integer in 1..n_items.
    """
    items = np.unique(integers(items))
    if len(items) and (items[0] < 1 or items[-1] > n_items):
        wrong = items[0] if items[0] < 1 else items[-1]
        raise ValueError(f"Item {wrong} is outside the items 1..{n_items} of the index.")
    return items
