"""Train a candidate-matching model, build its sparse inverted index and evaluate through it: `python work.py`.

The hyper-parameters stand in `Hyperparameters`; edit them there or give them as flags (`python work.py --help`).
"""

import argparse
import dataclasses
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path


def _parameter(default, group, text):
    return field(default=default, metadata={"group": group, "help": text})


@dataclass(frozen=True)
class Hyperparameters:
    """Every setting of a run: its default, its group in --help and what it does."""

    model: str = _parameter("DQMatch", "model", "TwoTower, AllToAll or DQMatch (SparCode)")
    encoder: str = _parameter("DNN", "model", "user encoder: DNN")
    interaction: str = _parameter("DNN", "model", "token x item formula of AllToAll and DQMatch: dot, bilinear or DNN")
    embedding_size: int = _parameter(64, "model", "width of an item embedding")
    embedding_std: float = _parameter(0.1, "model", "standard deviation of the item embeddings at the start")
    token_embedding_size: int = _parameter(64, "model", "width of a token")
    hidden: tuple = _parameter((256, 256, 256), "model", "hidden layers of the user encoder, as in 256,256,256")
    interaction_hidden: tuple = _parameter((16,), "model", "hidden layers of the interaction, beside its dot product")
    interaction_dot: bool = _parameter(True, "model", "whether a dot product stands beside the interaction: 1 or 0")
    dropout: float = _parameter(0.1, "model", "share of hidden activations zeroed in training")
    history_dropout: float = _parameter(0.2, "model", "share of the pooled history zeroed in training")
    K_u: int = _parameter(4, "model", "tokens per user, each of a segment of the history")
    K_i: int = _parameter(4, "model", "tokens per item")
    score_bias: float | None = _parameter(
        None, "model", "score = sum of ReLU(s + bias); more negative is sparser; none: the plain sum"
    )

    quantiser: str = _parameter("residual", "quantiser", "residual, or product (the paper's, less accurate here)")
    num_codebooks: int = _parameter(2, "quantiser", "codebooks; a token gets a codeword of each")
    K_c: int = _parameter(256, "quantiser", "codewords per codebook")
    ema_decay: float = _parameter(0.97, "quantiser", "share of the old average kept when codewords follow their tokens")
    restart_below: float = _parameter(0.01, "quantiser", "a codeword below this share of its fair use restarts")
    beta: float = _parameter(10.0, "quantiser", "weight of the commitment loss")
    pretrain_epoch: int | None = _parameter(
        None, "quantiser", "epochs without the quantiser, before its k-means start; none: three quarters of epoch"
    )

    lr: float = _parameter(3e-3, "training", "learning rate of Adam in the first epoch; it falls linearly to 0")
    l2: float = _parameter(1e-6, "training", "weight of the squared norm of the history's item embeddings")
    batch_size: int = _parameter(512, "training", "positions per step")
    epoch: int = _parameter(40, "training", "epochs")
    patience: int = _parameter(15, "training", "epochs without a better value of the monitor before training stops")
    monitor: str = _parameter("recall@50", "training", "validation metric that chooses the best epoch")
    positions_per_user: int = _parameter(20, "training", "target positions drawn per user and epoch")
    neg_num: int = _parameter(256, "training", "negatives drawn per batch and shared by its rows")
    neg_power: float = _parameter(0.5, "training", "negatives are drawn by popularity to this power; 0: uniformly")
    seed: int = _parameter(0, "training", "of everything random in training")

    seq_len: int = _parameter(20, "data", "the last items of a history that the encoder reads")
    dataset: str = _parameter("ml-1m", "data", "ml-1m, ml-10m, sample, or a name for --source")
    split: str = _parameter("user", "data", "user (80/10/10 of the users) or leave-one-out")
    split_seed: int = _parameter(0, "data", "of the shuffle that splits the users")

    index_codes: str = _parameter("used", "index", "codes in the index: used (by training histories) or all")
    max_codes: int | None = _parameter(
        None, "index", "most codes in the index, those used most in training; others are scored on demand; none: no cap"
    )
    max_postings: int | None = _parameter(1200, "index", "most items per posting list; none: no cap")
    keep_share: float | None = _parameter(None, "index", "share of the (code, item) pairs kept; none: all that score")
    max_bytes: int | None = _parameter(None, "index", "most bytes of the index; none: no limit")
    index_format: str = _parameter("float32", "index", "scores in the postings: float32, uint16 or uint8")

    topk: tuple = _parameter((1, 5, 10, 20, 50), "evaluation", "cut-offs of the metrics")
    exclude_seen: bool = _parameter(True, "evaluation", "whether items of the history are left out: 1 or 0")
    inference_batch_size: int = _parameter(8192, "evaluation", "histories encoded at once")


