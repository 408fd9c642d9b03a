"""Grid of the network over a guide: its factor, where its pixels lie, and how places between them are read."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from ddfnet.depth.alignment import AxisAlignment

_COARSEST = 1.42  # pixels of the guide per pixel of the grid
_ALIKE = 5 / 255  # difference of colour, from 0 to 1, that noise makes


def grid_factor(ratio: float, largest: int) -> tuple[int, bool]:
    """Return the factor for a ratio, and whether the network's grid then is fine enough to be read.

    That is the next power of two, or the one before where its grid is not much coarser than the guide: there it costs a
    quarter, and the result is read on the planes of its pixels. Of factor 2 alone the error would rise by a tenth.
    """
    factor = 2 ** max(1, math.ceil(math.log2(ratio) - 1e-9))
    if factor > 4 and 2 * ratio <= _COARSEST * factor:
        factor //= 2
    factor = min(factor, largest)
    return factor, ratio <= (_COARSEST * factor if factor > 2 else factor)


class UpsampleGrid(NamedTuple):
    """One axis of the network's grid: ``factor`` pixels per sample, which lies on the pixel ``first`` of its block.

    Where the two grids have the same step, the grid's pixels are laid on whole pixels of the guide: half a pixel of
    displacement is less than what interpolating the guide would blur. A half is rounded down, or with ``up`` up; the
    two err to opposite sides. With ``centered`` the sample lies in the middle of its block, between two pixels: the
    blocks of averages then are blocks of the guide.
    """

    axis: AxisAlignment
    factor: int
    up: bool = False
    centered: bool = False

    @property
    def first(self) -> float:
        return (self.factor - 1) / 2 if self.centered else (self.factor - 1) // 2

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
        pixels = (steps * (self.factor / self.axis.ratio) + self.first - 1e-9).round().long()
        return self._reading(pixels.clamp(0, self.axis.samples * self.factor - 1), None, 1.0)

    def _reading(self, pixels: Tensor, offset: float | None, step: float) -> Reading:
        """Return the reading at these pixels of the places that begin at an offset of the guide, step by step."""
        places = torch.arange(len(pixels), dtype=torch.float64)
        if offset is not None:
            places = offset + (places - self.first) * step
        # Sample i is in the middle of its block: of the pixels from i*factor on.
        exact = (places - self.axis.offset) * (self.factor / self.axis.ratio) + (self.factor - 1) / 2
        # The guide is seen as far from the middle of a pixel as the sample from that of its block.
        return Reading(pixels, exact - pixels, (self.factor - 1) / 2 - self.first)


class Reading(NamedTuple):
    """Places along one axis that are read from the network's grid.

    Args:
        pixels: (n,), int64, ascending: the grid's pixel of each.
        distance: (n,), float64: from that pixel's middle to the place, in pixels of the grid.
        seen: where the guide is seen at a pixel, from its middle, in pixels of the grid.
    """

    pixels: Tensor
    distance: Tensor
    seen: float

    def other(self, size: int) -> Reading:
        """Return the same places at the pixels on their other side, of a grid of this size."""
        pixels = (self.pixels + torch.where(self.distance < self.seen, -1, 1)).clamp(0, size - 1)
        return Reading(pixels, self.distance + (self.pixels - pixels), self.seen)


def sample_guide(guide: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
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


def read(depth: Tensor, slope: Tensor | None, y: Reading, x: Reading) -> Tensor:
    """Return the first map's depth at the places, (rows, columns), float64, on the planes of their pixels."""
    [values] = pick(depth, y, x)
    if slope is None:
        return values
    along_y, along_x = pick(slope, y, x)
    return values + along_y * y.distance[:, None] + along_x * x.distance


def read_by_colour(
    depth: Tensor, slope: Tensor | None, image: Tensor, colours: Tensor, y: Reading, x: Reading, *, coarse: bool
) -> Tensor:
    """Return what `read` does, from that of the four pixels around each place whose colour is most like the place's.

    Args:
        depth: (1, 1, H, W), and its slope (1, 2, H, W).
        image: (1, 3, H, W), the guide at the grid's pixels.
        colours: (3, rows, columns), the guide at the places.
        y: rows, at their nearest pixels.
        x: columns, likewise.
        coarse: the grid is coarser than the guide. On a finer one another pixel than the nearest must be more alike by
            more than noise.
    """
    best = torch.full(colours.shape[1:], math.inf, dtype=torch.float64, device=colours.device)
    result = torch.empty_like(best)
    margin = 0.0  # the first is the nearest
    for rows, columns in itertools.product((y, y.other(image.shape[2])), (x, x.other(image.shape[3]))):
        difference = (pick(image, rows, columns) - colours).abs().amax(0) + margin
        margin = 0.0 if coarse else _ALIKE
        result = torch.where(difference < best, read(depth, slope, rows, columns), result)
        best = torch.minimum(best, difference)
    return result


def pick(values: Tensor, y: Reading, x: Reading) -> Tensor:
    """Return the first map's values (C, rows, columns) at the pixels that are read, float64."""
    return values[0].index_select(1, y.pixels).index_select(2, x.pixels).double()
