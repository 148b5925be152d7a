"""Train a candidate-matching model, build its sparse inverted index and evaluate through it: `python work.py`.

The hyper-parameters stand in `Hyperparameters`; edit them there or give them as flags (`python work.py --help`).
"""

import argparse
import dataclasses
import importlib
import math
import os
import re
import sys
import tempfile
import traceback
from dataclasses import dataclass, field

from errors import UserError


def _parameter(default, group, text, **limits):
    """A setting. Limits: `least`, `above`, `below` and `most` bound a number, or each one of a list, which must not be
    empty where it is `filled`; `choices` are the values allowed, or the keys of registries, "module:NAME+module:NAME".
    A list is of whole numbers, or of what `each` says.
    """
    return field(default=default, metadata={"group": group, "help": text} | limits)


@dataclass(frozen=True)
class Hyperparameters:
    """Every setting of a run: its default, its group in --help, what it does and what it may be."""

    model: str = _parameter(
        "DQMatch", "model", "the model; DQMatch is SparCode", choices="models:MODELS+baselines:BASELINES"
    )
    encoder: str = _parameter("LiGR", "model", "user encoder", choices="models.encoders:ENCODERS")
    encoder_shortcut: bool = _parameter(True, "model", "1: the DNN encoder adds the mean of the history to its output")
    tokeniser: str | None = _parameter(
        None,
        "model",
        "how tokens are made; none: windows, or whole for TwoTower and causal encoders",
        choices="models.tokenisers:TOKENISERS",
    )
    interaction: str = _parameter(
        "dot",
        "model",
        "scorer of token and item; of TwoTower one that is a product of two vectors",
        choices="retrieval.interactions:INTERACTIONS",
    )
    interaction_dot: bool = _parameter(True, "model", "1: a dot product stands beside the interaction")
    interaction_hidden: tuple = _parameter((16,), "model", "hidden layers of the interaction", least=1)
    interaction_layers: int = _parameter(2, "model", "cross layers of the CrossNet interaction", least=1)
    interaction_components: int = _parameter(4, "model", "components of a token in the MoL interaction", least=1)
    interaction_temperature: float = _parameter(0.05, "model", "of the cosines in cosine and MoL", above=0)
    embedding_size: int = _parameter(64, "model", "width of an item embedding", least=1)
    embedding_std: float = _parameter(0.1, "model", "standard deviation of the item embeddings at the start", least=0)
    token_embedding_size: int = _parameter(64, "model", "width of a token", least=1)
    hidden: tuple = _parameter(
        (256, 256, 256), "model", "hidden layers of the user encoder, as in 256,256,256", least=1
    )
    att_layer: int = _parameter(2, "model", "blocks of the LiGR and SASRec encoders", least=1)
    num_heads: int = _parameter(1, "model", "attention heads of the LiGR and SASRec encoders", least=1)
    dropout: float | None = _parameter(
        None,
        "model",
        "share of hidden activations zeroed in training; none: 0.1, or history_dropout for causal encoders",
        least=0,
        below=1,
    )
    history_dropout: float | None = _parameter(
        None,
        "model",
        "share of the pooled history zeroed in training; none: the more, the fewer interactions an item has",
        least=0,
        below=1,
    )
    K_u: int = _parameter(4, "model", "tokens per user", least=1)
    K_i: int = _parameter(4, "model", "tokens per item", least=1)
    score_bias: float | None = _parameter(
        None,
        "model",
        "score = sum of ReLU(s + bias); more negative is sparser; none: the plain sum",
        least=-1e6,
        below=1e6,
    )

    wide: bool | None = _parameter(
        None, "wide", "1: a wide item-to-item table beside the model; none: the model's own choice, 0 for TwoTower"
    )
    wide_lookups: int = _parameter(
        200, "wide", "most items of the history that are looked up in it; over 20 where order says little", least=1
    )
    wide_postings: int = _parameter(400, "wide", "most items in a row of the table", least=1)

    quantiser: str | None = _parameter(
        None,
        "quantiser",
        "kind; product is the paper's; none: pursuit, or residual with a score_bias or several codebooks",
        choices="models.vq:QUANTISERS",
    )
    error_feedback: bool = _parameter(True, "quantiser", "1: a token takes over what quantising those before it lost")
    rotation: bool = _parameter(
        True, "quantiser", "1: a codeword's gradient is turned into its token's (rotation trick); 0: straight through"
    )
    num_codebooks: int = _parameter(1, "quantiser", "codebooks; a token gets a codeword of each", least=1)
    K_c: int | None = _parameter(None, "quantiser", "codewords per codebook; none: 2048, or fewer", least=1)
    token_lookups: int | None = _parameter(
        None,
        "quantiser",
        "codes looked up, each for what those before it lost; none: of a user as few of 12, 16 and 24 by pursuit as "
        "lose nothing on validation users, else 4 of a token, or 1 where scores do not add up over tokens",
        least=1,
    )
    ema_decay: float = _parameter(
        0.97, "quantiser", "share of the old average kept when codewords follow their tokens", least=0, below=1
    )
    restart_below: float = _parameter(
        0.01, "quantiser", "a codeword below this share of its fair use restarts", least=0
    )
    beta: float = _parameter(
        1.0, "quantiser", "weight of the commitment loss, which is relative to the size of the tokens", least=0
    )

    loss: str = _parameter(
        "softmax",
        "training",
        "ranking loss; CCL is for --interaction cosine, temperature 1",
        choices="models.losses:LOSSES",
    )
    lr: float = _parameter(3e-3, "training", "learning rate of Adam in the first epoch", above=0)
    lr_decay: bool = _parameter(True, "training", "1: the learning rate falls linearly to 0 over the epochs")
    l2: float = _parameter(1e-6, "training", "weight of the squared norm of the history's item embeddings", least=0)
    batch_size: int | None = _parameter(
        None,
        "training",
        "rows per step, on average where their lengths differ much; none: 512 positions, or for causal encoders as "
        "many whole sequences as have 2,560, and fewer where an epoch would have fewer than 100 steps",
        least=2,
    )
    epoch: int | None = _parameter(
        None, "training", "epochs; none: 40, or what has 32,768 steps, but 5 at least", least=1
    )
    pretrain_epoch: int | None = _parameter(
        None,
        "training",
        "most epochs of the first phase, before the quantiser starts; none: half of epoch, for causal encoders all",
        least=0,
    )
    patience: int | None = _parameter(
        None,
        "training",
        "epochs without a better value of the monitor before a phase of training ends; none: no phase ends early",
        least=1,
    )
    monitor: str | None = _parameter(
        None,
        "training",
        "validation metric that chooses the best epoch; none: recall@K of the highest topk, or ndcg@K of few items",
    )
    positions_per_user: int | None = _parameter(
        None,
        "training",
        "target positions drawn per user and epoch; none: 20, or for causal encoders 60 or seq_len, whole sequences",
        least=1,
    )
    next_items: int | None = _parameter(
        None,
        "training",
        "a target is drawn from so many items that come next; none: as many as validation users are asked for, up to 4",
        least=1,
    )
    ccl_weight: float = _parameter(10.0, "training", "weight of the negatives in the CCL loss", above=0)
    ccl_margin: float = _parameter(0.2, "training", "cosine up to which CCL lets a negative be", least=-1, most=1)
    gbce_t: float = _parameter(
        0.75, "training", "calibration of the gBCE loss, from 0, plain BCE, to 1", least=0, most=1
    )
    negatives: str | None = _parameter(
        None,
        "training",
        "what a target is told from; own: popular, shared with no other; mixed: popular and in-batch; all: the full "
        "softmax; none: all of more than 4096 where an epoch scores 2^31 pairs at most so, and popular elsewhere",
        choices="data.negatives:NEGATIVES",
    )
    neg_num: int | None = _parameter(
        None,
        "training",
        "negatives drawn per batch and shared by its rows, or of each target; given alone, by popularity; none: 1024",
        least=1,
    )
    neg_power: float = _parameter(
        0.5, "training", "negatives are drawn by popularity to this power; 0: uniformly", least=0, below=64
    )
    seed: int = _parameter(0, "training", "of everything random in training", least=0, below=2**32)

    seq_len: int | None = _parameter(
        None,
        "data",
        "the last items of a history that the encoder reads; none: 20, for causal encoders what holds nine in ten "
        "histories whole, from 20 to 100",
        least=1,
    )
    dataset: str = _parameter("ml-1m", "data", "ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, sample, or a name for --source")
    split: str = _parameter("user", "data", "how users or their histories are cut", choices="data.split:SPLITS")
    split_seed: int = _parameter(0, "data", "of the shuffle that splits the users", least=0, below=2**32)
    user_features: tuple = _parameter(
        (), "data", "what the model reads of a user: columns of the data's users, as in gender,age", each=str
    )
    item_features: tuple = _parameter(
        (), "data", "what it reads of an item beside its id", each=str, choices="load_csv_dataset:ITEM_FEATURES"
    )

    index_codes: str = _parameter(
        "used", "index", "codes in the index: those that training histories use, or all", choices=("used", "all")
    )
    rerank: int = _parameter(
        0, "index", "so many of the best items of the index are put in order by scores without codes; 0: none", least=0
    )
    max_codes: int | None = _parameter(
        None,
        "index",
        "most codes in the index, those used most in training; others are scored on demand; none: no cap",
        least=1,
    )
    max_postings: int | None = _parameter(
        None, "index", "most items per posting list of a code; none: as index_loss allows", least=1
    )
    keep_share: float | None = _parameter(
        None, "index", "share of the (code, item) pairs kept; none: all that score", above=0, most=1
    )
    max_bytes: int | None = _parameter(None, "index", "most bytes of the index; none: no limit", least=1)
    index_format: str | None = _parameter(
        None, "index", "scores in the postings; none: as index_loss allows", choices=("float32", "uint16", "uint8")
    )
    index_loss: float | None = _parameter(
        0.005,
        "index",
        "largest relative loss on validation users for which lists are cut; none: they are not",
        least=0,
        below=1,
    )

    topk: tuple = _parameter((1, 5, 10, 20, 50), "evaluation", "cut-offs of the metrics", least=1, filled=True)
    exclude_seen: bool = _parameter(True, "evaluation", "whether items of the history are left out: 1 or 0")
    inference_batch_size: int | None = _parameter(
        None, "evaluation", "histories encoded at once; none: as many as have 16,384 items", least=1
    )


