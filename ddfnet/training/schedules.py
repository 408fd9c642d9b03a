"""Learning-rate schedules of runs that are counted in steps."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Any

import torch

_FALL = 0.1  # at each milestone


def schedule_steps(optimizer: torch.optim.Optimizer, steps: int, warmup: int, milestones: Sequence[int] = ()) -> Any:
    r"""Return the optimizer and its learning-rate schedule, as ``configure_optimizers`` must.

    .. math::
        \eta_t = \eta \min\left(1, \frac{t + 1}{warmup}\right) \frac{1 + \cos(\pi t / T)}{2}

    Args:
        optimizer: with the peak learning rate.
        steps: T, the steps of the whole run.
        warmup: steps of the linear rise.
        milestones: steps at each of which the rate falls to a tenth, instead of along a cosine.
    """

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, warmup))
        if milestones:
            return warm * _FALL ** bisect.bisect_right(milestones, step)
        return warm * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / steps)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
