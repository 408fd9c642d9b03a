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
from ddfnet.depth.network import GuidedUpsampler, typical_range
from ddfnet.depth.planes import Planes

_RADIUS = 2  # samples: every sample that an output is made of lies this near to the one nearest to the output
_POOLED = 128  # samples per side whose features are summed at once: the same for any tile, and so is the sum
_COARSEST = 1.42  # pixels of the guide per pixel of the grid
_LARGEST = 1e30  # scaled depth: sums of such, and of their slopes, stay in float32
_ROWS = 64  # rows of the guide that are held to their range at once


class UpsampleGrid(NamedTuple):
    """One axis of the network's grid: ``factor`` pixels per sample, which lies on the pixel ``first`` of its block.

    Where the two grids have the same step, the grid's pixels are laid on whole pixels of the guide: half a pixel of
    displacement is less than what interpolating the guide would blur. A half is rounded down, or with ``up`` up; the
    two err to opposite sides.
    """

    axis: AxisAlignment
    factor: int
    up: bool = False

    @property
    def first(self) -> int:
        return (self.factor - 1) // 2

    @property
    def offset(self) -> float:
        """Pixel of the guide that the network sees where sample 0 lies."""
        if self.axis.ratio == self.factor:
            away = self.axis.offset - self.first
            return self.first + (math.floor(away + 0.5) if self.up else math.ceil(away - 0.5))
        return self.axis.offset

    def guide_positions(self, start: int, stop: int) -> Tensor:
        """Return the positions of the grid's pixels from start to stop, in pixels of the guide."""
        steps = torch.arange(start, stop, dtype=torch.float64) - self.first
        return (self.offset + steps * (self.axis.ratio / self.factor)).clamp(0, self.axis.pixels - 1)

    def every_pixel(self) -> Reading:
        """Return the reading of each pixel of the grid, where the network sees it on the guide."""
        return self._reading(torch.arange(self.axis.samples * self.factor), self.offset, self.axis.ratio / self.factor)

    def guide_pixels(self) -> Reading:
        """Return the reading of each pixel of the guide, at the grid's pixel nearest to it.

        It is read there or at another one beside it, for interpolating would put points between two surfaces.
        """
        steps = torch.arange(self.axis.pixels, dtype=torch.float64) - self.offset
        pixels = (steps * (self.factor / self.axis.ratio) - 1e-9).round().long() + self.first
        return self._reading(pixels.clamp(0, self.axis.samples * self.factor - 1), None, 1.0)

    def _reading(self, pixels: Tensor, offset: float | None, step: float) -> Reading:
        """Return the reading at these pixels of the places that begin at an offset of the guide, step by step."""
        places = torch.arange(len(pixels), dtype=torch.float64)
        if offset is not None:
            places = offset + (places - self.first) * step
        # Sample i is in the middle of its block: of the pixels from i*factor on.
        exact = (places - self.axis.offset) * (self.factor / self.axis.ratio) + (self.factor - 1) / 2
        return Reading(pixels, exact - pixels)


class Reading(NamedTuple):
    """Places along one axis that are read from the network's grid.

    Args:
        pixels: (n,), int64, ascending: the grid's pixel of each.
        distance: (n,), float64: from that pixel's middle to the place, in pixels of the grid.
    """

    pixels: Tensor
    distance: Tensor

    def other(self, size: int) -> Reading:
        """Return the same places at the pixels on their other side, of a grid of this size."""
        # The guide is seen half a pixel of the grid from the middle, see `UpsampleGrid.first`.
        pixels = (self.pixels + torch.where(self.distance < 0.5, -1, 1)).clamp(0, size - 1)
        return Reading(pixels, self.distance + (self.pixels - pixels))


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
    factor, last = _factor(max(axis.ratio for axis in axes), network.scale_factor)
    grids = [UpsampleGrid(axis, factor, up) for axis in axes]
    if last:
        wanted = [grid.guide_pixels() for grid in grids]
        by_colour = any(axis.ratio != factor for axis in axes)
        return _run_tiles(depth, valid, guide, grids, wanted, network, tile, by_colour=by_colour)
    depth, valid = _run_tiles(depth, valid, guide, grids, [grid.every_pixel() for grid in grids], network, tile)
    finer = [
        AxisAlignment(size, grid.axis.pixels, step, grid.offset - grid.first * step)
        for size, grid in zip(depth.shape, grids, strict=True)
        for step in [grid.axis.ratio / factor]
    ]
    return _upsample_recursive(depth, valid, guide, finer, network, tile, up=up)


