"""`GuidedUpsampler` over maps of any size and ratio: its grid on the guide, tiles, and several passes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.depth.alignment import AxisAlignment
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.depth.progress import track

_RADIUS = 2  # samples: every sample that an output is made of lies this near to the one nearest to the output
_POOLED = 128  # samples per side whose features are summed at once: the same for any tile, and so is the sum
_ROWS = 64  # rows of the guide that are held to their range at once


class UpsampleGrid(NamedTuple):
    """One axis of the network's grid: ``factor`` pixels per sample, which lies on the pixel ``first`` of its block."""

    axis: AxisAlignment
    factor: int

    @property
    def first(self) -> int:
        return (self.factor - 1) // 2

    @property
    def offset(self) -> float:
        """Pixel of the guide on which sample 0 lies: a whole one where the two grids have the same step.

        Half a pixel of displacement is less than what interpolating the guide would blur.
        """
        if self.axis.ratio == self.factor:
            return self.first + math.ceil(self.axis.offset - self.first - 0.5)
        return self.axis.offset

    def guide_positions(self, start: int, stop: int) -> Tensor:
        """Return the positions of the grid's pixels from start to stop, in pixels of the guide."""
        steps = torch.arange(start, stop, dtype=torch.float64) - self.first
        return (self.offset + steps * (self.axis.ratio / self.factor)).clamp(0, self.axis.pixels - 1)

    def nearest(self) -> Tensor:
        """Return the grid's pixel nearest to each of the guide's.

        Interpolating between pixels instead would put points between the two sides of an edge.
        """
        steps = torch.arange(self.axis.pixels, dtype=torch.float64) - self.offset
        pixels = (steps * (self.factor / self.axis.ratio) - 1e-9).round().long() + self.first
        return pixels.clamp(0, self.axis.samples * self.factor - 1)


def upsample_tiled(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    ensemble: bool,
) -> tuple[Tensor, Tensor]:
    """Return the upsampled depth (H, W), float64, and its validity, held to the range of the samples nearby.

    With ``ensemble`` the results for the maps and for the maps transposed are averaged. Mirrored maps are not used, for
    a mirrored sample does not lie where the network expects it in its block.

    A network that carries the depth by 3x3 filters leaves that range by a last digit at most; others are held to it.

    Args:
        depth: (h, w), float64, 0 where it is not valid.
        valid: (h, w), bool, somewhere true.
        guide: (H, W, 3), uint8.
        axes: y and x.
        network: in evaluation mode, in float32, on depth's device.
        tile: pixels of the guide per side that are worked on at once.
    """
    lowest = depth[valid].min()  # subtracted, for far from 0 each view would be rounded
    relative = torch.where(valid, depth - lowest, 0)
    result, reached = _upsample_recursive(relative, valid, guide, axes, network, tile)
    if ensemble:
        other, other_reached = _upsample_recursive(
            relative.T, valid.T, guide.transpose(0, 1), axes[::-1], network, tile
        )
        result += (other.T - result) / 2  # their sum could overflow
        reached &= other_reached.T
    result += lowest
    low, high = _local_range(depth, valid)
    rows, columns = (axis.nearest_sample(depth.device) for axis in axes)
    for part in tile_slices(len(rows), _ROWS):
        below, above = (bound[rows[part]][:, columns] for bound in (low, high))
        result[part] = torch.minimum(torch.maximum(result[part], below), above)
        reached[part] &= below <= above
    return result, reached


def _upsample_recursive(
    depth: Tensor, valid: Tensor, guide: Tensor, axes: Sequence[AxisAlignment], network: GuidedUpsampler, tile: int
) -> tuple[Tensor, Tensor]:
    """Upsample in as many passes as it takes where the ratio is above the network's factor."""
    ratio = max(axis.ratio for axis in axes)
    factor = min(2 ** max(1, math.ceil(math.log2(ratio) - 1e-9)), network.scale_factor)
    grids = [UpsampleGrid(axis, factor) for axis in axes]
    if ratio <= factor:
        return _run_tiles(depth, valid, guide, grids, [grid.nearest() for grid in grids], network, tile)
    wanted = [torch.arange(axis.samples * factor) for axis in axes]
    depth, valid = _run_tiles(depth, valid, guide, grids, wanted, network, tile)
    finer = [
        AxisAlignment(len(pixels), grid.axis.pixels, step, grid.offset - grid.first * step)
        for pixels, grid in zip(wanted, grids, strict=True)
        for step in [grid.axis.ratio / factor]
    ]
    return _upsample_recursive(depth, valid, guide, finer, network, tile)


