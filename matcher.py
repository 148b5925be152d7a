"""A trained model and its wide table as what recommends: by scoring every item, and through an inverted index."""

from __future__ import annotations

import numpy as np

import models
from data.ragged import Ragged
from errors import UserError
from metric import cost, evaluate
from recommender import largest
from retrieval import (
    ArrayIndex,
    ArrayLibrary,
    IndexRecommender,
    Pruning,
    Reranked,
    SparseInvertedIndex,
    SparseRows,
    build_array_index,
    build_index,
    index_of_rows,
)
from retrieval.build import build_pruned
from retrieval.keys import ItemKeys
from retrieval.sizes import dense_lists
from wide import WideTable

# Most postings of a list that are tried, beside as many as there may be.
CAPS = (25, 50, 100, 200, 400, 800, 1200, 1600, 2400, 3200, 4800, 6400, 9600, 12800, 19200, 25600, 38400, 51200, 76800)
CAP_USERS = 20000  # most queries on which they are tried; 2,000 could not see a loss of 2 % on Amazon Toys
READ = 2**21  # items that are read, of histories at their greatest length, to see which codes are in use
POSTINGS = 2**28  # most postings of an index whose length is chosen: 2 GB while it is built


class Matcher:
    """score(user, item) = deep score of the model + score of the wide table, where there is one.

    Args:
        model: a model of `models`.
        wide: `wide.WideTable` on the scale of the model's scores, or None.
        settings: `work.Hyperparameters`.
    """

    def __init__(self, model, wide: WideTable | None, settings):
        self.model, self.wide, self.settings = model, wide, settings
        self.query_side = models.QuerySide(model, settings.inference_batch_size)
        self.item_keys = None
        if wide is not None and wide.values.any() and model.has_quantiser:  # its weight may be 0
            self.item_keys = ItemKeys(model.quantiser.n_codes, tuple(wide.weights()))

    def exhaustive(self) -> models.Exhaustive:
        """A recommender that scores every item."""
        return models.Exhaustive(self.model, self.settings.inference_batch_size, self.wide)

    def through(self, index: SparseInvertedIndex, library: ArrayLibrary | None = None) -> IndexRecommender | Reranked:
        """The index as a recommender for histories; a code that it lacks is scored when it is asked for.

        Args:
            index: of `build`.
            library: searches and scores codes on its device; None: NumPy and numba.
        """
        scorer = self.model.scorer()
        if library is not None:
            index, scorer = ArrayIndex.of(index, library), scorer.on(library)
        recommender = IndexRecommender(index, self.keys, scorer)
        if not self.settings.rerank:
            return recommender
        scorer, n_codes = self.model.token_scorer(), self.model.codes_per_user
        times = self.model.quantiser.times
        return Reranked(recommender, self._encoded, scorer, n_codes, self.settings.rerank, times)

    def keys(self, queries):
        """What queries look up: codes and their weights (U, C), or codes and item keys with theirs (U, C + H)."""
        return self._encoded(queries)[1]

    def _encoded(self, queries):
        """Tokens before quantisation (U, K, D), and `keys`."""
        tokens = self.query_side.raw_tokens(queries)
        keys = self.query_side.keys_of(tokens)
        return tokens, keys if self.item_keys is None else self.item_keys.beside(*keys, queries.histories)

    def reasons(self, recommender: IndexRecommender, queries, items) -> list:
        """What gave each recommended item its score: it is a sum over the keys of the user, so this is exact.

        Args:
            recommender: of `through`.
            queries: U users.
            items: ids (U, k), as recommended.

        Returns:
            As of `recommender.largest`; the key is the item of the history, or None for a token.
        """
        codes, shares = recommender.explain(queries, items)  # (U, C + H), (U, k, C + H)
        k_u, n_codes = self.model.coded_tokens, self.model.codes_per_user
        of_tokens = shares[..., :n_codes].reshape(*shares.shape[:2], k_u, -1).sum(3)
        shares = np.concatenate([of_tokens, shares[..., n_codes:]], 2)  # (U, k, k_u + H)
        history = codes[:, n_codes:]  # (U, H)

        def key(user, slot):
            return None if slot < k_u else int(history[user, slot - k_u] - self.item_keys.first)

        return largest(shares, key)

    def codes_in_use(self, training, rng: np.random.Generator) -> np.ndarray:
        """The codes of one epoch of training histories, or of READ items of them, int64, the most used first."""
        length = self.model.seq_len
        queries = training.queries(rng, self.settings.positions_per_user, length, READ // length)
        codes, uses = np.unique(self.query_side.codes(queries), return_counts=True)
        return codes[np.argsort(-uses, kind="stable")]

    def build(self, codes: np.ndarray, judges, library: ArrayLibrary | None = None):
        """The inverted index of codes and, with a wide table, of all items as keys.

        Limits of list lengths that the settings leave open are the tightest that lose no more than `index_loss` on
        some queries.

        Args:
            codes: int64.
            judges: `Queries` with targets that neither model nor table was fitted to.
            library: scores on its device; None: NumPy and numba.

        Returns:
            A SparseInvertedIndex or CompactIndex, and what was tried for the open limits: a list of dictionaries.

        Raises:
            UserError: max_bytes are too few for one posting per code, or no posting is left.
        """
        s = self.settings
        cap, form, tried = s.max_postings, s.index_format, []
        if library is not None:
            form = "float32"  # what an array library searches
        try:
            if s.index_loss is not None and None in (cap, form) and s.keep_share is None and s.max_bytes is None:
                cap, form, tried = self._choose_limits(judges, len(codes), form)
            options = {"relu": s.score_bias is not None, "max_postings": cap, "keep_share": s.keep_share}
            if library is None:
                index = build_index(self.model.scorer(), codes, self.model.items.n_items, **options)
            else:
                index = build_array_index(self.model.scorer().on(library), codes, **options)
            index = self.with_items(index)
            form = form or ("float32" if s.max_bytes is None else "uint8")
            if s.max_bytes is not None:
                index = index.prune(max_bytes=s.max_bytes, format=form)
        except ValueError as error:
            raise UserError(f"the index cannot be built: {error}") from error
        return (index if form == "float32" else index.compact(form)), tried

    def with_items(self, index: SparseInvertedIndex) -> SparseInvertedIndex:
        """An index of codes, joined by the posting lists of the wide table."""
        if self.item_keys is None:
            return index
        wide, n_items = self.wide, self.model.items.n_items
        rows = SparseRows(wide.offsets[1:], wide.items, wide.values)
        keys = self.item_keys.first + np.arange(1, n_items + 1)
        return index.extend(index_of_rows(keys, rows, n_items, Pruning(relu=True)))

    def add_items(self, index: SparseInvertedIndex, sequences: Ragged, n_items: int):
        """A matcher and an index that know the items 1..n_items, the new ones by their first interactions, untrained.

        A new item gets its lists of the wide table from what stood beside it (`WideTable.add_items`), and as its vector
        the mean of those of the old items that the table links it to, weighted by the links; one that is linked to none
        gets zeros: with dot it scores 0. With that vector the encoder reads it in a history, and every code gets its
        score. Nothing else changes; lists of codes stay as long as they were cut to, those of items are the table's.

        Args:
            index: of `build`, in any format.
            sequences: the histories of all who took a new item, whole, oldest first.
            n_items: at least as many as now.

        Returns:
            Matcher, and its index in float32; `compact` makes it small again.

        Raises:
            UserError: there is no wide table, the model reads features of items, or the items are fewer than now.
        """
        old, settings = self.model.items.n_items, self.settings
        if self.item_keys is None or settings.item_features:
            why = "reads features of items" if settings.item_features else "has no wide table and index"
            raise UserError(f"new items cannot be added: the model {why}; train anew with them.")
        if n_items <= old:
            raise UserError(f"new items cannot be added: {n_items} items are asked for, and {old} are known.")
        wide = self.wide.add_items(sequences, n_items)
        links = wide.matrix
        links = links[old:, :old] + links[:old, old:].T  # (new, old)
        links = links.multiply(1 / np.maximum(links.sum(1), 1e-12)).tocsr()
        model = models.grown(self.model, settings, links)
        matcher = Matcher(model, wide, settings)
        index = index if isinstance(index, SparseInvertedIndex) else index.decode()
        tokens = index.only(index.codes[index.codes < self.item_keys.first])
        index = matcher.with_items(tokens.add_items(model.scorer().of(slice(old, None)), n_items - old))
        if settings.max_bytes is not None:
            index = index.prune(max_bytes=settings.max_bytes, format=settings.index_format or "uint8")
        return matcher, index

    def _choose_limits(self, judges, n_codes, form):
        """Lists as short as surely loses little on the judges, and then the smallest format.

        From the longest on, step by step: of all lengths at once a short one would be found to lose nothing by chance.
        Histories of training cannot judge: the table knows what follows them, and shorter lists let it speak louder.

        Args:
            judges: `Queries`; of many, CAP_USERS at even distances are asked.
            n_codes: of the index; as many lists of the length chosen, or of those that the judges ask for, if they are
                more, hold POSTINGS at most.
            form: the format, where it is not to be chosen.

        Returns:
            max_postings, format, and what was tried.
        """
        s, n_items = self.settings, self.model.items.n_items
        judges = judges.at_most(CAP_USERS)
        asked = self.keys(judges)  # codes and weights (U, C), or of items as well (U, C + H)
        codes = np.unique(asked[0][:, : self.model.codes_per_user])
        caps = self._caps(max(n_codes, len(codes)), form)
        k = max(s.topk)
        whole = evaluate(self.exhaustive(), judges, s.topk, s.exclude_seen)
        pruning = Pruning(relu=s.score_bias is not None, max_postings=caps[-1])
        longest = build_pruned(self.model.scorer(), codes, n_items, pruning)
        tried = []

        def measured(cap, form):
            index = self.with_items(longest.prune(max_postings=cap) if cap < caps[-1] else longest)
            index = index if form == "float32" else index.compact(form)
            recommender = IndexRecommender(index, lambda queries: asked)
            return evaluate(recommender, judges, s.topk, s.exclude_seen)

        def loses_nothing(cap, form, found, before) -> bool:
            row, nothing = cost(found, before, k, s.index_loss, sure=True)
            tried.append({"max_postings": cap, "format": form} | row)
            return nothing

        cap, exact = caps[-1], measured(caps[-1], "float32")
        loses_nothing(cap, "float32", exact, whole)  # nothing is longer, so it stands; what it loses is told
        for shorter in reversed(caps[:-1]):
            found = measured(shorter, "float32")
            if not loses_nothing(shorter, "float32", found, whole):
                break
            cap, exact = shorter, found
        if form is None:  # rounding is judged by what it adds
            rounded = ("uint8", "uint16")
            judged = (form for form in rounded if loses_nothing(cap, form, measured(cap, form), exact))
            form = next(judged, "float32")
        return cap, form, tried

    def _caps(self, n_codes, form) -> list[int]:
        """The list lengths that are tried, rising: the one that the settings say, or the longest that n_codes lists may
        have and those of CAPS below it, but for what takes as much room as a row of every item."""
        if self.settings.max_postings is not None:
            return [self.settings.max_postings]
        n_items = self.model.items.n_items
        longest = min(n_items, max(POSTINGS // n_codes, CAPS[0]))
        caps = [cap for cap in CAPS if cap < longest] + [longest]
        rows = dense_lists(caps, n_items, form or "uint8")  # each takes the same room however many items it holds
        return [cap for cap, row in zip(caps, rows, strict=True) if not row or cap == longest]
