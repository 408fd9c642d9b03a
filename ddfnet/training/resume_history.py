"""The legs of a run: what is broken off and gone on with was not made in one."""

from __future__ import annotations

import time
from typing import Any

import lightning


class Legs(lightning.Callback):
    """Keeps of each leg its steps, its seed and its time, in the run's checkpoints.

    What a leg did after the checkpoint that the next one went on from is lost, and is not counted. The time of this leg
    begins with this object.
    """

    def __init__(self) -> None:
        self.earlier: list[dict[str, Any]] = []
        self.first_step = 0
        self.begun = time.perf_counter()

    def so_far(self, trainer: lightning.Trainer) -> list[dict[str, Any]]:
        """Of each leg: ``first_step`` and ``last_step``, the steps taken before and after it, seed and seconds."""
        own = {
            "first_step": self.first_step,
            "last_step": trainer.global_step,
            "seed": trainer.lightning_module.seed,
            "seconds": round(time.perf_counter() - self.begun, 1),
        }
        return [*self.earlier, own]

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["legs"] = self.so_far(trainer)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.earlier = checkpoint.get("legs", [])
        self.first_step = checkpoint["global_step"]
