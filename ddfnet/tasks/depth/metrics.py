"""Metrics of upsampled depth maps: errors relative to bilinear interpolation, and flying pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ddfnet.depth.alignment import aligned_bilinear
from ddfnet.depth.samples import reduce_known

# Shares of the squared range and of the range of the truth: least bilinear error that the network's is divided by, so
# that easy images do not count more than others.
_SQUARED_FLOOR, _ABSOLUTE_FLOOR = 1e-6, 1e-3


def every(maps: Tensor, factor: int) -> Tensor:
    """Take every ``factor``-th pixel of maps (N, C, H, W) from ``(factor - 1)//2`` on, as the ``pac`` protocol does."""
    first = (factor - 1) // 2
    return maps[..., first::factor, first::factor]


def take(maps: Tensor, valid: Tensor, factor: int, samples: str) -> tuple[Tensor, Tensor]:
    """Take the samples of maps (N, 1, H, W) in one of the ways of `ddfnet.depth.samples`, and say which are valid.

    Points are taken as `every` does. An average is that of the valid pixels of its block, of which at least half must
    be valid.
    """
    if samples == "point":
        return every(maps, factor), every(valid, factor)
    return reduce_known(maps, valid, factor, samples)


def bilinear(low: Tensor, valid: Tensor, factor: int, samples: str = "point") -> Tensor:
    """Upsample each map of a batch (N, 1, h, w) by `aligned_bilinear`; a map without a valid sample gives 0."""
    size = low.shape[-2] * factor, low.shape[-1] * factor
    first = (factor - 1) // 2 if samples == "point" else (factor - 1) / 2
    maps = [
        aligned_bilinear(own, size, valid=known, ratio=factor, offset=first) if known.any() else own.new_zeros(size)
        for own, known in zip(low[:, 0], valid[:, 0], strict=True)
    ]
    return torch.stack(maps)[:, None]


@dataclass(frozen=True)
class Errors:
    """Mean squared and absolute errors (N,), and those of bilinear interpolation plus a floor."""

    squared: Tensor
    absolute: Tensor
    floored_squared: Tensor
    floored_absolute: Tensor

    @staticmethod
    def measure(depth: Tensor, baseline: Tensor, truth: Tensor, valid: Tensor, known: Tensor | None = None) -> Errors:
        """Return the errors of maps (N, 1, H, W), over the pixels whose truth is valid and whose depth is known.

        An image without a valid pixel has error 0. One with valid pixels, of which none is known, has nan: no
        prediction must not score 0.
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
        """Return the RMSE of each image as a share of bilinear interpolation's, (N,)."""
        return (self.squared / self.floored_squared).sqrt()

    def loss(self, absolute_weight: float) -> Tensor:
        """Return the loss of `GuidedDepth` for each image, (N,)."""
        root = (self.squared / self.floored_squared + 1e-6).sqrt()
        return root + absolute_weight * self.absolute / self.floored_absolute


def sample_grid(
    batch: dict[str, Tensor], depth: Tensor, baseline: Tensor, factor: int, count: int, samples: str = "point"
) -> Tensor:
    """Draw scenes in rows, (3, H, W), from 0 to 1: guide, low-resolution depth, bilinear, prediction, truth."""
    rows = []
    lows, _ = take(batch["measured"][:count], batch["valid"][:count], factor, samples)
    for index in range(min(count, len(depth))):
        truth, valid = batch["depth"][index], batch["valid"][index]
        low = lows[index].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        known = truth[valid]
        floor, span = (known.min(), (known.max() - known.min()).clamp_min(1e-12)) if len(known) else (0.0, 1.0)
        maps = [((values - floor) / span).clamp(0, 1) for values in (low, baseline[index], depth[index], truth)]
        rows.append(torch.cat([batch["guide"][index] / 255, *(values.expand(3, -1, -1) for values in maps)], 2))
    return torch.cat(rows, 1).float().cpu()


# --- flying pixels --------------------------------------------------------------------------------------------------

WINDOW = 5  # pixels per side
GAP = 0.02  # share of the scene's true range: two neighbouring values that are further apart are two surfaces
MARGIN = 0.1  # share of the gap: a value that is nearer to a surface belongs to it


