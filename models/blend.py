"""How much the wide table counts beside a deep model: chosen on validation users."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.queries import Queries
from metric import measure
from retrieval.ranking import top_k

# of the spread of the wide scores to that of the deep ones
RATIOS = (0.0, 0.0312, 0.0625, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0, 16.0)
MOST_USERS = 3000


def choose_weight(
    deep: Callable[[Queries], np.ndarray],
    wide: Callable[[Queries], np.ndarray],
    queries: Queries,
    k: int,
    exclude_seen: bool,
) -> tuple[float, dict[float, float]]:
    """The weight of the wide scores with which deep + weight * wide ranks validation users best.

    The two come on scales of their own, so weights are tried by the ratio of the spreads (standard deviation over the
    items, mean over users) that they make.

    Args:
        deep, wide: queries (U,) -> scores float32 (U, n_items).
        queries: validation users; of many, MOST_USERS at even distances are asked.
        k: of NDCG@k, which decides.
        exclude_seen: as the ranking is evaluated.

    Returns:
        The weight, and NDCG@k by the ratio that was tried.
    """
    if len(queries) > MOST_USERS:
        queries = queries.take(np.linspace(0, len(queries) - 1, MOST_USERS).astype(np.int64))
    deep_scores, wide_scores = deep(queries), wide(queries)
    unit = float(deep_scores.std(1).mean() / max(wide_scores.std(1).mean(), 1e-12))
    seen = queries.histories if exclude_seen else None
    found = {}
    for ratio in RATIOS:
        items, _ = top_k(deep_scores + np.float32(ratio * unit) * wide_scores, k, seen)
        found[ratio] = measure(items, queries.targets, [k]).mean("ndcg", k)
    return max(found, key=found.get) * unit, found
