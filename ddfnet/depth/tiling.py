"""`GuidedUpsampler` over maps of any size and ratio: its grid on the guide, tiles, and several passes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.depth.alignment import AxisAlignment
from ddfnet.depth.grid import Reading, UpsampleGrid, grid_factor, pick, read, read_by_colour, sample_guide
from ddfnet.depth.network import GuidedUpsampler, typical_range
from ddfnet.depth.planes import Planes
from ddfnet.depth.progress import track

_RADIUS = 2  # samples: every sample that an output is made of lies this near to the one nearest to the output
_POOLED = 128  # samples per side whose features are summed at once: the same for any tile, and so is the sum
_LARGEST = 1e30  # scaled depth: sums of such, and of their slopes, stay in float32
_ROWS = 64  # rows of the guide that are held to their range at once


def upsample_tiled(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    ensemble: bool,
    outline: bool,
) -> tuple[Tensor, Tensor]:
    """Return the upsampled depth (H, W), float64, and its validity, held to the range of the samples nearby.

    A pixel is valid where a valid sample is near, within two of its own. With ``outline`` the validity is upsampled as
    a depth map of ones and zeros is, so that its outline follows the guide: a pixel is valid where the result is at
    least a half. Where all samples of the 5x5 are valid it is 1, and where none is, 0.

    With ``ensemble`` the results for the maps and for the maps transposed are averaged. Mirrored maps are not used, for
    a mirrored sample does not lie where the network expects it in its block. Where a sample lies between two pixels of
    the guide, each of the two has it on another one.

    Args:
        depth: (h, w), float64, 0 where it is not valid.
        valid: (h, w), bool, somewhere true.
        guide: (H, W, 3), uint8.
        axes: y and x.
        network: in evaluation mode, in float32, on depth's device.
        tile: pixels of the guide per side that are worked on at once.
        ensemble: average two views.
        outline: upsample the validity too.
    """
    lowest = depth[valid].min()  # subtracted, for far from 0 each view would be rounded
    relative = torch.where(valid, depth - lowest, 0)
    result, reached = _upsample_views(relative, valid, guide, axes, network, tile, ensemble=ensemble)
    if outline and not valid.all():
        everywhere = torch.ones_like(valid)
        share, _ = _upsample_views(valid.double(), everywhere, guide, axes, network, tile, ensemble=ensemble)
        reached &= share >= 0.5
    result += lowest
    return result, reached


def _upsample_views(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    ensemble: bool,
) -> tuple[Tensor, Tensor]:
    """Upsample the map, and with ``ensemble`` the map transposed, and hold the average to the range nearby.

    The range is needed where a network does not carry the depth by 3x3 filters, and for planes, which would go on
    beyond the outermost samples.
    """
    result, reached = _upsample_recursive(depth, valid, guide, axes, network, tile, up=False)
    if ensemble:
        other, other_reached = _upsample_recursive(
            depth.T, valid.T, guide.transpose(0, 1), axes[::-1], network, tile, up=True
        )
        result += (other.T - result) / 2  # their sum could overflow
        reached &= other_reached.T
    low, high = _local_range(depth, valid)
    rows, columns = (axis.nearest_sample(depth.device) for axis in axes)
    for part in tile_slices(len(rows), _ROWS):
        below, above = (bound[rows[part]][:, columns] for bound in (low, high))
        result[part] = torch.minimum(torch.maximum(result[part], below), above)
        reached[part] &= below <= above
    return result, reached


def _upsample_recursive(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    up: bool,
) -> tuple[Tensor, Tensor]:
    """Upsample in as many passes as it takes where the ratio is above the network's factor."""
    factor, last = grid_factor(max(axis.ratio for axis in axes), network.scale_factor)
    grids = [UpsampleGrid(axis, factor, up) for axis in axes]
    if last:
        wanted = [grid.guide_pixels() for grid in grids]
        colourwise = any(axis.ratio != factor for axis in axes)
        return _run_tiles(depth, valid, guide, grids, wanted, network, tile, colourwise=colourwise)
    depth, valid = _run_tiles(depth, valid, guide, grids, [grid.every_pixel() for grid in grids], network, tile)
    finer = [
        AxisAlignment(size, grid.axis.pixels, step, grid.offset - grid.first * step)
        for size, grid in zip(depth.shape, grids, strict=True)
        for step in [grid.axis.ratio / factor]
    ]
    return _upsample_recursive(depth, valid, guide, finer, network, tile, up=up)


def _run_tiles(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    grids: list[UpsampleGrid],
    wanted: list[Reading],
    network: GuidedUpsampler,
    tile: int,
    *,
    colourwise: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the network's output at the wanted rows and columns of its grid, computed one tile at a time.

    With ``colourwise`` these are the guide's, which lie between the grid's, and the most alike of those around is read.

    Each tile is given as many samples around it as can change its outputs. Two things depend on the whole map, the
    range of the depth and the mean of its features, and are found first.
    """
    factor, device = grids[0].factor, depth.device
    lowest, span = (each[0] for each in typical_range(depth[None], valid[None]))
    # Sentinels that were not marked can be beyond float32.
    scaled = torch.where(valid, (depth - lowest) / span, 0).clamp(-_LARGEST, _LARGEST).float()[None, None]
    mask = valid.float()[None, None]
    context = _context(scaled, mask, network)

    # In pixels of the network, which are finer than the guide's where the ratio is below the factor.
    step = max(1, tile // factor)
    result = torch.empty([len(each.pixels) for each in wanted], dtype=torch.float64, device=device)
    reached = torch.empty(result.shape, dtype=torch.bool, device=device)
    for inner in track([*itertools.product(*(tile_slices(size, step) for size in valid.shape))]):
        outer = [pad_slice(own, network.receptive_radius, size) for own, size in zip(inner, valid.shape, strict=True)]
        # The wanted pixels among those of this tile; they ascend.
        parts = [
            slice(*torch.searchsorted(each.pixels, torch.tensor([own.start * factor, own.stop * factor])).tolist())
            for each, own in zip(wanted, inner, strict=True)
        ]
        readings = [
            Reading((each.pixels[part] - padded.start * factor).to(device), each.distance[part].to(device))
            for each, part, padded in zip(wanted, parts, outer, strict=True)
        ]
        known, there = scaled[..., outer[0], outer[1]], mask[..., outer[0], outer[1]]
        if there.all() and (known == known[..., :1, :1]).all():
            # The average of what is constant: most of a map of ones and zeros.
            result[parts[0], parts[1]], reached[parts[0], parts[1]] = depth[inner[0].start, inner[1].start], True
            continue
        positions = [
            grid.guide_positions(padded.start * factor, padded.stop * factor)
            for grid, padded in zip(grids, outer, strict=True)
        ]
        maps = known, there, sample_guide(guide, *positions), context, factor
        planes: Planes | None = None
        if network.carries_depth:
            planes, near = network.scaled_planes(*maps)
            found = planes.at_pixels()
        else:
            *_, (found, near) = network.scaled_levels(*maps)
        slope = None if planes is None else planes.slope
        if colourwise:
            colours = guide[parts[0], parts[1]].permute(2, 0, 1) / 255
            coarse = any(grid.axis.ratio > factor for grid in grids)
            values = read_by_colour(found, slope, maps[2], colours, *readings, coarse=coarse)
        else:
            values = read(found, slope, *readings)
        result[parts[0], parts[1]] = values * span + lowest
        reached[parts[0], parts[1]] = pick(near, *readings)[0] > 0
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
