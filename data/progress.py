"""Long work says how far it is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

QUIET = 1.0  # seconds of silence that a person does not mind
EVERY = 10.0  # seconds between two lines of a log


@contextmanager
def progress(
    what: str, total: int | None, unit: str, done: int = 0, first: float = QUIET, every: float = EVERY
) -> Iterator[Callable[..., None]]:
    """Gives a function to call with how much is done so far, and if need be a note on it; nothing is shown of work that
    takes under a second.

    Args:
        what: what is being done, such as "reading ratings.dat".
        total: when it is finished, in units; None if nobody knows.
        unit: "B" for bytes, " users", ...
        done: where it starts.
        first: seconds until a log has its first line.
        every: seconds until its next one.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, initial=done, unit=unit, unit_scale=True, desc=what, leave=False, delay=QUIET) as bar:

            def reached(done: int, note: str = "") -> None:
                bar.set_postfix_str(note, refresh=done == bar.n)  # what has moved is drawn by the update
                bar.update(done - bar.n)

            yield reached
    else:
        yield _Lines(what, total, unit, first, every)


class _Lines:
    """The same as lines that a log can keep."""

    def __init__(self, what: str, total: int | None, unit: str, first: float, every: float):
        self._what, self._total, self._unit, self._every = what, total, unit, every
        self._due = time.monotonic() + first

    def __call__(self, reached: int, note: str = "") -> None:
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every
        share = f" ({reached / self._total:.0%})" if self._total else ""
        count = tqdm.format_sizeof(reached) if reached >= 1000 else reached
        note = f", {note}" if note else ""
        print(f"{self._what}: {count}{self._unit}{share}{note}", file=sys.stderr, flush=True)
