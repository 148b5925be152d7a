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
LIST_SHARE = 20  # a list of a twentieth of the items holds nearly all that a user wants, whatever its order
TOKENS_PER_CODEWORD = 8  # at least, of those that start the quantiser, unless --K_c says how many codewords


def settled(h, data):
    """The settings, those that were left to the data and the encoder filled in.

    `history_dropout` is 1 / (1 + sqrt(n / 10)) of n training interactions per item: .17 on MovieLens-1M (n = 235), .49
    on Amazon Toys (n = 11), where a model learns its few examples by heart unless much of them is hidden. Causal
    encoders pool nothing, and have that as their `dropout`; they train on whole sequences. The quantiser is pursuit,
    put under the trained model: epochs with codewords made it no better. With a ReLU over scores, or several
    codebooks, it is residual; then a token has one code where scores do not add up, for a model is trained on the
    score of a token's codewords together. A batch has fewer rows where an epoch would have fewer than STEPS: of 1,310
    users of Toys a model that took 11 steps an epoch had recall@50 .189 on validation users after 40, and .218 with
    87. There are 40 epochs, or as many as have MOST_STEPS, about four times what MovieLens-1M and Toys take, and none
    is left out: the last have the lowest learning rates, and 94 validation users of MovieLens-100K found the sixth best
    of 18, where the 27th of 40 has NDCG@50 .3140 for .3044 beside the table. `K_c` is 2048 or what leaves each codeword
    TOKENS_PER_CODEWORD of the tokens that start the quantiser. What trains on whole sequences reads what holds nine in
    ten histories whole, within SEQ_LEN: 100 on MovieLens-1M, 20 on Toys. `monitor` is the recall of the longest list,
    and where that is more than one in LIST_SHARE of the items its NDCG: of 418 films of FilmTrust recall@50 was the
    same from the third epoch on, and NDCG@50 rose from .51 to .55. Ready-made training rows have no wide table, which
    whole sequences fit, and no more negatives than they hold.

    Raises:
        UserError: an epoch would have no step, or fewer epochs come out than pretrain_epoch asks for.
    """
    if isinstance(data.training, TrainingRows):
        h = dataclasses.replace(h, wide=bool(h.wide), neg_num=min(h.neg_num, data.training.negatives.shape[1]))
    if h.monitor is None:
        k = max(h.topk)
        h = dataclasses.replace(h, monitor=f"{'ndcg' if k * LIST_SHARE > data.catalogue.n_items else 'recall'}@{k}")
    encoder, sequences = models.PARTS["encoder"][h.encoder], trains_on_sequences(h)
    causal = encoder.causal
    if h.seq_len is None:
        parallel = sequences and getattr(encoder, "parallel", True)
        h = dataclasses.replace(h, seq_len=_usual_length(data.training) if parallel else SEQ_LEN[0])
    if h.inference_batch_size is None:
        h = dataclasses.replace(h, inference_batch_size=max(ENCODED // h.seq_len, 1))
    adds_up = models.PARTS["interaction"][h.interaction].linear and h.score_bias is None
    if h.quantiser is None:
        one = h.score_bias is None and h.num_codebooks == 1
        h = dataclasses.replace(h, quantiser="pursuit" if one else "residual")
    if h.token_lookups is None and h.quantiser != "pursuit":  # which chooses by what they lose
        h = dataclasses.replace(h, token_lookups=4 if adds_up else 1)
    if h.positions_per_user is None:
        h = dataclasses.replace(h, positions_per_user=max(60, h.seq_len) if sequences else 20)
    if h.batch_size is None:
        most = max(round(POSITIONS / h.seq_len), 2) if sequences else ROWS
        rows = data.training.steps(1, h.positions_per_user, sequences, h.seq_len)
        h = dataclasses.replace(h, batch_size=min(most, max(rows // STEPS, FEWEST_ROWS)))
    if h.next_items is None:
        h = dataclasses.replace(h, next_items=_horizon(data))
    if h.epoch is None:
        steps = data.training.steps(h.batch_size, h.positions_per_user, sequences, h.seq_len)
        h = check(dataclasses.replace(h, epoch=int(np.clip(MOST_STEPS // steps, *EPOCHS))))
    if h.patience is None:
        h = dataclasses.replace(h, patience=h.epoch)
    if h.pretrain_epoch is None:
        h = dataclasses.replace(h, pretrain_epoch=h.epoch if causal else h.epoch // 2)
    if h.history_dropout is None:
        n = taken(data.training).values.size / data.catalogue.n_items
        h = dataclasses.replace(h, history_dropout=round(1 / (1 + math.sqrt(n / 10)), 2))
    if h.dropout is None:
        h = dataclasses.replace(h, dropout=h.history_dropout if causal else 0.1)
    if h.K_c is None:
        halves = 2 if h.quantiser == "pursuit" else 1  # each of which all tokens start
        words = min(2048, starting_tokens(h, data) * halves // TOKENS_PER_CODEWORD)
        h = dataclasses.replace(h, K_c=max(words, 1))
    return h


def trains_on_sequences(h):
    """Whether a training row is a whole sequence with a target at every position; see `BaseModel.every_position`."""
    tokeniser = models.PARTS["tokeniser"][models.tokeniser_of(h)]
    return models.PARTS["encoder"][h.encoder].causal and tokeniser.every_position


def _horizon(data):
    """Of how many items that come next a target is one: as many as validation users are asked for, within MOST_NEXT."""
    if not isinstance(data.training, TrainingSequences) or not len(data.valid):
        return 1
    return int(np.clip(np.median(data.valid.targets.lengths()), 1, MOST_NEXT))


def _usual_length(training):
    """A length that nine in ten histories do not exceed, within SEQ_LEN."""
    if not isinstance(training, TrainingSequences):
        return SEQ_LEN[0]
    return int(np.clip(np.quantile(training.sequences.lengths(), 0.9), *SEQ_LEN))


def taken(training):
    """What users took in training: rows of item ids."""
    if isinstance(training, TrainingSequences):
        return training.sequences
    return Ragged.from_rows([training.positives])


def starting_tokens(h, data):
    """How many tokens start the quantiser."""
    tokeniser = models.PARTS["tokeniser"][models.tokeniser_of(h)]
    coded = 1 if h.quantiser == "pursuit" else getattr(tokeniser, "K_u", h.K_u)  # `whole` makes one
    return len(starting_queries(data.training, h, coded)) * coded
