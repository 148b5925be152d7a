"""The settings that nobody gave, from the data and the encoder."""

import dataclasses
import math

import numpy as np

import models
from data.ragged import Ragged
from load_csv_dataset import TrainingRows, TrainingSequences
from training import starting_queries
from work import check

SEQ_LEN = 20, 100  # items of a history that an encoder reads: at least, at most
POSITIONS, ROWS = 2560, 512  # of whole sequences in a batch, targets or padding; rows of a target each
STEPS, FEWEST_ROWS = 100, 8  # of an epoch of few data, at least; of their batches
EPOCHS, MOST_STEPS = (5, 40), 2**15  # at least, at most; of the epochs of much data together
ENCODED = 16384  # items of histories, or padding, that are encoded at once: ten times as many were slower
MOST_NEXT = 4  # items that a target is drawn from
PAIRS, NEGATIVES = 2**31, 1024  # of token and item in an epoch with every item for a negative, at most; else negatives
LIST_SHARE = 20  # a list of a twentieth of the items holds nearly all that a user wants, whatever its order
TOKENS_PER_CODEWORD = 8  # at least, of those that start the quantiser, unless --K_c says how many codewords


def settled(h, data):
    """The settings, those that were left to the data and the encoder filled in: each by its rule in RULES.

    Ready-made training rows have no wide table, which whole sequences fit, and the negatives that they hold at most.

    Args:
        h: `work.Hyperparameters`, some of them None. data: `runs.Data`.

    Raises:
        UserError: an epoch would have no step, or fewer epochs come out than pretrain_epoch asks for.
    """
    if isinstance(data.training, TrainingRows):
        held = data.training.negatives.shape[1]
        h = dataclasses.replace(h, wide=bool(h.wide), neg_num=min(h.neg_num or NEGATIVES, held))
    for name, rule in RULES.items():
        if getattr(h, name) is None:
            h = dataclasses.replace(h, **{name: rule(h, data)})
    return check(h)


def trains_on_sequences(h):
    """Whether a training row is a whole sequence with a target at every position; see `BaseModel.every_position`."""
    tokeniser = models.PARTS["tokeniser"][models.tokeniser_of(h)]
    return models.PARTS["encoder"][h.encoder].causal and tokeniser.every_position


def taken(training):
    """What users took in training: rows of item ids."""
    if isinstance(training, TrainingSequences):
        return training.sequences
    return Ragged.from_rows([training.positives])


def _adds_up(h):
    """Whether a score is a sum over tokens of products of two vectors."""
    return models.PARTS["interaction"][h.interaction].linear and h.score_bias is None


def starting_tokens(h, data):
    """How many tokens start the quantiser."""
    tokeniser = models.PARTS["tokeniser"][models.tokeniser_of(h)]
    coded = 1 if h.quantiser == "pursuit" else getattr(tokeniser, "K_u", h.K_u)  # `whole` makes one
    return len(starting_queries(data.training, h, coded)) * coded


def _monitor(h, data):
    """The recall of the longest list, and where that is more than one in LIST_SHARE of the items its NDCG: of 418 films
    of FilmTrust recall@50 was the same from the third epoch on, and NDCG@50 rose from .51 to .55."""
    k = max(h.topk)
    return f"{'ndcg' if k * LIST_SHARE > data.catalogue.n_items else 'recall'}@{k}"


def _seq_len(h, data):
    """What trains on whole sequences reads what holds nine in ten histories whole, within SEQ_LEN: 100 on MovieLens-1M,
    20 on Toys. Other encoders, and one that takes its steps one after the other, read the fewest."""
    parallel = getattr(models.PARTS["encoder"][h.encoder], "parallel", True)
    if not (trains_on_sequences(h) and parallel and isinstance(data.training, TrainingSequences)):
        return SEQ_LEN[0]
    return int(np.clip(np.quantile(data.training.sequences.lengths(), 0.9), *SEQ_LEN))


