"""The exponential moving average of the weights, which is what a run is judged by and what it leaves."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ddfnet.training.fsdp import Sharded, local, whole


class MovingAverage(WeightAveraging):
    """Lightning's weight averaging, exponential, with a decay that grows while there is little to average.

    .. math::
        a_t = a_{t-1} + (1 - k_t)(w_t - a_{t-1}), \\qquad k_t = \\min(decay, (1 + t) / (10 + t))

    where w are the weights after step t. Validation uses the average, and so does what is saved at the end; checkpoints
    hold both.

    Args:
        decay: the largest k, below 1; 0 is no averaging, and no second copy of the weights.
        buffers: whether buffers are averaged too, above all the statistics of batch norms; else they are taken as they
            are.

    Raises:
        ValueError: a decay out of range.
        MisconfigurationException: when a run begins: weights that are sharded over processes, but not by `Sharded`.
    """

    def __init__(self, decay: float = 0.998, buffers: bool = False) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        self.decay = decay
        super().__init__(use_buffers=buffers, multi_avg_fn=self._average)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if not self.decay:
            return
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
            raise MisconfigurationException(
                "weights that are sharded over processes are not averaged; give --ema.decay 0"
            )
        super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.decay and isinstance(trainer.strategy, Sharded):
            assert self._average_model is not None
            trainer.strategy.shard(self._average_model.module)  # as the weights were, after the average was made

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return bool(self.decay) and super().should_update(step_idx, epoch_idx)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.decay:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.decay:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)
            checkpoint["state_dict"] = whole(checkpoint["state_dict"])

    def _average(self, averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        step = int(steps)
        keep = min(self.decay, (1 + step) / (10 + step))
        if averaged[0].is_floating_point():
            torch._foreach_lerp_([local(each) for each in averaged], [local(each) for each in current], 1 - keep)
        else:  # counters, such as how many batches a batch norm has seen
            torch._foreach_copy_(averaged, current)
