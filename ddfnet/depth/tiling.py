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
from ddfnet.depth.network import GuidedUpsampler, typical_range_of_parts
from ddfnet.depth.progress import track
from ddfnet.depth.samples import RADIUS, local_range, valid_range
from ddfnet.depth.sizes import ROWS, pad_slice, relative_slice, scale_region, tile_slices

_POOLED = 128  # samples per side whose features are summed at once: the same for any tile, and so is the sum
_LARGEST = 1e30  # scaled depth: sums of such, and of their slopes, stay in float32


class Part(NamedTuple):
    """Part of an upsampled map.

    Attributes:
        rows, columns: its place.
        depth: (rows, columns), float64.
        valid: likewise, bool.
    """

    rows: slice
    columns: slice
    depth: Tensor
    valid: Tensor


class _Map(NamedTuple):
    """Map whose depths count from an origin, for far from 0 each view would be rounded.

    Attributes:
        depth: (h, w), of any real type: as it was given, for in float64 it can be large. Anything where not valid.
        valid: (h, w), bool.
        origin: least of the valid depths, or 0.
    """

    depth: Tensor
    valid: Tensor
    origin: float

    def part(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return depth, float64, and validity."""
        return self.depth[rows, columns].double() - self.origin, self.valid[rows, columns]

    def transposed(self) -> _Map:
        return _Map(self.depth.T, self.valid.T, self.origin)


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
) -> Iterator[Part]:
    """Yield the upsampled map (H, W) tile by tile, held to the range of the samples nearby.

    A pixel is valid where a valid sample is near, within two of its own. With ``outline`` the validity is upsampled as
    a depth map of ones and zeros is, so that its outline follows the guide: a pixel is valid where the result is at
    least a half. Where all samples of the 5x5 are valid it is 1, and where none is, 0.

    With ``ensemble`` the results for the maps and for the maps transposed are averaged. Mirrored maps are not used, for
    a mirrored sample does not lie where the network expects it in its block. Where a sample lies between two pixels of
    the guide, each of the two has it on another one.

    Args:
        depth: (h, w), of any real type; anything where it is not valid.
        valid: (h, w), bool, somewhere true.
        guide: (H, W, 3), uint8.
        axes: y and x.
        network: in evaluation mode, in float32, on depth's device.
        tile: pixels of the guide per side that are worked on at once.
        samples: way in which the samples were taken, see `ddfnet.depth.samples`.
        ensemble: average two views.
        outline: upsample the validity too.
    """
    given = _Map(depth, valid, valid_range(depth, valid)[0])
    streams = [_upsample_views(given, guide, axes, network, tile, samples=samples, ensemble=ensemble)]
    if outline and not valid.all():
        # No maps of their own: ones are the bytes of what is true.
        ones = _Map(valid.view(torch.uint8), valid.new_ones(()).expand_as(valid), 0.0)
        # A sample is valid or not: averages too are not valid in part.
        streams.append(_upsample_views(ones, guide, axes, network, tile, samples="point", ensemble=ensemble))
    for part, *shares in _together(streams, guide.shape[1]):
        reached = part.valid
        for share in shares:
            reached = reached & (share.depth >= 0.5)
        yield part._replace(depth=part.depth + given.origin, valid=reached)


def _upsample_views(
    given: _Map,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    samples: str,
    ensemble: bool,
) -> Iterator[Part]:
    """Upsample the map, and with ``ensemble`` the map transposed, and hold the average to the range nearby.

    The range is needed where a network does not carry the depth by 3x3 filters, and for planes, which would go on
    beyond the outermost samples.
    """
    views = [_upsample_recursive(given, guide, axes, network, tile, samples=samples, transposed=False)]
    if ensemble:
        swapped = given.transposed(), guide.transpose(0, 1), axes[::-1]
        views.append(_upsample_recursive(*swapped, network, tile, samples=samples, transposed=True))
    rows, columns = (axis.nearest_sample(guide.device) for axis in axes)
    for part, *others in _together(views, guide.shape[1]):
        result, reached = part.depth, part.valid
        for other in others:
            result = result + (other.depth - result) / 2  # their sum could overflow
            reached = reached & other.valid
        if result.numel():
            y, x = rows[part.rows], columns[part.columns]
            near = [
                pad_slice(slice(int(own[0]), int(own[-1]) + 1), RADIUS, size)
                for own, size in zip((y, x), given.valid.shape, strict=True)
            ]
            depth, valid = given.part(*near)
            below, above = (
                bound[y - near[0].start][:, x - near[1].start] for [bound] in local_range(depth[None], valid[None])
            )
            result = torch.minimum(torch.maximum(result, below), above)
            reached = reached & (below <= above)
        yield part._replace(depth=result, valid=reached)


def _together(streams: Sequence[Iterator[Part]], columns: int) -> Iterator[list[Part]]:
    """Yield the tiles of several maps together, as far down and across as all have come: they can end a pixel apart."""
    seams = [_Seam(columns) for _ in streams]
    for parts in zip(*streams, strict=True):
        bottom, right = min(part.rows.stop for part in parts), min(part.columns.stop for part in parts)
        yield [seam.take(part, bottom, right) for seam, part in zip(seams, parts, strict=True)]


class _Seam:
    """Pixels of a map that have come and were not taken: rows below, and in this row of tiles columns beside."""

    def __init__(self, columns: int) -> None:
        self._columns, self._rows = columns, slice(0, 0)
        self._above: list[Tensor] = []  # rows that the last row of tiles left
        self._below: list[Tensor] = []  # those that this one leaves
        self._beside: list[Tensor] = []

    def take(self, part: Part, bottom: int, right: int) -> Part:
        """Take what has come with this tile, the next from left to right and from top to bottom, and lies before both.

        Args:
            part: the tile.
            bottom: first row that is left, for all tiles of a row the same.
            right: first column that is left.
        """
        rows, columns, maps = part.rows, part.columns, [part.depth, part.valid]
        if rows != self._rows:
            self._rows, self._above = rows, self._below
            self._below = [each.new_empty(rows.stop - bottom, self._columns) for each in maps]
        if self._above:
            rows = slice(rows.start - len(self._above[0]), rows.stop)
            maps = [torch.cat([left[:, columns], new]) for left, new in zip(self._above, maps, strict=True)]
        for left, new in zip(self._below, maps, strict=True):
            left[:, columns] = new[bottom - rows.start :]
        if columns.start:
            columns = slice(columns.start - self._beside[0].shape[1], columns.stop)
            maps = [torch.cat([left, new], 1) for left, new in zip(self._beside, maps, strict=True)]
        self._beside = [each[:, right - columns.start :].clone() for each in maps]
        depth, valid = (each[: bottom - rows.start, : right - columns.start] for each in maps)
        return Part(slice(rows.start, bottom), slice(columns.start, right), depth, valid)


def _upsample_recursive(
    given: _Map,
    guide: Tensor,
    axes: Sequence[AxisAlignment],
    network: GuidedUpsampler,
    tile: int,
    *,
    samples: str,
    transposed: bool,
) -> Iterator[Part]:
    """Upsample in as many passes as it takes where the ratio is above the network's factor.

    The parts are those of the map itself also where all arguments are those of the map ``transposed``.
    """
    factor, last = grid_factor(max(axis.ratio for axis in axes), network.scale_factor)
    grids = [UpsampleGrid(axis, factor, up=transposed, centered=samples != "point") for axis in axes]
    if last:
        wanted = [grid.guide_pixels() for grid in grids]
        colourwise = any(axis.ratio != factor for axis in axes)
        yield from _run_tiles(
            given, guide, grids, wanted, network, tile, samples, colourwise=colourwise, transposed=transposed
        )
        return
    parts = _run_tiles(given, guide, grids, [grid.every_pixel() for grid in grids], network, tile, samples)
    size = [samples * factor for samples in given.valid.shape]
    depth, valid = (torch.empty(size, dtype=dtype, device=guide.device) for dtype in (torch.float64, torch.bool))
    for part in parts:
        depth[part.rows, part.columns], valid[part.rows, part.columns] = part.depth, part.valid
    finer = [
        AxisAlignment(samples, grid.axis.pixels, step, grid.offset - grid.first * step)
        for samples, grid in zip(size, grids, strict=True)
        for step in [grid.axis.ratio / factor]
    ]
    # The pixels of this pass are the next one's samples, each a depth at its place.
    given = _Map(depth, valid, 0.0)
    yield from _upsample_recursive(given, guide, finer, network, tile, samples="point", transposed=transposed)


def _run_tiles(
    given: _Map,
    guide: Tensor,
    grids: list[UpsampleGrid],
    wanted: list[Reading],
    network: GuidedUpsampler,
    tile: int,
    samples: str,
    *,
    colourwise: bool = False,
    transposed: bool = False,
) -> Iterator[Part]:
    """Yield the network's output at the wanted rows and columns of its grid, computed one tile at a time.

    With ``colourwise`` these are the guide's, which lie between the grid's, and the most alike of those around is read.
    With ``transposed`` the output is transposed.

    Each tile is given as many samples around it as can change its outputs. Two things depend on the whole map, the
    range of the depth and the mean of its features, and are found first.
    """
    factor, size = grids[0].factor, given.valid.shape
    parts = (given.part(rows, slice(None)) for rows in tile_slices(size[0], ROWS))
    lowest, span = typical_range_of_parts((depth[own] for depth, own in parts), int(given.valid.sum()))

    def scaled(rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return samples as the network takes them, (1, 1, rows, columns), and 1 where they are valid."""
        depth, own = given.part(rows, columns)
        # Sentinels that were not marked can be beyond float32.
        found = torch.where(own, (depth - lowest) / span, 0).clamp(-_LARGEST, _LARGEST)
        return found.float()[None, None], own.float()[None, None]

    context = _context(scaled, size, network)

    # In pixels of the network, which are finer than the guide's where the ratio is below the factor.
    step, radius = max(1, tile // factor), network.receptive_radius_for(samples)
    y_spans, x_spans = (
        [_Span.cut(own, grid, places, radius, guide.device) for own in tile_slices(length, step)]
        for length, grid, places in zip(size, grids, wanted, strict=True)
    )
    down, across = (x_spans, y_spans) if transposed else (y_spans, x_spans)

    def run(y: _Span, x: _Span) -> tuple[Tensor, Tensor]:
        """Return the output of one tile, and whether it is valid."""
        known, there = scaled(y.padded, x.padded)
        if there.all() and (known == known[..., :1, :1]).all():
            # The average of what is constant: most of a map of ones and zeros.
            first = given.part(*(slice(each.own.start, each.own.start + 1) for each in (y, x)))
            depth, valid = (each.expand(len(y.reading.pixels), len(x.reading.pixels)) for each in first)
            return depth, valid
        maps = known, there, sample_guide(guide, y.positions, x.positions), context, factor
        found, slope, near = network.scaled_pixels(*maps, samples, (y.read, x.read))
        if colourwise:
            colours = guide[y.places, x.places].permute(2, 0, 1) / 255
            coarse = any(grid.axis.ratio > factor for grid in grids)
            image = maps[2][(..., *scale_region((y.read, x.read), factor))]
            values = read_by_colour(found, slope, image, colours, y.reading, x.reading, coarse=coarse)
        else:
            values = read(found, slope, y.reading, x.reading)
        return values * span + lowest, pick(near, y.reading, x.reading)[0] > 0

    for first, second in track([*itertools.product(down, across)]):
        values, near = run(second, first) if transposed else run(first, second)
        if transposed:
            values, near = values.T, near.T
        yield Part(first.places, second.places, values, near)


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
