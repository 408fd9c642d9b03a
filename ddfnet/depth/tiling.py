"""A `GuidedUpsampler` over maps of any size and ratio: where samples lie in the guide, tiles, and several passes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.depth.network import GuidedUpsampler

_NEAR = 2  # samples: none that an output is made of is further from the one nearest to the output
_BOX = 128  # samples a side, whose features are summed at once: the same for any tile, so that the sum is the same
_ROWS = 64  # of the guide's, that are held to their range at once


@dataclass(frozen=True)
class Place:
    """How one axis of the samples lies over the guide's: sample i on pixel ``i*ratio + offset``."""

    samples: int
    pixels: int
    ratio: float
    offset: float

    def nearest_sample(self) -> Tensor:
        """Of each of the guide's pixels."""
        own = (torch.arange(self.pixels, dtype=torch.float64) - self.offset) / self.ratio
        return own.round().long().clamp(0, self.samples - 1)


class Grid(NamedTuple):
    """One axis of what the network is given and gives: ``factor`` pixels a sample, which lies on number ``first``."""

    place: Place
    factor: int

    @property
    def first(self) -> int:
        return (self.factor - 1) // 2

    @property
    def offset(self) -> float:
        """The guide's pixel of sample 0: to the whole pixel where the two grids have the same step.

        Half a pixel of displacement is less than what interpolating the guide would blur.
        """
        if self.place.ratio == self.factor:
            return self.first + math.ceil(self.place.offset - self.first - 0.5)
        return self.place.offset

    def in_guide(self, start: int, stop: int) -> Tensor:
        """Where the grid's pixels from start to stop lie, in pixels of the guide."""
        own = torch.arange(start, stop, dtype=torch.float64) - self.first
        return (self.offset + own * (self.place.ratio / self.factor)).clamp(0, self.place.pixels - 1)

    def nearest(self) -> Tensor:
        """The grid's pixel nearest to each of the guide's.

        Not an interpolation between pixels, which would put points between the two sides of an edge.
        """
        own = torch.arange(self.place.pixels, dtype=torch.float64) - self.offset
        pixel = (own * (self.factor / self.place.ratio) - 1e-9).round().long() + self.first
        return pixel.clamp(0, self.place.samples * self.factor - 1)


def enlarge(
    values: Tensor,
    known: Tensor,
    guide: Tensor,
    places: list[Place],
    network: GuidedUpsampler,
    tile: int,
    *,
    ensemble: bool,
) -> tuple[Tensor, Tensor]:
    """The depth (H, W), float64, and where there is one, within the range of the samples around each pixel's nearest.

    With ``ensemble`` the average of what the network makes of the maps and of the maps transposed. Not of the maps
    mirrored as well, for a mirrored sample does not lie where the network expects it in its block.

    A network that carries the depth by 3x3 filters leaves that range by a last digit at most; others are held to it.
    """
    lowest = values[known].min()  # taken away, for far from 0 each view would be rounded
    above = torch.where(known, values - lowest, 0)
    result, reached = _in_passes(above, known, guide, places, network, tile)
    if ensemble:
        turned, there = _in_passes(above.T, known.T, guide.transpose(0, 1), places[::-1], network, tile)
        result += (turned.T - result) / 2  # their sum could overflow
        reached &= there.T
    result += lowest
    low, high = _range(values, known)
    rows, columns = (place.nearest_sample().to(values.device) for place in places)
    for part in _cuts(len(rows), _ROWS):
        lowest, highest = (bound[rows[part]][:, columns] for bound in (low, high))
        result[part] = torch.minimum(torch.maximum(result[part], lowest), highest)
        reached[part] &= lowest <= highest
    return result, reached


def _in_passes(
    values: Tensor, known: Tensor, guide: Tensor, places: list[Place], network: GuidedUpsampler, tile: int
) -> tuple[Tensor, Tensor]:
    """As many as it takes where the ratio is above the network's."""
    ratio = max(place.ratio for place in places)
    factor = min(2 ** max(1, math.ceil(math.log2(ratio) - 1e-9)), network.scale_factor)
    grids = [Grid(place, factor) for place in places]
    if ratio <= factor:
        wanted = [grid.nearest() for grid in grids]
        return _by_tiles(values, known, guide, grids, wanted, network, tile)
    wanted = [torch.arange(place.samples * factor) for place in places]
    values, known = _by_tiles(values, known, guide, grids, wanted, network, tile)
    finer = [
        Place(len(pixels), grid.place.pixels, step, grid.offset - grid.first * step)
        for pixels, grid in zip(wanted, grids, strict=True)
        for step in [grid.place.ratio / factor]
    ]
    return _in_passes(values, known, guide, finer, network, tile)