@dataclass(frozen=True)
class Flying:
    """Counts of an image: scored pixels, those near a depth edge, and those of them that fly."""

    pixels: int
    near_edges: int
    flying: int

    @property
    def share(self) -> float:
        """Share of the scored pixels that fly, 0 to 1."""
        return self.flying / self.pixels if self.pixels else 0.0

    @property
    def share_near_edges(self) -> float:
        """Share of the scored pixels near depth edges that fly, 0 to 1; 0 where there are none."""
        return self.flying / self.near_edges if self.near_edges else 0.0


class FlyingPixels:
    """Counter of flying pixels, values in the empty space between two surfaces, for all predictions of one scene.

    Where a map becomes a point cloud they are a veil between the surfaces.

    Sort the valid true values in a pixel's 5x5 window. Where two that follow each other are further apart than ``GAP``
    (2 %) of the scene's true range, they belong to two surfaces, and the pixel is *near a depth edge*. Its prediction p
    *flies* if it lies between two such values a < p < b, clear of both: p - a and b - p above ``MARGIN`` (10 %) of
    b - a. The truth at that pixel, itself in the window, is on one of the surfaces. A value outside the window's range,
    or on the wrong surface, is an error but does not fly; a slanted surface is no edge unless it is so steep that it
    jumps by a gap from pixel to pixel.

    Args:
        depth: true map (H, W), any unit.
        valid: (H, W), bool: whether it is known; other pixels are neither counted nor read.
        scored: (H, W), bool: pixels that are counted, where they are valid.

    Example:
        >>> truth = torch.ones(7, 8)
        >>> truth[:, 4:] = 2.0
        >>> blurred = truth.clone()
        >>> blurred[:, 3] = 1.5
        >>> everywhere = torch.ones(7, 8, dtype=torch.bool)
        >>> FlyingPixels(truth, everywhere, everywhere)(blurred)
        Flying(pixels=56, near_edges=28, flying=7)
    """

    def __init__(self, depth: Tensor, valid: Tensor, scored: Tensor) -> None:
        scored = scored & valid
        self.pixels = int(scored.sum())
        known = depth[valid]
        self.gap = GAP * (known.max() - known.min()).item() if known.numel() else 0.0
        low, high = (_window_maximum(torch.where(valid, sign * depth, -torch.inf)) for sign in (-1, 1))
        # A gap needs a range: most windows have none, and only the others are sorted.
        rows, columns = (scored & (low + high > self.gap)).nonzero(as_tuple=True)
        values = _windows(depth, rows, columns, torch.inf).masked_fill(
            ~_windows(valid, rows, columns, False), torch.inf
        )
        values = values.sort(dim=1).values
        steps = values.diff(dim=1)  # inf behind the last valid value, nan behind that
        edge = ((steps > self.gap) & steps.isfinite()).any(dim=1)
        self.rows, self.columns, self.values = rows[edge], columns[edge], values[edge]

    def __call__(self, prediction: Tensor) -> Flying:
        """Count the flying pixels of a prediction (H, W)."""
        value = prediction[self.rows, self.columns].to(self.values.dtype)[:, None]
        behind = torch.where(self.values <= value, self.values, -torch.inf).amax(dim=1)
        before = torch.where(self.values >= value, self.values, torch.inf).amin(dim=1)
        gap, value = before - behind, value[:, 0]
        flies = (gap > self.gap) & gap.isfinite() & (torch.minimum(value - behind, before - value) > MARGIN * gap)
        return Flying(self.pixels, len(self.rows), int(flies.sum()))


def _window_maximum(values: Tensor) -> Tensor:
    return functional.max_pool2d(values[None, None], WINDOW, stride=1, padding=WINDOW // 2)[0, 0]


def _windows(map: Tensor, rows: Tensor, columns: Tensor, outside: float | bool) -> Tensor:
    """Return the windows around some pixels, (n, WINDOW * WINDOW)."""
    padded = functional.pad(map, (WINDOW // 2,) * 4, value=outside)
    steps = torch.arange(WINDOW, device=map.device)
    return padded[rows[:, None, None] + steps[:, None], columns[:, None, None] + steps].flatten(1)
