"""A run ends where its numbers do, and leaves the checkpoint before."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from ddfnet.training.fsdp import local


class Finite(lightning.Callback):
    """Raises FloatingPointError at a loss that is nan or infinite, naming the step, and where such weights are saved.

    Neither reaches a checkpoint then: the last one is good.
    """

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any) -> None:
        if any(getattr(own, "save_weights_only", False) for own in trainer.checkpoint_callbacks):
            self._require_numbers(trainer, pl_module)  # what has weights alone is saved without asking callbacks

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {trainer.global_step} is {loss.item()}")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._require_numbers(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._require_numbers(trainer, pl_module)

    def _require_numbers(self, trainer: Any, pl_module: Any) -> None:
        finite = all(bool(torch.isfinite(local(weights)).all()) for weights in pl_module.parameters())
        if not trainer.strategy.reduce_boolean_decision(finite):  # of all processes' shares
            raise FloatingPointError(f"the weights are nan or inf after step {trainer.global_step}")