PRESETS = {  # what differs from the defaults above; flags override a preset
    "best": {},
    # The settings that the paper and the release state, without the release's defects (its README for epoch, batch and
    # lr; its command line for the rest). Negatives: 10, uniform; here a batch shares them.
    "paper": {
        "encoder": "DNN",
        "encoder_shortcut": False,
        "tokeniser": "heads",
        "interaction": "DNN",
        "interaction_dot": False,
        "interaction_hidden": (256, 256, 256),
        "history_dropout": 0.0,
        "quantiser": "product",
        "num_codebooks": 2,
        "K_c": 256,
        "error_feedback": False,
        "rotation": False,
        "token_lookups": 1,
        "ema_decay": 0.99,
        "beta": 1.0,
        "pretrain_epoch": 0,
        "lr": 1e-4,
        "lr_decay": False,
        "batch_size": 64,
        "epoch": 10,
        "negatives": "popular",
        "neg_num": 10,
        "neg_power": 0.0,
        "next_items": 1,
        "index_loss": None,
        "wide": False,
    },
}


@dataclass(frozen=True)
class Command:
    """What to do in this call; not part of a model."""

    mode: str = _parameter(
        "train",
        "run",
        "train, evaluate a checkpoint, show titles, or write what serves without MindSpore",
        choices=("train", "test", "recommend", "export"),
    )
    preset: str = _parameter("best", "run", "settings that flags then change", choices=tuple(PRESETS))
    name: str | None = _parameter(None, "run", "results go to runs/NAME; default: model, encoder, dataset and seed")
    checkpoint: str | None = _parameter(
        None, "run", "for every mode but train: a checkpoint, config.json beside it; recommend takes that of a baseline"
    )
    resume: bool = _parameter(False, "run", "1: go on with an interrupted run of this name")
    trained: str | None = _parameter(
        None,
        "run",
        "runs/NAME of a model that trained alike up to its quantiser: its first phase is taken over, not trained again",
    )
    source: str | None = _parameter(None, "run", "archive, folder or interactions file; without one, download")
    sort_rows: bool = _parameter(False, "run", "1: sort an interactions file by time instead of refusing it")
    item_file: str | None = _parameter(None, "run", "titles and categories for an interactions file")
    user_file: str | None = _parameter(None, "run", "user_id and more columns, for --user_features of such a file")
    users: int = _parameter(3, "run", "how many test users recommend shows", least=1)
    history: str | None = _parameter(
        None,
        "run",
        "whom to recommend to in place of test users: ids or titles, oldest first, as in 'ID|ID|Title' (what has a | "
        "is named by a part of its title); nothing else is known of this user",
    )
    experiment: str | None = _parameter(
        None,
        "run",
        "a table of results/ to make: every run of it that is missing is trained",
        choices="experiments:EXPERIMENTS",
    )
    seeds: tuple = _parameter((0,), "run", "of the experiment's runs", least=0, filled=True)
    quick: bool = _parameter(False, "run", "1: the experiment on the built-in sample, in minutes")
    device_target: str = _parameter("CPU", "run", "where MindSpore computes", choices=("CPU", "GPU", "Ascend"))
    index_device: str = _parameter(
        "cpu",
        "index",
        "where the index is built and answers the evaluation; gpu: by torch or CuPy",
        choices=("cpu", "gpu"),
    )


