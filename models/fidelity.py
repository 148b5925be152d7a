"""How well a model ranks once codes stand for its tokens: judged on validation users, before and after."""

from __future__ import annotations

from data.queries import Queries
from metric import cost
from models.blend import choose_weight, measured
from models.exhaustive import Exhaustive
from models.wide import WideTable


class Fidelity:
    """Whether a model with codes ranks as well as it did without, beside the wide table where there is one.

    Args:
        model: as yet without codes; how it ranks now is what codes are held against.
        wide: of any scale, or None; its weight is the best one of now.
        queries: validation users, two at least, see `blend.some_of`.
        k: of recall and NDCG, which judge.
        exclude_seen: as the ranking is evaluated.
        share: the loss that is nothing, see `metric.cost`.
        batch_size: histories encoded at once.
    """

    def __init__(
        self, model, wide: WideTable | None, queries: Queries, k: int, exclude_seen: bool, share: float, batch_size: int
    ):
        self.exhaustive, self.queries = Exhaustive(model, batch_size), queries
        self.k, self.exclude_seen, self.share = k, exclude_seen, share
        deep, self.wide = self.exhaustive.scores(queries), 0.0
        if wide is not None:
            self.wide = wide.scores(queries.histories)
            self.wide *= choose_weight(deep, self.wide, queries, k, exclude_seen)[0]
        self.before = self._measured(deep)

    def cost(self) -> tuple[dict, bool]:
        """What the codes of now cost, and whether that is nothing; see `metric.cost`."""
        return cost(self._measured(self.exhaustive.scores(self.queries)), self.before, self.k, self.share)

    def _measured(self, deep):
        return measured(deep + self.wide, self.queries, self.k, self.exclude_seen)
