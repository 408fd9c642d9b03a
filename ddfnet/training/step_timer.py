"""How long steps take, in the logs."""

from __future__ import annotations

import time
from typing import Any

import lightning


class Pace(lightning.Callback):
    """Logs ``step_seconds``: from the end of the step before to that of this one, with reading, without validation.

    A GPU works on after a step's end; the mean over several steps says what one takes. Lightning's ThroughputMonitor
    refuses batches without pictures, which validation may have where broken ones are skipped.
    """

    def __init__(self) -> None:
        self.since, self.steps = 0.0, 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.since, self.steps = time.perf_counter(), trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any) -> None:
        if trainer.global_step > self.steps:  # and not one of the batches that are accumulated
            now = time.perf_counter()
            pl_module.log("step_seconds", now - self.since)
            self.since, self.steps = now, trainer.global_step

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.since = time.perf_counter()
