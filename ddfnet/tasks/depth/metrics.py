"""What guided upsampling is measured by in training: errors of each picture beside those of bilinear interpolation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddfnet.depth.alignment import aligned_bilinear

# Of the truth's range, or of its square: no picture is so easy that the bilinear error, by which the network's is
# divided, is smaller.
_SQUARED_FLOOR, _ABSOLUTE_FLOOR = 1e-6, 1e-3


def every(maps: Tensor, factor: int) -> Tensor:
    """Every ``factor``-th pixel of maps (N, C, H, W) from ``(factor - 1)//2`` on, as the ``pac`` protocol has it."""
    first = (factor - 1) // 2
    return maps[..., first::factor, first::factor]


def bilinear(low: Tensor, valid: Tensor, factor: int) -> Tensor:
    """`aligned_bilinear` of each map of a batch (N, 1, h, w); 0 where nothing at all is valid."""
    size = low.shape[-2] * factor, low.shape[-1] * factor
    first = (factor - 1) // 2
    maps = [
        aligned_bilinear(own, size, valid=known, ratio=factor, offset=first) if known.any() else own.new_zeros(size)
        for own, known in zip(low[:, 0], valid[:, 0], strict=True)
    ]
    return torch.stack(maps)[:, None]


@dataclass(frozen=True)
class Errors:
    """Mean squared and absolute errors (N,), and those of bilinear interpolation, with a floor added."""

    squared: Tensor
    absolute: Tensor
    floored_squared: Tensor
    floored_absolute: Tensor

    @staticmethod
    def of(depth: Tensor, baseline: Tensor, truth: Tensor, valid: Tensor, known: Tensor | None = None) -> Errors:
        """The errors of maps (N, 1, H, W), over the pixels whose truth is valid and whose depth is known.

        A picture of which nothing is valid has none. One that is valid, but known nowhere, has nan: to know nothing
        must not score 0.
        """
        scored = valid if known is None else valid & known
        some = valid.any(3).any(2).any(1)
        count = torch.where(some, scored.sum((1, 2, 3)), 1)

        def mean(values: Tensor) -> Tensor:
            return torch.where(scored, values, 0).sum((1, 2, 3)) / count

        high = torch.where(valid, truth, -torch.inf).amax((1, 2, 3))
        low = torch.where(valid, truth, torch.inf).amin((1, 2, 3))
        size = torch.maximum(high.abs(), low.abs())
        span = torch.maximum(high - low, 1e-3 * size)  # a constant map has no range, but rounding
        span = torch.where(torch.isfinite(span), span, 1).clamp_min(1e-12)
        own, other = depth - truth, baseline - truth
        return Errors(
            mean(own.square()),
            mean(own.abs()),
            mean(other.square()) + _SQUARED_FLOOR * span.square(),
            mean(other.abs()) + _ABSOLUTE_FLOOR * span,
        )

    def ratio(self) -> Tensor:
        """Root mean squared error of each picture as a share of bilinear interpolation's, (N,)."""
        return (self.squared / self.floored_squared).sqrt()

    def loss(self, absolute_weight: float) -> Tensor:
        """What `GuidedDepth` minimises, for each picture, (N,)."""
        root = (self.squared / self.floored_squared + 1e-6).sqrt()
        return root + absolute_weight * self.absolute / self.floored_absolute


def picture(batch: dict[str, Tensor], depth: Tensor, baseline: Tensor, factor: int, count: int) -> Tensor:
    """Scenes in rows: guide, low-resolution depth, bilinear, the network's, the truth; (3, H, W), from 0 to 1."""
    rows = []
    for index in range(min(count, len(depth))):
        truth, valid = batch["depth"][index], batch["valid"][index]
        low = every(batch["measured"][index], factor).repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        known = truth[valid]
        floor, span = (known.min(), (known.max() - known.min()).clamp_min(1e-12)) if len(known) else (0.0, 1.0)
        maps = [((values - floor) / span).clamp(0, 1) for values in (low, baseline[index], depth[index], truth)]
        rows.append(torch.cat([batch["guide"][index] / 255, *(values.expand(3, -1, -1) for values in maps)], 2))
    return torch.cat(rows, 1).float().cpu()