def _inference_batch_size(h, data):
    return max(ENCODED // h.seq_len, 1)


def _quantiser(h, data):
    """Pursuit, put under the trained model: epochs with codewords made it no better. With a ReLU over scores, or with
    several codebooks, residual."""
    return "pursuit" if h.score_bias is None and h.num_codebooks == 1 else "residual"


def _token_lookups(h, data):
    """Pursuit chooses by what validation users lose. By other quantisers a token has one code where scores do not add
    up, for a model is trained on the score of a token's codewords together."""
    if h.quantiser == "pursuit":
        return None
    return 4 if _adds_up(h) else 1


def _negatives(h, data):
    """All items, where NEGATIVES drawn by popularity are less than a quarter of them and an epoch stays cheap: on Toys,
    at twice the time, validation users have NDCG@50 .1114 for .1081 beside the table. On MovieLens-1M, of whose items
    1,024 are 30 %, all gain nothing."""
    few = data.catalogue.n_items > 4 * NEGATIVES
    if not few or h.neg_num is not None or h.loss != "softmax" or not _adds_up(h):
        return "popular"
    tokens = 1 if models.tokeniser_of(h) == "whole" else h.K_u
    pairs = taken(data.training).values.size * data.catalogue.n_items * tokens
    return "all" if pairs <= PAIRS else "popular"


def _neg_num(h, data):
    return NEGATIVES


def _positions_per_user(h, data):
    return max(60, h.seq_len) if trains_on_sequences(h) else 20


def _batch_size(h, data):
    """Fewer rows where an epoch would have fewer than STEPS: of 1,310 users of Toys a model that took 11 steps an epoch
    had recall@50 .189 on validation users after 40, and .218 with 87."""
    sequences = trains_on_sequences(h)
    most = max(round(POSITIONS / h.seq_len), 2) if sequences else ROWS
    rows = data.training.steps(1, h.positions_per_user, sequences, h.seq_len)
    return min(most, max(rows // STEPS, FEWEST_ROWS))


def _next_items(h, data):
    """Of how many items that come next a target is one: as many as validation users are asked for, within MOST_NEXT."""
    if not isinstance(data.training, TrainingSequences) or not len(data.valid):
        return 1
    return int(np.clip(np.median(data.valid.targets.lengths()), 1, MOST_NEXT))


def _epoch(h, data):
    """40, or of much data as many as have MOST_STEPS, about four times what MovieLens-1M and Toys take."""
    steps = data.training.steps(h.batch_size, h.positions_per_user, trains_on_sequences(h), h.seq_len)
    return int(np.clip(MOST_STEPS // steps, *EPOCHS))


def _patience(h, data):
    """No epoch is left out: the last have the lowest learning rates, and 94 validation users of MovieLens-100K found
    the sixth best of 18, where the 27th of 40 has NDCG@50 .3140 for .3044 beside the table."""
    return h.epoch


def _pretrain_epoch(h, data):
    return h.epoch if models.PARTS["encoder"][h.encoder].causal else h.epoch // 2


def _history_dropout(h, data):
    """1 / (1 + sqrt(n / 10)) of n training interactions per item: .17 on MovieLens-1M (n = 235), .49 on Amazon Toys
    (n = 11), where a model learns its few examples by heart unless much of them is hidden."""
    n = taken(data.training).values.size / data.catalogue.n_items
    return round(1 / (1 + math.sqrt(n / 10)), 2)


def _dropout(h, data):
    """Causal encoders pool nothing, and have the dropout of histories for theirs."""
    return h.history_dropout if models.PARTS["encoder"][h.encoder].causal else 0.1


def _K_c(h, data):
    """2048, or what leaves each codeword TOKENS_PER_CODEWORD of the tokens that start the quantiser."""
    halves = 2 if h.quantiser == "pursuit" else 1  # each of which all tokens start
    return max(min(2048, starting_tokens(h, data) * halves // TOKENS_PER_CODEWORD), 1)


RULES = {  # in this order: a rule reads what those before it settled
    "monitor": _monitor,
    "seq_len": _seq_len,
    "inference_batch_size": _inference_batch_size,
    "quantiser": _quantiser,
    "token_lookups": _token_lookups,
    "negatives": _negatives,
    "neg_num": _neg_num,
    "positions_per_user": _positions_per_user,
    "batch_size": _batch_size,
    "next_items": _next_items,
    "epoch": _epoch,
    "patience": _patience,
    "pretrain_epoch": _pretrain_epoch,
    "history_dropout": _history_dropout,
    "dropout": _dropout,
    "K_c": _K_c,
}