def main(arguments=None):
    """Runs one command; returns the exit status. Every failure is one sentence on standard error: 2 is one that a user
    can mend, 1 a fault of the program, whose traceback goes to a file."""
    os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings
    try:
        h, command, given = parse(arguments)
        if command.experiment is not None:
            import experiments

            flags = _without(sys.argv[1:] if arguments is None else arguments, ("experiment", "seeds", "quick"))
            experiments.run(command.experiment, command.seeds, command.quick, flags)
            return 0
        if command.mode != "train":
            from config import settings_of

            h = settings_of(command.checkpoint, h, given)
        import workflow

        workflow.run(h, command, given)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; {_going_on(sys.argv[1:] if arguments is None else arguments)}", file=sys.stderr)
        return 130
    except Exception as error:  # none of the failures above: without this, a traceback
        print(f"error: {_unforeseen(error)}", file=sys.stderr)
        return 1
    return 0


def _going_on(arguments):
    """How what was stopped goes on."""
    if any(flag.split("=")[0] == "--experiment" for flag in arguments):
        return "the same command goes on from what is finished, and from the last whole epoch of what is not"
    return "a training that had begun goes on from its last whole epoch with --resume 1"


def _unforeseen(error):
    """A sentence on an exception that nobody expected; its traceback goes to a file of its own."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    said = f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
    try:
        with tempfile.NamedTemporaryFile("w", prefix="sparcode-error-", suffix=".log", delete=False) as log:
            log.write("".join(traceback.format_exception(error)))
    except OSError as unwritten:
        return f"unforeseen {said}; its traceback could not be written: {unwritten}."
    return f"unforeseen {said}; {log.name} holds the traceback, please report it."


def parse(arguments=None):
    """Command line to (Hyperparameters, Command, names of the hyper-parameters that were given as flags).

    Raises:
        UserError: a value outside its range; an unknown flag or an unreadable value ends the program.
    """
    fields = {f.name: f for kind in (Command, Hyperparameters) for f in dataclasses.fields(kind)}
    asked_for_help = bool({"-h", "--help"} & set(sys.argv[1:] if arguments is None else arguments))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    groups = {}
    for f in fields.values():
        group = groups.setdefault(f.metadata["group"], parser.add_argument_group(f.metadata["group"]))
        text = f"{f.metadata['help']}; {_limits(f)}" if asked_for_help and _limits(f) else f.metadata["help"]
        group.add_argument(
            f"--{f.name}",
            type=_reader(f),
            default=argparse.SUPPRESS,
            metavar=f.name.upper(),
            help=f"{text} (default {_shown(f.default)})".replace("%", "%%"),
        )
    given = vars(parser.parse_args(arguments))
    command = Command(**{name: given.pop(name) for name in list(given) if hasattr(Command, name)})
    check_command(command)
    return check(Hyperparameters(**PRESETS[command.preset] | given)), command, set(given)


def _without(arguments, names):
    """The arguments of a command line without some flags and their values."""
    kept = iter(arguments)
    return [part for flag in kept for part in (flag, *_value(flag, kept)) if flag.split("=")[0][2:] not in names]


def _value(flag, rest):
    """The argument behind a flag, unless it is written as --flag=value."""
    return [] if "=" in flag else [value for value in [next(rest, None)] if value is not None]


def check(h):
    """The hyper-parameters, if they make sense one by one and together.

    Raises:
        UserError: a value outside its range, with the flag's name.
    """
    _check_fields(h)
    if None not in (h.epoch, h.pretrain_epoch) and h.pretrain_epoch > h.epoch:
        raise UserError(f"--pretrain_epoch {h.pretrain_epoch} is more than the epochs, {h.epoch}; raise --epoch.")
    if 0 < h.rerank < max(h.topk):
        raise UserError(
            f"--rerank {h.rerank} is less than the {max(h.topk)} items of --topk; raise it, or lower --topk."
        )
    return h


def check_command(command):
    """Nothing, if the command makes sense.

    Raises:
        UserError: a value outside its range, a missing checkpoint, a name that is no plain folder name.
    """
    _check_fields(command)
    if (command.mode == "train") == (command.checkpoint is not None):
        if command.checkpoint:
            raise UserError("--mode train has no use for --checkpoint; leave it out, or see --trained and --resume.")
        raise UserError(f"--mode {command.mode} needs --checkpoint, for example runs/NAME/best.ckpt.")
    for name in _unused(command):
        raise UserError(f"--{name} changes nothing here; leave it out, or see what it is for in --help.")
    if command.name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", command.name):
        raise UserError(f"--name is {command.name!r}; use letters, digits, '.', '_' and '-'.")


def _unused(command):
    """Names of what was asked for and would change nothing."""
    idle = () if command.mode == "train" else ("preset", "resume", "trained")
    idle += () if command.mode == "recommend" else ("users", "history")
    idle += ("name",) if command.mode in ("recommend", "export") else ()
    idle += () if command.experiment else ("seeds", "quick")
    return [name for name in idle if getattr(command, name) != getattr(Command, name)]


def _check_fields(settings):
    """Refuses what the metadata of a field rule out."""
    for f in dataclasses.fields(settings):
        value, limits = getattr(settings, f.name), f.metadata
        if value is None and "None" in str(f.type):
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        allowed = isinstance(value, _kind(f)) and (value or not limits.get("filled"))
        allowed = allowed and isinstance(value, bool) == (_kind(f) is bool)  # True is no number
        if "choices" in limits:
            allowed = set(numbers) <= set(_choices(f))
        elif allowed and any(name in limits for name in ("least", "above", "below", "most")):
            allowed = all(
                isinstance(number, int | float)
                and limits.get("least", -math.inf) <= number <= limits.get("most", 1e308)
                and limits.get("above", -math.inf) < number < limits.get("below", math.inf)
                for number in numbers
            )
        if not allowed:
            raise UserError(f"--{f.name} is {_shown(value)!r}; it must be {_limits(f) or _reader(f).__name__}.")


def _choices(f):
    """The values that a field may have: as given, or the keys of the registry that is named."""
    choices = f.metadata["choices"]
    if isinstance(choices, str):
        places = [place.split(":") for place in choices.split("+")]
        choices = tuple(
            name for module, registry in places for name in getattr(importlib.import_module(module), registry)
        )
    return choices


def _limits(f):
    """The limits of a field in words, "" without any."""
    limits = f.metadata
    if "choices" in limits:
        return f"{'some' if isinstance(f.default, tuple) else 'one'} of {', '.join(_choices(f))}"
    words = {"least": "at least", "above": "above", "below": "below", "most": "at most"}
    said = [f"{words[name]} {limits[name]:g}" for name in words if name in limits]
    each = "whole numbers, as in 1,5,10, each " if isinstance(f.default, tuple) else ""
    return each + " and ".join(said) if said else ""


def _shown(value):
    """A value as one writes it on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return "none" if value is None else int(value) if isinstance(value, bool) else value


def _kind(f):
    """The type of a field's values; a whole number may stand for a float."""
    names = {"float": (int, float), "int": int, "str": str, "bool": bool, "tuple": tuple}
    return names[str(getattr(f.type, "__name__", f.type)).removesuffix(" | None")]


def _reader(f):
    """The function that reads one flag's text."""
    kind, each = _kind(f), f.metadata.get("each", int)

    def read(text):
        if "None" in str(f.type) and text.lower() == "none":
            return None
        if kind is bool:
            return {"0": False, "1": True}[text]
        if kind is tuple:
            return tuple(each(part) for part in text.split(",") if part not in ("", "none"))
        return float(text) if kind == (int, float) else kind(text)

    def reader(text):
        try:
            return read(text)
        except (KeyError, ValueError, OverflowError):
            raise ValueError(text) from None

    a_list = "a list of whole numbers" if each is int else "a list of names"
    reader.__name__ = {bool: "0 or 1", tuple: a_list, int: "a whole number", str: "a text"}.get(kind, "a number")
    return reader


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # a log shows what is being done, not what was
    sys.exit(main())