@dataclass(frozen=True)
class Command:
    """What to do in this call; not part of a model."""

    mode: str = _parameter(
        "train", "run", "train, test (evaluate a checkpoint), recommend (show titles) or export (query.onnx)"
    )
    name: str | None = _parameter(None, "run", "results go to runs/NAME; default: model, encoder, dataset and seed")
    checkpoint: str | None = _parameter(None, "run", "for every mode but train: a checkpoint, config.json beside it")
    resume: bool = _parameter(False, "run", "1: go on with an interrupted run of this name")
    source: str | None = _parameter(None, "run", "archive, folder or interactions file; without one, download")
    sort_rows: bool = _parameter(False, "run", "1: sort an interactions file by time instead of refusing it")
    item_file: str | None = _parameter(None, "run", "titles and categories for an interactions file")
    users: int = _parameter(3, "run", "how many test users recommend shows")
    device_target: str = _parameter("CPU", "run", "where MindSpore computes: CPU, GPU or Ascend")
    index_device: str = _parameter(
        "cpu", "index", "where the index is built and answers the evaluation: cpu, or gpu by torch or CuPy"
    )


def main(arguments=None):
    """Runs one command; returns the exit status. Every failure a user can mend is one sentence on standard error."""
    from errors import UserError

    try:
        h, command, given = parse(arguments)
        if command.mode != "train":
            h = settings_of(command.checkpoint, h, given)
        os.environ.setdefault("GLOG_v", "3")  # MindSpore's own warnings
        import workflow

        workflow.run(h, command)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; a training run goes on from its last whole epoch with --resume 1", file=sys.stderr)
        return 130
    return 0


