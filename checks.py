"""What a run refuses before it trains: settings that change nothing, data that are too small."""

import dataclasses
import math

import models
from defaults import starting_tokens, trains_on_sequences
from errors import UserError
from load_csv_dataset import TrainingRows
from metric import NAMES
from retrieval.sizes import bytes_of
from runs import uses_wide
from work import Hyperparameters

ALL_CODES_AT_MOST = 2**20  # code tuples that --index_codes all may mean
TRAINS_CODEWORDS = ("error_feedback", "rotation", "ema_decay", "restart_below", "beta")  # settings of some quantisers
UNREAD = {"all": {"neg_num", "neg_power"}, "in-batch": {"neg_power"}}  # settings, by kind of negatives


def refuse_unused(h, given):
    """Refuses a given setting that would change nothing, before training rather than wondered at after.

    Args:
        h: the settings, `settled`.
        given: names of those that were given.

    Raises:
        UserError: says what to choose, so that it does.
    """
    _refuse_unused_tokens(h, given)
    _refuse_unused_interaction(h, given)
    _refuse_unused_quantiser(h, given)


def _refuse_unused_tokens(h, given):
    """A number of tokens where there is one."""
    if "K_u" in given and h.K_u > 1 and models.tokeniser_of(h) == "whole":
        raise UserError(
            f"--K_u {h.K_u} changes nothing: {h.model} with {h.encoder} has one token, the user vector; choose "
            "--tokeniser heads, or windows, which is made for --encoder DNN."
        )


def _refuse_unused_interaction(h, given):
    """What a two-tower model cannot do."""
    for name, value in models.MODELS[h.model].prescribes(models.PARTS["interaction"][h.interaction]).items():
        if name in given and getattr(h, name) != value:
            raise UserError(
                f"--{name} {getattr(h, name)} changes nothing: a score of {h.model} is a product of two vectors, as "
                "dot, GMF, bilinear, cosine and tower are; choose --model AllToAll."
            )


def _refuse_unused_quantiser(h, given):
    """Settings of codebooks that move, where they stay."""
    unused = [name for name in TRAINS_CODEWORDS if name in given]
    if unused and h.quantiser == "pursuit" and models.MODELS[h.model].has_quantiser:
        raise UserError(
            f"--{unused[0]} changes nothing: the quantiser pursuit takes no part in training; choose --quantiser "
            "residual or product."
        )


def unread(h, model, given, training):
    """Names of the given settings that neither the model nor its `training` data nor its index reads."""
    names = models.readable() - model.read | UNREAD.get(h.negatives, set()) | unread_by_split(h)
    if isinstance(training, TrainingRows):
        names |= {"positions_per_user", "neg_power"}
    if "dropout" not in given:
        names -= {"history_dropout"}  # which that of a causal encoder is, see `settled`
    if not uses_wide(h):
        names |= group("wide") - {"wide"}
    if not model.has_quantiser:
        names |= group("index") - ({"index_loss"} if uses_wide(h) else set())
    return given & names


def unread_by_split(h):
    """Names of the settings that the cut of the data does not read."""
    return set() if h.split == "user" else {"split_seed"}


def group(*names):
    """The settings of these groups."""
    return {f.name for f in dataclasses.fields(Hyperparameters) if f.metadata["group"] in names}


def check_sizes(h, data):
    """Refuses data that are too small for the `settled` settings, before training and not after.

    Raises:
        UserError: says which setting, and what to choose.
    """
    if h.monitor not in (monitors := [f"{name}@{k}" for name in NAMES for k in h.topk]):
        raise UserError(f"--monitor is {h.monitor!r}; choose one of {', '.join(monitors)}.")
    data.training.steps(h.batch_size, h.positions_per_user, trains_on_sequences(h), h.seq_len)  # refuses too few rows
    if models.MODELS[h.model].has_quantiser or uses_wide(h):
        _check_users(data)
    if not models.MODELS[h.model].has_quantiser:
        return
    if h.index_codes == "all" and h.K_c**h.num_codebooks > ALL_CODES_AT_MOST:
        raise UserError(f"--index_codes all means {h.K_c}^{h.num_codebooks} codes, too many; choose used.")
    _check_bytes(h, data)
    if starting_tokens(h, data) < h.K_c:
        raise UserError(f"--K_c {h.K_c} is more than the tokens of the training histories; lower K_c.")


def _check_users(data):
    """Refuses too few users to see what a table or an index costs: a paired test takes two."""
    for name, queries in (("validation", data.valid), ("test", data.test)):
        if queries.n_users < 2:
            raise UserError(
                f"there is {queries.n_users} {name} user, and two are needed to see what an index costs; give more "
                "data, cut it otherwise (--split leave-one-out), or choose --model TwoTower."
            )


def _check_bytes(h, data):
    """Refuses an index that cannot fit max_bytes, and says so where it may not: a list takes a posting at least."""
    if h.max_bytes is None:
        return
    n_items, form = data.catalogue.n_items, h.index_format or "uint8"
    most = min(h.K_c**h.num_codebooks, h.max_codes or math.inf)
    lists = n_items * uses_wide(h)
    at_least = lists + (most if h.index_codes == "all" else 1)
    empty = bytes_of([], n_items, form)
    each = bytes_of([1], n_items, form) - empty
    if h.max_bytes < (needed := empty + each * at_least):
        raise UserError(f"--max_bytes {h.max_bytes} is too few: {at_least:,} lists of a posting each take {needed:,}.")
    if h.max_bytes < (needed := empty + each * (lists + most)):
        print(
            f"note: an index of all {most:,} codes takes {needed:,} bytes or more; --max_codes holds it to --max_bytes"
        )
