"""The exponential moving average of the weights, which is what a run is judged by and what it leaves."""

from __future__ import annotations

import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class MovingAverage(WeightAveraging):
    """Lightning's weight averaging, exponential, with a decay that grows while there is little to average.

    .. math::
        a_t = a_{t-1} + (1 - k_t)(w_t - a_{t-1}), \\qquad k_t = \\min(decay, (1 + t) / (10 + t))

    where w are the weights after step t. Validation uses the average, and so does what is saved at the end; checkpoints
    hold both.

    Args:
        decay: the largest k, from 0 (no averaging) to below 1.
    """

    def __init__(self, decay: float = 0.998) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be from 0 to below 1, got {decay}")
        self.decay = decay
        super().__init__(use_buffers=False, multi_avg_fn=self._average)  # buffers are taken as they are

    def _average(self, averaged: list[Tensor], current: list[Tensor], steps: Tensor | int) -> None:
        step = int(steps)
        keep = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(averaged, current, 1 - keep)