def _by_tiles(
    values: Tensor,
    known: Tensor,
    guide: Tensor,
    grids: list[Grid],
    wanted: list[Tensor],
    network: GuidedUpsampler,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """The network's output at the wanted rows and columns of its grid, a tile at a time.

    A tile is given as many samples around it as can change its outputs. What the network draws from the whole map, the
    depth's range and the average of its features, is found first.
    """
    factor, device = grids[0].factor, values.device
    lowest, highest = values[known].min(), values[known].max()
    span = (highest - lowest) if highest > lowest else torch.ones_like(lowest)
    scaled = torch.where(known, (values - lowest) / span, 0).float()[None, None]
    there = known.float()[None, None]
    height, width = known.shape

    context = torch.zeros((), dtype=torch.float64)
    for rows, columns in itertools.product(_cuts(height, _BOX), _cuts(width, _BOX)):
        outer = [_wider(cut, network.target_reach, size) for cut, size in ((rows, height), (columns, width))]
        features = network.features(scaled[..., outer[0], outer[1]], there[..., outer[0], outer[1]])
        inner = features[..., _within(rows, outer[0]), _within(columns, outer[1])]
        context = context + inner.sum((2, 3), keepdim=True, dtype=torch.float64)
    context = (context / known.numel()).float()

    # In the network's pixels, which are finer than the guide's where its ratio is smaller.
    step = max(1, tile // factor)
    result = torch.empty(len(wanted[0]), len(wanted[1]), dtype=torch.float64, device=device)
    reached = torch.empty(result.shape, dtype=torch.bool, device=device)
    for rows, columns in itertools.product(_cuts(height, step), _cuts(width, step)):
        outer = [_wider(cut, network.reach, size) for cut, size in ((rows, height), (columns, width))]
        # Where the wanted pixels lie that this tile's samples are enlarged to; they ascend.
        own = [
            slice(*torch.searchsorted(pixels, torch.tensor([cut.start * factor, cut.stop * factor])).tolist())
            for pixels, cut in zip(wanted, (rows, columns), strict=True)
        ]
        picked = [
            (pixels[part] - cut.start * factor).to(device) for pixels, part, cut in zip(wanted, own, outer, strict=True)
        ]
        positions = [
            grid.in_guide(cut.start * factor, cut.stop * factor) for grid, cut in zip(grids, outer, strict=True)
        ]
        picture = _sample(guide, positions[0], positions[1])
        inputs = (scaled[..., outer[0], outer[1]], there[..., outer[0], outer[1]])
        *_, level = network.scaled_levels(*inputs, picture, context, factor)
        result[own[0], own[1]] = level.depth[0, 0][picked[0]][:, picked[1]].double() * span + lowest
        reached[own[0], own[1]] = level.valid[0, 0][picked[0]][:, picked[1]]
    return result, reached


def _range(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest valid sample of the 5x5 around each."""
    window = (2 * _NEAR + 1, 1, _NEAR)
    high = F.max_pool2d(values[None].masked_fill(~known, -math.inf), *window)
    low = -F.max_pool2d((-values[None]).masked_fill(~known, -math.inf), *window)
    return low[0], high[0]


def _cuts(size: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _wider(cut: slice, by: int, size: int) -> slice:
    return slice(max(cut.start - by, 0), min(cut.stop + by, size))


def _within(cut: slice, outer: slice) -> slice:
    return slice(cut.start - outer.start, cut.stop - outer.start)


def _sample(guide: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The guide at these positions, bilinearly: (1, 3, rows, columns), float32, from 0 to 1."""
    picture = guide
    for dimension, positions in enumerate((rows, columns)):
        first, last = int(positions[0]), math.ceil(positions[-1])
        picture = picture.narrow(dimension, first, last + 1 - first)
        low = positions.floor().long()
        share = (positions - low).float().to(guide.device).reshape([-1, 1, 1] if dimension == 0 else [1, -1, 1])
        low = (low - first).to(guide.device)
        below = picture.index_select(dimension, low)
        if share.any():
            above = picture.index_select(dimension, (low + 1).clamp(max=last - first))
            below = below + share * (above.float() - below)
        picture = below
    return (picture / 255).permute(2, 0, 1)[None]