def parse(arguments=None):
    """Command line to (Hyperparameters, Command, names of the flags that were given)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    fields = [*dataclasses.fields(Command), *dataclasses.fields(Hyperparameters)]
    groups = {}
    for f in fields:
        group = groups.setdefault(f.metadata["group"], parser.add_argument_group(f.metadata["group"]))
        default = ",".join(map(str, f.default)) if isinstance(f.default, tuple) else f.default
        shown = "none" if default is None else int(default) if isinstance(default, bool) else default
        group.add_argument(
            f"--{f.name}",
            type=_reader(f),
            default=argparse.SUPPRESS,
            metavar=f.name.upper(),
            help=f"{f.metadata['help']} (default {shown})",
        )
    given = vars(parser.parse_args(arguments))
    command = {f.name: given[f.name] for f in dataclasses.fields(Command) if f.name in given}
    chosen = {name: value for name, value in given.items() if name not in command}
    return check(Hyperparameters(**chosen)), check_command(Command(**command)), set(chosen)


def check(h):
    """The hyper-parameters, if they make sense one by one, with pretrain_epoch filled in.

    Raises:
        UserError: a value outside its range, with the flag's name.
    """
    from errors import UserError

    if h.pretrain_epoch is None:
        h = dataclasses.replace(h, pretrain_epoch=3 * h.epoch // 4)
    ones = (
        "embedding_size token_embedding_size K_u K_i num_codebooks K_c epoch patience positions_per_user neg_num "
        "seq_len inference_batch_size"
    )
    zeros = "pretrain_epoch seed split_seed l2 beta neg_power restart_below embedding_std"
    at_least = dict.fromkeys(ones.split(), 1) | dict.fromkeys(zeros.split(), 0) | {"batch_size": 2, "lr": 1e-12}
    for name, least in at_least.items():
        if not least <= getattr(h, name) < float("inf"):
            raise UserError(f"--{name} is {getattr(h, name)}; it must be at least {least}.")
    for name in ("dropout", "history_dropout", "ema_decay"):
        if not 0 <= getattr(h, name) < 1:
            raise UserError(f"--{name} is {getattr(h, name)}; it must be at least 0 and below 1.")
    if not h.topk or min(h.topk) < 1 or any(width < 1 for width in (*h.hidden, *h.interaction_hidden)):
        raise UserError("--topk, --hidden and --interaction_hidden take whole numbers from 1 on, as in 1,5,10.")
    if h.score_bias is not None and not abs(h.score_bias) < float("inf"):
        raise UserError(f"--score_bias is {h.score_bias}; it must be a finite number or none.")
    for name in ("max_codes", "max_postings"):
        if getattr(h, name) is not None and getattr(h, name) < 1:
            raise UserError(f"--{name} is {getattr(h, name)}; it must be at least 1, or none.")
    if h.keep_share is not None and not 0 < h.keep_share <= 1:
        raise UserError(f"--keep_share is {h.keep_share}; it must be above 0 and at most 1, or none.")
    for name, known in (("index_codes", ("used", "all")), ("index_format", ("float32", "uint16", "uint8"))):
        if getattr(h, name) not in known:
            raise UserError(f"--{name} is {getattr(h, name)!r}; choose one of {', '.join(known)}.")
    if h.model == "DQMatch" and h.pretrain_epoch >= h.epoch:
        raise UserError(f"--pretrain_epoch {h.pretrain_epoch} leaves the quantiser no epoch; raise --epoch above it.")
    return h


def check_command(command):
    """The command, if it makes sense.

    Raises:
        UserError: an unknown mode or device, a missing checkpoint, a name that is no plain folder name.
    """
    from errors import UserError

    if command.mode not in ("train", "test", "recommend", "export"):
        raise UserError(f"--mode is {command.mode!r}; choose one of train, test, recommend, export.")
    if (command.mode == "train") == (command.checkpoint is not None):
        wrong = "has no use for" if command.checkpoint else "needs"
        raise UserError(f"--mode {command.mode} {wrong} --checkpoint, for example runs/NAME/best.ckpt.")
    if command.name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", command.name):
        raise UserError(f"--name is {command.name!r}; use letters, digits, '.', '_' and '-'.")
    if command.users < 1:
        raise UserError(f"--users is {command.users}; it must be at least 1.")
    for name, known in (("device_target", ("CPU", "GPU", "Ascend")), ("index_device", ("cpu", "gpu"))):
        if getattr(command, name) not in known:
            raise UserError(f"--{name} is {getattr(command, name)!r}; choose one of {', '.join(known)}.")
    return command


def settings_of(checkpoint, h, given):
    """Hyper-parameters a checkpoint was trained with; only flags about index and evaluation are taken from this call.

    Raises:
        UserError: another flag was given, or config.json is missing, unreadable or of another version.
    """
    from errors import UserError

    free = {f.name for f in dataclasses.fields(Hyperparameters) if f.metadata["group"] in ("index", "evaluation")}
    for name in sorted(given - free):
        raise UserError(f"--{name} cannot change a trained model; leave it out, its value is in config.json.")
    path = Path(checkpoint).parent / "config.json"
    try:
        stored = json.loads(path.read_text())["hyperparameters"]
        names = {f.name for f in dataclasses.fields(Hyperparameters)}
        if set(stored) != names:
            raise UserError(f"{path} has other settings than this version: {', '.join(sorted(set(stored) ^ names))}.")
        stored = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
        return check(Hyperparameters(**stored | {name: getattr(h, name) for name in given}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); it must stand beside the checkpoint.") from error


def _reader(f):
    """The function that reads one flag's text."""
    optional = "None" in str(f.type)
    kind = {"float | None": float, "int | None": int, "str | None": str}.get(str(f.type)) or type(f.default)

    def read(text):
        if optional and text.lower() == "none":
            return None
        if kind is bool:
            if text not in ("0", "1"):
                raise ValueError(text)
            return text == "1"
        if kind is tuple:
            return tuple(int(part) for part in text.split(",") if part)
        return kind(text)

    read.__name__ = {bool: "0 or 1", tuple: "list of whole numbers"}.get(kind, kind.__name__)
    return read


if __name__ == "__main__":
    sys.exit(main())
