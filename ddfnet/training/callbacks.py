"""Lightning callbacks of every run: weight averaging, checks for nan, step times and the history of resumptions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from ddfnet import files
from ddfnet.arguments import check_range
from ddfnet.training.fsdp import FullyShardedStrategy, full_tensors, local_tensor
from ddfnet.training.precision import at_least_float32


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, with a decay that grows during the first steps.

    .. math::
        a_t = a_{t-1} + (1 - k_t)(w_t - a_{t-1}), \\qquad k_t = \\min(decay, (1 + t) / (10 + t))

    with the weights w after step t. Validation uses the average, and so does the saved network; checkpoints hold both.
    The average of weights in half precision is in float32: in their own it would hardly move.

    Args:
        decay: the largest k, below 1; 0 means no averaging, and no second copy of the weights.
        buffers: average buffers too, above all the statistics of batch norms; otherwise they are copied.

    Raises:
        ValueError: the decay is out of range.
        MisconfigurationException: at the start of a run whose weights are sharded, but not by `FullyShardedStrategy`.
    """

    def __init__(self, decay: float = 0.998, buffers: bool = False) -> None:
        check_range("decay", decay, 0, 1, open_high=True)
        self.decay = decay
        self._exact: list[Tensor | None] = []
        super().__init__(use_buffers=buffers, multi_avg_fn=self._average)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if not self.decay:
            return
        if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy)):
            raise MisconfigurationException(
                "weights that are sharded over processes are not averaged; give --ema.decay 0"
            )
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            for averaged, current in self._pairs(pl_module):
                if averaged.is_floating_point():
                    averaged.data = at_least_float32(averaged.data)
                if averaged.dtype != current.dtype:  # torch groups pairs of one type alone
                    self._average_model.avg_fn, self._average_model.multi_avg_fn = self._average_one, None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if self.decay and isinstance(trainer.strategy, FullyShardedStrategy):
            assert self._average_model is not None
            trainer.strategy.shard(self._average_model.module)  # the copy was made before the weights were sharded

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return bool(self.decay) and super().should_update(step_idx, epoch_idx)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if self._average_model is not None:
            self._exact = [
                averaged.data.clone() if averaged.dtype != current.dtype else None
                for averaged, current in self._pairs(pl_module)
            ]
        super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        if self._average_model is not None:  # validation has rounded it to the type of the weights
            for exact, (averaged, _) in zip(self._exact, self._pairs(pl_module), strict=True):
                if exact is not None:
                    averaged.data = exact
            self._exact.clear()

    def _pairs(self, pl_module: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the parameters and buffers of the average, each with that of the network."""
        assert self._average_model is not None
        average = self._average_model.module
        yield from zip(average.parameters(), pl_module.parameters(), strict=True)
        yield from zip(average.buffers(), pl_module.buffers(), strict=True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.decay:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if self.decay:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)
            checkpoint["state_dict"] = full_tensors(checkpoint["state_dict"])

    def _average_one(self, averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        result = averaged.clone()
        self._average([result], [current], steps)
        return result

    def _average(self, averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        step = int(steps)
        keep = min(self.decay, (1 + step) / (10 + step))
        if averaged[0].is_floating_point():
            shards = [local_tensor(each) for each in averaged]
            weights = [local_tensor(each).to(own.dtype) for each, own in zip(current, shards, strict=True)]
            torch._foreach_lerp_(shards, weights, 1 - keep)
        else:  # counters, such as the batches that a batch norm has seen
            torch._foreach_copy_(averaged, current)


class AveragingOnResume(lightning.Callback):
    """Tells Lightning's StochasticWeightAveraging, if a run has it, of the epoch that a resumption begins in.

    Lightning itself does so at the start of an epoch alone: without it the learning rate would be another one until the
    next, and a checkpoint of the last step of an epoch would lose that epoch's average.
    """

    def __init__(self) -> None:
        self.untold: list[StochasticWeightAveraging] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.fit_loop.restarted_mid_epoch:
            self.untold = [each for each in trainer.callbacks if isinstance(each, StochasticWeightAveraging)]
        for each in self.untold:
            # It is set where the statistics of batch norms begin, and a checkpoint may be of their end.
            each._accumulate_grad_batches = trainer.accumulate_grad_batches

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *batch: Any) -> None:
        while self.untold:  # now: the loop has just reset its counters, which that hook changes
            self.untold.pop().on_train_epoch_start(trainer, pl_module)


class StopOnNonFinite(lightning.Callback):
    """Stops a run at a loss or weights that are nan or infinite, with a FloatingPointError that names the step.

    Such weights are never saved, so the last checkpoint is good.
    """

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any) -> None:
        if any(getattr(own, "save_weights_only", False) for own in trainer.checkpoint_callbacks):
            self._check_weights(trainer, pl_module)  # Lightning saves weights alone without on_save_checkpoint

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss of step {trainer.global_step} is {loss.item()}")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self._check_weights(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._check_weights(trainer, pl_module)

    def _check_weights(self, trainer: Any, pl_module: Any) -> None:
        finite = all(bool(torch.isfinite(local_tensor(weights)).all()) for weights in pl_module.parameters())
        if not trainer.strategy.reduce_boolean_decision(finite):  # the shards of all processes
            raise FloatingPointError(f"the weights are nan or inf after step {trainer.global_step}")


class StepTimer(lightning.Callback):
    """Logs ``step_seconds``: the time from the end of one step to the end of the next, without validation.

    A GPU works on after a step's end, so only the mean over several steps is a step's time. Lightning's
    ThroughputMonitor refuses batches without images, which occur where broken images are skipped.
    """

    def __init__(self) -> None:
        self.since, self.steps = 0.0, 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.since, self.steps = time.perf_counter(), trainer.global_step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *batch: Any) -> None:
        if trainer.global_step > self.steps:  # accumulated batches are no steps of their own
            now = time.perf_counter()
            pl_module.log("step_seconds", now - self.since)
            self.since, self.steps = now, trainer.global_step

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.since = time.perf_counter()


class ResumeHistory(lightning.Callback):
    """Records the steps, the seed and the time of each segment of a resumed run, in its checkpoints.

    Work after the checkpoint from which a run was resumed is lost, and not counted. The time of this segment starts
    when the callback is created.
    """

    def __init__(self) -> None:
        self.earlier: list[dict[str, Any]] = []
        self.first_step = 0
        self.start = time.perf_counter()

    def segments(self, trainer: lightning.Trainer) -> list[dict[str, Any]]:
        """Return ``first_step`` and ``last_step`` (steps taken before and after), seed and seconds of each segment."""
        own = {
            "first_step": self.first_step,
            "last_step": trainer.global_step,
            "seed": getattr(trainer.lightning_module, "seed", None),
            "seconds": round(time.perf_counter() - self.start, 1),
        }
        return [*self.earlier, own]

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["segments"] = self.segments(trainer)

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.earlier = checkpoint.get("segments", [])
        self.first_step = checkpoint["global_step"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, each written beside its place and moved there when it is complete.

    Lightning itself copies from the system's temporary folder, and a run that is killed meanwhile leaves half a
    checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        if "://" in str(path):  # an object store replaces whole objects
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_open(Path(path)) as stream:
            try:
                torch.save(checkpoint, stream)
            except RuntimeError as error:
                # torch closes its archive after the disk was full, and reports that second error.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
