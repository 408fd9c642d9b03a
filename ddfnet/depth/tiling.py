"""`GuidedUpsampler` over maps of any size and ratio: its grid on the guide, tiles, and several passes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddfnet.depth.alignment import AxisAlignment
from ddfnet.depth.grid import Reading, UpsampleGrid, grid_factor, pick, read, read_by_colour, sample_guide
from ddfnet.depth.network import GuidedUpsampler, typical_range
from ddfnet.depth.progress import track
from ddfnet.depth.samples import RADIUS, local_range
from ddfnet.depth.sizes import ROWS, pad_slice, relative_slice, scale_window, tile_slices

Rows = tuple[Tensor, Tensor]
"""Rows of an upsampled map: depth (n, W), float64, and where it is valid, bool. The next rows may overwrite them."""

_POOLED = 128  # samples per side whose features are summed at once: the same for any tile, and so is the sum
_LARGEST = 1e30  # scaled depth: sums of such, and of their slopes, stay in float32


def upsample_tiled(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    samples: str,
    ensemble: bool,
    outline: bool,
) -> Iterator[Rows]:
    """Yield the upsampled map (H, W) from top to bottom, held to the range of the samples nearby.

    A pixel is valid where a valid sample is near, within two of its own. With ``outline`` the validity is upsampled as
    a depth map of ones and zeros is, so that its outline follows the guide: a pixel is valid where the result is at
    least a half. Where all samples of the 5x5 are valid it is 1, and where none is, 0.

    With ``ensemble`` the results for the maps and for the maps transposed are averaged. Mirrored maps are not used, for
    a mirrored sample does not lie where the network expects it in its block. Where a sample lies between two pixels of
    the guide, each of the two has it on another one.

    Args:
        depth: (h, w), float64, 0 where it is not valid; it is written over.
        valid: (h, w), bool, somewhere true.
        guide: (H, W, 3), uint8.
        axes: y and x.
        network: in evaluation mode, in float32, on depth's device.
        tile: pixels of the guide per side that are worked on at once.
        samples: way in which the samples were taken, see `ddfnet.depth.samples`.
        ensemble: average two views.
        outline: upsample the validity too.
    """
    lowest = depth[valid].min()  # subtracted, for far from 0 each view would be rounded
    depth.sub_(lowest).masked_fill_(~valid, 0)  # in place, for the map can be large
    streams = [_upsample_views(depth, valid, guide, axes, network, tile, samples=samples, ensemble=ensemble)]
    if outline and not valid.all():
        ones, everywhere = valid.float(), torch.ones_like(valid)
        # A sample is valid or not: averages too are not valid in part.
        streams.append(
            _upsample_views(ones, everywhere, guide, axes, network, tile, samples="point", ensemble=ensemble)
        )
    for (result, reached), *shares in _together(streams):
        for share, _ in shares:
            reached &= share >= 0.5
        result += lowest
        yield result, reached


def _upsample_views(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    samples: str,
    ensemble: bool,
) -> Iterator[Rows]:
    """Upsample the map, and with ``ensemble`` the map transposed, and hold the average to the range nearby.

    The range is needed where a network does not carry the depth by 3x3 filters, and for planes, which would go on
    beyond the outermost samples.
    """
    views = [_upsample_recursive(depth, valid, guide, axes, network, tile, samples=samples, transposed=False)]
    if ensemble:
        swapped = depth.T, valid.T, guide.transpose(0, 1), axes[::-1]
        views.append(_upsample_recursive(*swapped, network, tile, samples=samples, transposed=True))
    rows, columns = (axis.nearest_sample(depth.device) for axis in axes)
    for found, *others in _together(views):
        for part in tile_slices(len(found[0]), ROWS):
            result, reached = (each[part] for each in found)
            for other, other_reached in others:
                result += (other[part] - result) / 2  # their sum could overflow
                reached &= other_reached[part]
            own, rows = rows[: len(result)], rows[len(result) :]
            near = pad_slice(slice(int(own[0]), int(own[-1]) + 1), RADIUS, len(depth))
            below, above = (
                bound[own - near.start][:, columns] for [bound] in local_range(depth[None, near], valid[None, near])
            )
            result.copy_(torch.minimum(torch.maximum(result, below), above))
            reached &= below <= above
        yield found


def _together(streams: Sequence[Iterator[Rows]]) -> Iterator[list[Rows]]:
    """Yield the rows of several maps together, as far down as all have come: their tiles can end a row apart."""
    left: list[Rows | None] = [None] * len(streams)
    while True:
        left = [next(stream, None) if rows is None else rows for stream, rows in zip(streams, left, strict=True)]
        given = [rows for rows in left if rows is not None]
        if len(given) < len(streams):
            return
        count = min(len(depth) for depth, _ in given)
        yield [(depth[:count], reached[:count]) for depth, reached in given]
        left = [(depth[count:], reached[count:]) if len(depth) > count else None for depth, reached in given]


def _upsample_recursive(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    samples: str,
    transposed: bool,
) -> Iterator[Rows]:
    """Upsample in as many passes as it takes where the ratio is above the network's factor.

    The rows are those of the map itself also where all arguments are those of the map ``transposed``.
    """
    factor, last = grid_factor(max(axis.ratio for axis in axes), network.scale_factor)
    grids = [UpsampleGrid(axis, factor, up=transposed, centered=samples != "point") for axis in axes]
    if last:
        wanted = [grid.guide_pixels() for grid in grids]
        colourwise = any(axis.ratio != factor for axis in axes)
        yield from _run_tiles(
            depth, valid, guide, grids, wanted, network, tile, samples, colourwise=colourwise, transposed=transposed
        )
        return
    parts = _run_tiles(depth, valid, guide, grids, [grid.every_pixel() for grid in grids], network, tile, samples)
    size = [samples * factor for samples in depth.shape]
    depth, valid = (torch.empty(size, dtype=dtype, device=depth.device) for dtype in (torch.float64, torch.bool))
    start = 0
    for part, reached in parts:
        rows = slice(start, start + len(part))
        depth[rows], valid[rows], start = part, reached, rows.stop
    finer = [
        AxisAlignment(samples, grid.axis.pixels, step, grid.offset - grid.first * step)
        for samples, grid in zip(size, grids, strict=True)
        for step in [grid.axis.ratio / factor]
    ]
    # The pixels of this pass are the next one's samples, each a depth at its place.
    yield from _upsample_recursive(depth, valid, guide, finer, network, tile, samples="point", transposed=transposed)


def _run_tiles(
    depth: Tensor,
    valid: Tensor,
    guide: Tensor,
    grids: list[UpsampleGrid],
    wanted: list[Reading],
    network: GuidedUpsampler,
    tile: int,
    samples: str,
    *,
    colourwise: bool = False,
    transposed: bool = False,
) -> Iterator[Rows]:
    """Yield the network's output at the wanted rows and columns of its grid, computed one tile at a time.

    With ``colourwise`` these are the guide's, which lie between the grid's, and the most alike of those around is read.
    With ``transposed`` the output is transposed.

    Each tile is given as many samples around it as can change its outputs. Two things depend on the whole map, the
    range of the depth and the mean of its features, and are found first.
    """
    factor, device = grids[0].factor, depth.device
    lowest, span = (each[0] for each in typical_range(depth[None], valid[None]))

    def scaled(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return samples as the network takes them, (1, 1, rows, columns), and 1 where they are valid."""
        own = valid[rows, columns]
        # Sentinels that were not marked can be beyond float32.
        found = torch.where(own, (depth[rows, columns] - lowest) / span, 0).clamp(-_LARGEST, _LARGEST)
        return found.float()[None, None], own.float()[None, None]

    context = _context(scaled, valid.shape, network)

    # In pixels of the network, which are finer than the guide's where the ratio is below the factor.
    step, radius = max(1, tile // factor), network.receptive_radius_for(samples)
    y_spans, x_spans = (
        [_Span.cut(own, grid, places, radius, device) for own in tile_slices(size, step)]
        for size, grid, places in zip(valid.shape, grids, wanted, strict=True)
    )
    down, across = (x_spans, y_spans) if transposed else (y_spans, x_spans)
    # Written anew for each row of tiles, for who has taken one needs it no longer.
    height, width = max(len(span.reading.pixels) for span in down), across[-1].places.stop
    result = torch.empty(height, width, dtype=torch.float64, device=device)
    reached = torch.empty(height, width, dtype=torch.bool, device=device)

    def run(y: _Span, x: _Span) -> tuple[Tensor, Tensor]:
        """Return the output of one tile, and whether it is valid."""
        known, there = scaled(y.padded, x.padded)
        if there.all() and (known == known[..., :1, :1]).all():
            # The average of what is constant: most of a map of ones and zeros.
            size = len(y.reading.pixels), len(x.reading.pixels)
            return depth[y.own.start, x.own.start].expand(size), valid[y.own.start, x.own.start].expand(size)
        maps = known, there, sample_guide(guide, y.positions, x.positions), context, factor
        found, slope, near = network.scaled_pixels(*maps, samples, (y.read, x.read))
        if colourwise:
            colours = guide[y.places, x.places].permute(2, 0, 1) / 255
            coarse = any(grid.axis.ratio > factor for grid in grids)
            image = maps[2][(..., *scale_window((y.read, x.read), factor))]
            values = read_by_colour(found, slope, image, colours, y.reading, x.reading, coarse=coarse)
        else:
            values = read(found, slope, y.reading, x.reading)
        return values * span + lowest, pick(near, y.reading, x.reading)[0] > 0

    for first, second in track([*itertools.product(down, across)]):
        values, near = run(second, first) if transposed else run(first, second)
        rows = slice(len(first.reading.pixels))
        result[rows, second.places] = values.T if transposed else values
        reached[rows, second.places] = near.T if transposed else near
        if second is across[-1] and rows.stop:
            yield result[rows], reached[rows]


class _Span(NamedTuple):
    """One axis of a tile.

    Attributes:
        own: samples of the tile.
        padded: samples that can change its outputs.
        read: samples whose pixels are read, among the padded: its own and the next ones, for `read_by_colour`.
        positions: positions of their pixels, of the network's grid, on the guide.
        places: the tile's places among the wanted ones.
        reading: reading of these places from the pixels of ``read``.
    """

    own: slice
    padded: slice
    read: slice
    positions: Tensor
    places: slice
    reading: Reading

    @staticmethod
    def cut(own: slice, grid: UpsampleGrid, wanted: Reading, radius: int, device: torch.device) -> _Span:
        """Return the span of the samples ``own``, with as many samples around as a radius of the network."""
        factor = grid.factor
        padded, read = (pad_slice(own, by, grid.axis.samples) for by in (radius, 1))
        ends = torch.tensor([own.start * factor, own.stop * factor])
        places = slice(*torch.searchsorted(wanted.pixels, ends).tolist())  # they ascend
        reading = Reading(
            (wanted.pixels[places] - read.start * factor).to(device),
            wanted.distance[places].to(device),
            wanted.seen,
        )
        positions = grid.guide_positions(padded.start * factor, padded.stop * factor)
        return _Span(own, padded, relative_slice(read, padded), positions, places, reading)


def _context(
    scaled: Callable[[slice, slice], tuple[Tensor, Tensor]], size: Sequence[int], network: GuidedUpsampler
) -> Tensor:
    """Return `GuidedUpsampler.context` of a map of any size: the mean of its features, (1, C, 1, 1)."""
    total = torch.zeros((), dtype=torch.float64)
    for inner in itertools.product(*(tile_slices(length, _POOLED) for length in size)):
        outer = [
            pad_slice(own, network.target_receptive_radius, length) for own, length in zip(inner, size, strict=True)
        ]
        features = network.features(*scaled(*outer))
        rows, columns = (relative_slice(own, padded) for own, padded in zip(inner, outer, strict=True))
        total = total + features[..., rows, columns].sum((2, 3), keepdim=True, dtype=torch.float64)
    return (total / math.prod(size)).float()
