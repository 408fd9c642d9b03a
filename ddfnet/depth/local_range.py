"""Range of the valid depths around each sample."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

RADIUS = 2
"""Samples on each side in which every sample lies that an output is made of."""


def local_range(depth: Tensor, valid: Tensor, radius: int = RADIUS) -> tuple[Tensor, Tensor]:
    """Return the least and the largest valid depth around each sample; inf and -inf where none is.

    Args:
        depth: (N, C, h, w) or (C, h, w), floating.
        valid: bool, of that shape.
        radius: samples on each side.

    Example:
        >>> import torch
        >>> depth = torch.tensor([[[1.0, 2.0, 5.0, 9.0]]])
        >>> [values[0, 0].tolist() for values in local_range(depth, depth < 9, 1)]
        [[1.0, 1.0, 2.0, 5.0], [2.0, 5.0, 5.0, 5.0]]
    """
    window = (2 * radius + 1, 1, radius)
    high = F.max_pool2d(depth.masked_fill(~valid, -math.inf), *window)
    low = -F.max_pool2d((-depth).masked_fill(~valid, -math.inf), *window)
    return low, high