def _factor(ratio: float, largest: int) -> tuple[int, bool]:
    """Return the factor for a ratio, and whether the network's grid then is fine enough to be read.

    That is the next power of two, or the one before where its grid is not much coarser than the guide: there it costs a
    quarter, and the result is read on the planes of its pixels. Of factor 2 alone the error would rise by a tenth.
    """
    factor = 2 ** max(1, math.ceil(math.log2(ratio) - 1e-9))
    if factor > 4 and 2 * ratio <= _COARSEST * factor:
        factor //= 2
    factor = min(factor, largest)
    return factor, ratio <= (_COARSEST * factor if factor > 2 else factor)


def _run_tiles(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    grids: list[UpsampleGrid],
    wanted: list[Reading],
    network: GuidedUpsampler,
    tile: int,
    *,
    by_colour: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return the network's output at the wanted rows and columns of its grid, computed one tile at a time.

    With ``by_colour`` these are the guide's, which lie between the grid's, and the most alike of those around is read.

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
    for inner in itertools.product(*(tile_slices(size, step) for size in valid.shape)):
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
        maps = known, there, _sample_guide(guide, *positions), context, factor
        planes: Planes | None = None
        if network.carries_depth:
            planes, near = network.scaled_planes(*maps)
            found = planes.at_pixels()
        else:
            *_, (found, near) = network.scaled_levels(*maps)
        slope = None if planes is None else planes.slope
        if by_colour:
            colours = guide[parts[0], parts[1]].permute(2, 0, 1) / 255
            values = _read_by_colour(found, slope, maps[2], colours, *readings)
        else:
            values = _read(found, slope, *readings)
        result[parts[0], parts[1]] = values * span + lowest
        reached[parts[0], parts[1]] = _pick(near, *readings)[0] > 0
    return result, reached


def _read(depth: Tensor, slope: Tensor | None, y: Reading, x: Reading) -> Tensor:
    """Return the first map's depth at the places, (rows, columns), float64, on the planes of their pixels."""
    [values] = _pick(depth, y, x)
    if slope is None:
        return values
    along_y, along_x = _pick(slope, y, x)
    return values + along_y * y.distance[:, None] + along_x * x.distance


def _read_by_colour(
    depth: Tensor, slope: Tensor | None, image: Tensor, colours: Tensor, y: Reading, x: Reading
) -> Tensor:
    """Return what `_read` does, from that of the four pixels around each place whose colour is most like the place's.

    Args:
        depth: (1, 1, H, W), and its slope (1, 2, H, W).
        image: (1, 3, H, W), the guide at the grid's pixels.
        colours: (3, rows, columns), the guide at the places.
        y: rows, at their nearest pixels.
        x: columns, likewise.
    """
    best = torch.full(colours.shape[1:], math.inf, dtype=torch.float64, device=colours.device)
    result = torch.empty_like(best)
    for rows, columns in itertools.product((y, y.other(image.shape[2])), (x, x.other(image.shape[3]))):
        # Among equals the first, which is the nearest.
        difference = (_pick(image, rows, columns) - colours).abs().amax(0)
        result = torch.where(difference < best, _read(depth, slope, rows, columns), result)
        best = torch.minimum(best, difference)
    return result


def _pick(values: Tensor, y: Reading, x: Reading) -> Tensor:
    """Return the first map's values (C, rows, columns) at the pixels that are read, float64."""
    return values[0].index_select(1, y.pixels).index_select(2, x.pixels).double()


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
