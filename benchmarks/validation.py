"""What validation costs beside training: `python -m benchmarks.validation [flags of work.py]`.

Trains with the settings of `python work.py`, two epochs unless --epoch says more, in a folder that is thrown away, and
prints what each epoch's training and validation take, on the clock and of the processors (which other programs on the
machine disturb less), and the metrics to the last digit. The first of each compiles.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import models
import work
import workflow
from benchmarks.trained import on_cpu
from defaults import settled
from runs import Data, cut_offs
from training import Trainer


def main(arguments: list[str]) -> None:
    with on_cpu(), tempfile.TemporaryDirectory() as folder:
        h, command, given = work.parse(["--epoch", "2", "--pretrain_epoch", "1", *arguments])
        data = Data(h, command.source, command.item_file, command.user_file, command.sort_rows)
        h = settled(cut_offs(h, data.catalogue.n_items, given), data)
        model = models.build(h, data.catalogue, data.features)
        validation, times, rows = workflow.Validation(model, data.valid, h), [now()], []

        def validate() -> dict:
            times.append(now())
            rows.append(validation())
            times.append(now())
            return rows[-1]

        trainer = Trainer(
            model, models.QuerySide(model, h.inference_batch_size), data.training, validate, h, Path(folder)
        )
        trainer.run()
    spent = np.diff(times, axis=0)  # (2 * epochs, 2): training and validation in turn
    for epoch, (training, validating) in enumerate(zip(spent[::2], spent[1::2], strict=True)):
        print(
            f"epoch {epoch + 1}: training {training[0]:.2f} s ({training[1]:.2f} s of processors), validation of "
            f"{len(validation.queries):,} users {validating[0]:.2f} s ({validating[1]:.2f}): "
            f"{validating[0] / training[0]:.1%} ({validating[1] / training[1]:.1%})"
        )
        print("  " + ", ".join(f"{name} {value!r}" for name, value in rows[epoch].items()))


def now() -> tuple[float, float]:
    """Seconds on the clock, and of the processors for this process."""
    return time.perf_counter(), time.process_time()


if __name__ == "__main__":
    main(sys.argv[1:])
