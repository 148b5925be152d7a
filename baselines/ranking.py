"""Blocks of score rows to masked exact top-k."""

import numpy as np

BLOCK_BYTES = 64 << 20


def best_items(scores, queries, k, exclude_seen, n_items):
    block = max(1, BLOCK_BYTES // (4 * n_items))
    ids = np.zeros((len(queries), k), np.int32)
    best = np.full((len(queries), k), -np.inf, np.float32)
    for first in range(0, len(queries), block):
        rows = np.arange(first, min(first + block, len(queries)))
        histories = queries.histories.take(rows)
        found = scores(histories)
        if exclude_seen:
            found[histories.row_of_value(), histories.values - 1] = -np.inf
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        top = np.take_along_axis(found, order, 1)
        ids[rows], best[rows] = np.where(np.isneginf(top), 0, order + 1), top
    return ids, best