def _run_tiles(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    grids: list[UpsampleGrid],
    wanted: list[Tensor],
    network: GuidedUpsampler,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Return the network's output at the wanted rows and columns of its grid, computed one tile at a time.

    Each tile is given as many samples around it as can change its outputs. Two things depend on the whole map, the
    range of the depth and the mean of its features, and are found first.
    """
    factor, device = grids[0].factor, depth.device
    lowest, highest = depth[valid].min(), depth[valid].max()
    span = (highest - lowest) if highest > lowest else torch.ones_like(lowest)
    scaled = torch.where(valid, (depth - lowest) / span, 0).float()[None, None]
    mask = valid.float()[None, None]
    context = _context(scaled, mask, network)

    # In pixels of the network, which are finer than the guide's where the ratio is below the factor.
    step = max(1, tile // factor)
    result = torch.empty(len(wanted[0]), len(wanted[1]), dtype=torch.float64, device=device)
    reached = torch.empty(result.shape, dtype=torch.bool, device=device)
    for inner in track([*itertools.product(*(tile_slices(size, step) for size in valid.shape))]):
        outer = [pad_slice(own, network.receptive_radius, size) for own, size in zip(inner, valid.shape, strict=True)]
        # The wanted pixels among those of this tile; they ascend.
        parts = [
            slice(*torch.searchsorted(pixels, torch.tensor([own.start * factor, own.stop * factor])).tolist())
            for pixels, own in zip(wanted, inner, strict=True)
        ]
        rows, columns = (
            (pixels[part] - padded.start * factor).to(device)
            for pixels, part, padded in zip(wanted, parts, outer, strict=True)
        )
        positions = [
            grid.guide_positions(padded.start * factor, padded.stop * factor)
            for grid, padded in zip(grids, outer, strict=True)
        ]
        maps = scaled[..., outer[0], outer[1]], mask[..., outer[0], outer[1]]
        *_, level = network.scaled_levels(*maps, _sample_guide(guide, *positions), context, factor)
        result[parts[0], parts[1]] = level.depth[0, 0][rows][:, columns].double() * span + lowest
        reached[parts[0], parts[1]] = level.valid[0, 0][rows][:, columns]
    return result, reached


def _context(scaled: Tensor, mask: Tensor, network: GuidedUpsampler) -> Tensor:
    """Return `GuidedUpsampler.context` of a map of any size: the mean of its features, (1, C, 1, 1)."""
    height, width = mask.shape[2:]
    total = torch.zeros((), dtype=torch.float64)
    for inner in itertools.product(tile_slices(height, _POOLED), tile_slices(width, _POOLED)):
        outer = [
            pad_slice(own, network.target_receptive_radius, size)
            for own, size in zip(inner, (height, width), strict=True)
        ]
        features = network.features(scaled[..., outer[0], outer[1]], mask[..., outer[0], outer[1]])
        rows, columns = (relative_slice(own, padded) for own, padded in zip(inner, outer, strict=True))
        total = total + features[..., rows, columns].sum((2, 3), keepdim=True, dtype=torch.float64)
    return (total / mask.numel()).float()


def _local_range(depth: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest valid sample of the 5x5 around each."""
    window = (2 * _RADIUS + 1, 1, _RADIUS)
    high = F.max_pool2d(depth[None].masked_fill(~valid, -math.inf), *window)
    low = -F.max_pool2d((-depth[None]).masked_fill(~valid, -math.inf), *window)
    return low[0], high[0]


def tile_slices(size: int, step: int) -> list[slice]:
    """Return slices of ``step`` that cover an axis of this size.

    Example:
        >>> tile_slices(5, 3)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def pad_slice(inner: slice, by: int, size: int) -> slice:
    """Return a slice that is wider at both ends, as far as the axis goes."""
    return slice(max(inner.start - by, 0), min(inner.stop + by, size))


def relative_slice(inner: slice, outer: slice) -> slice:
    """Return the inner slice in what the outer one cuts out."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def _sample_guide(guide: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the guide at these positions, bilinearly: (1, 3, rows, columns), float32, from 0 to 1."""
    image = guide
    for dimension, positions in enumerate((rows, columns)):
        first, last = int(positions[0]), math.ceil(positions[-1])
        image = image.narrow(dimension, first, last + 1 - first)
        low = positions.floor().long()
        share = (positions - low).float().to(guide.device).reshape([-1, 1, 1] if dimension == 0 else [1, -1, 1])
        low = (low - first).to(guide.device)
        below = image.index_select(dimension, low)
        if share.any():
            above = image.index_select(dimension, (low + 1).clamp(max=last - first))
            below = below + share * (above.float() - below)
        image = below
    return (image / 255).permute(2, 0, 1)[None]
