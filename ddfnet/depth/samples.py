"""Samples of a depth map: the ways to take them, the one in which a map's seem to be taken, and the range nearby."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ddfnet.depth.sizes import ROWS, tile_slices

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = ("point", "average", "bicubic")
"""Ways to take a sample from its block: the value at one place, the mean, or an antialiased bicubic reduction."""

RADIUS = 2
"""Samples on each side in which every sample lies that an output is made of."""

_KNOWN = 0.5  # share of a sample's kernel on valid pixels, from which on the sample is valid
_FLAT = 0.1  # largest change of a surface beside an edge, from sample to sample, in shares of the edge's height
_HEIGHT = 0.1  # share of the map's range: smaller steps are relief and noise
_BETWEEN = (0.2, 0.8)  # where a sample is mixed: between the two sides of an edge, in shares of its height
# Shares of the edges with a mixed sample, from which on the samples are averages, and bicubic ones. On 30 real maps at
# 4x, 8x and 16x nine of ten maps of points are below 0.41, of averages above 0.5, of bicubic reductions above 0.71.
_AVERAGE, _BICUBIC = 0.46, 0.74
_EDGES = 10  # edges below which nothing can be told


def reduce_maps(maps: Tensor, factor: int, samples: str) -> Tensor:
    r"""Reduce maps by a whole factor, as `SAMPLES` says but for ``"point"``.

    .. math::
        low_i = \sum_p k(p - c_i)\, map_p \Big/ \sum_p k(p - c_i)

    with the kernel k of the reduction around the middle :math:`c_i` of block i: a box of ``factor`` pixels, or the
    bicubic kernel (a = -0.5) of four times that width. Both give a plane its value in the middle of the block; the
    second not at the border, where a part of the kernel is cut off.

    Args:
        maps: (N, C, H, W), float32 or float64; the factor divides H and W.
        factor: pixels per sample, from 1 up.
        samples: ``"average"`` or ``"bicubic"``.

    Returns:
        (N, C, H / factor, W / factor).

    Example:
        >>> import torch
        >>> reduce_maps(torch.arange(4.0).reshape(1, 1, 1, 4).expand(1, 1, 2, 4), 2, "average")
        tensor([[[[0.5000, 2.5000]]]])

    Source: Pillow's ``Image.resize(..., BICUBIC)``, of which torch's antialiased bicubic interpolation is a port.
    """
    import torch.nn.functional as F

    if samples == "average":
        return F.avg_pool2d(maps, factor)
    size = maps.shape[2] // factor, maps.shape[3] // factor
    return F.interpolate(maps, size=size, mode="bicubic", align_corners=False, antialias=True)


def reduce_known(maps: Tensor, valid: Tensor, factor: int, samples: str) -> tuple[Tensor, Tensor]:
    """Reduce what is valid of maps as `reduce_maps` does: the kernel counts on valid pixels alone.

    Args:
        maps: (N, 1, H, W), float32 or float64; what is not valid may hold anything.
        valid: (N, 1, H, W), bool.
        factor, samples: those of `reduce_maps`.

    Returns:
        The samples (N, 1, H / factor, W / factor), and which of them have half of their kernel on valid pixels, bool.
    """
    import torch

    share = reduce_maps(valid.to(maps.dtype), factor, samples)
    total = reduce_maps(torch.where(valid, maps, 0), factor, samples)
    return total / share.clamp(min=_KNOWN), share >= _KNOWN


def find_samples(depth: Tensor, valid: Tensor) -> str:
    """Return the way in which a map's samples seem to have been taken, one of `SAMPLES`.

    At an edge between two surfaces a point sample mostly lies on one of the two, an average anywhere between them, and
    a bicubic reduction, whose kernel is wider than a block, has a mixed sample at nearly every edge. Looked at are the
    edges along rows and columns between flat surfaces. Where fewer than 10 are found it is ``"average"``: a sensor's
    sample is a mean over what its pixel sees, and noise hides its edges.

    Args:
        depth: (h, w), floating.
        valid: (h, w), bool.

    Example:
        >>> import torch
        >>> disc = (torch.arange(256.0) - 128).square()
        >>> disc = ((disc[:, None] + disc) < 9000).double()[None, None]
        >>> everywhere = torch.ones(64, 64, dtype=torch.bool)
        >>> find_samples(disc[0, 0, 1::4, 1::4], everywhere)
        'point'
        >>> [find_samples(reduce_maps(disc, 4, way)[0, 0], everywhere) for way in ("average", "bicubic")]
        ['average', 'bicubic']
    """
    import torch

    if not valid.any():
        return "average"
    low, high = valid_range(depth, valid)
    least = _HEIGHT * (high - low)
    maps = ((depth, valid), (depth.T, valid.T))
    places = torch.cat(
        [
            _edge_places(values[rows], known[rows], least)
            for values, known in maps
            for rows in tile_slices(len(values), ROWS)  # little is held besides the map
        ]
    )
    if len(places) < _EDGES:
        return "average"
    mixed = float(((places > _BETWEEN[0]) & (places < _BETWEEN[1])).double().mean())
    return "point" if mixed < _AVERAGE else "average" if mixed < _BICUBIC else "bicubic"


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
    import torch.nn.functional as F

    window = (2 * radius + 1, 1, radius)
    high = F.max_pool2d(depth.masked_fill(~valid, -math.inf), *window)
    low = -F.max_pool2d((-depth).masked_fill(~valid, -math.inf), *window)
    return low, high


def valid_range(depth: Tensor, valid: Tensor) -> tuple[float, float]:
    """Return the least and the largest valid depth; inf and -inf where none is.

    By rows, for a copy of what is valid of a large map would be the largest of all that is held.

    Args:
        depth: (h, w), of any real type.
        valid: (h, w), bool.
    """
    low, high = math.inf, -math.inf
    for rows in tile_slices(len(depth), ROWS):
        own = depth[rows][valid[rows]].detach().double()
        if len(own):
            least, most = own.aminmax()
            low, high = min(low, float(least)), max(high, float(most))
    return low, high


def _edge_places(depth: Tensor, valid: Tensor, least: float) -> Tensor:
    """Return where the middle sample of each edge along the rows lies, from 0 on its left side to 1 on its right one.

    An edge is five valid samples a, b, m, c, d: from b to c they rise or fall by more than ``least``, from a to b and
    from c to d by a tenth of that at most.
    """
    import torch

    count = depth.shape[1] - 4
    if count < 1:
        return depth.new_empty(0)
    a, b, m, c, d = (depth[:, start : start + count] for start in range(5))
    there = torch.stack([valid[:, start : start + count] for start in range(5)]).all(0)
    height = c - b
    flat = torch.maximum((b - a).abs(), (d - c).abs()) <= _FLAT * height.abs()
    edge = there & flat & (height.abs() > least)
    return ((m - b) / height)[edge]
