"""Views of a map, shifted to each tap of a window."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch.nn.functional as F
from torch import Tensor

from ddfnet.ops.geometry import Geometry, Pair, default_padding, pair


def window_geometry(
    size: tuple[int, int], kernel_size: Pair, stride: Pair = 1, padding: Pair | None = None, dilation: Pair = 1
) -> Geometry:
    """Return the geometry of the windows of a map, as a convolution has them.

    Args:
        size: (H, W) of the map.
        kernel_size, stride, padding, dilation: as in `ddfnet.ddf`.

    Raises:
        ValueError: the output would be empty; a value out of range.
    """
    kernel, steps = pair("kernel_size", kernel_size, 1), pair("dilation", dilation, 1)
    zeros = default_padding(kernel, steps) if padding is None else pair("padding", padding, 0)
    geometry = Geometry(kernel, pair("stride", stride, 1), zeros, steps)
    geometry.positions(size)  # raises where there are none
    return geometry


def tap_views(x: Tensor, geometry: Geometry, value: float = 0.0) -> Iterator[Tensor]:
    """Yield the pixels that each tap reads, (N, C, Ho, Wo), with ``value`` outside of the map.

    All of them are views of one padded copy.
    """
    (kh, kw), (sy, sx), (py, px), (dy, dx) = geometry[:4]
    height, width = geometry.positions((x.shape[2], x.shape[3]))
    padded = F.pad(x, (px, px, py, py), value=value)
    for ky, kx in product(range(kh), range(kw)):
        rows = slice(ky * dy, ky * dy + (height - 1) * sy + 1, sy)
        columns = slice(kx * dx, kx * dx + (width - 1) * sx + 1, sx)
        yield padded[:, :, rows, columns]
