"""Filters that come from a map: for each tap, the map shifted to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch.nn.functional as F
from torch import Tensor

from ddfnet.ops.geometry import Pair, conv_output_size, default_padding, pair


class Window:
    """The windows of a map, as a convolution has them.

    Args:
        size: (H, W) of the map.
        kernel_size, stride, padding, dilation: as in `ddfnet.ddf`.

    Raises:
        ValueError: the output would be empty; a value out of range.
    """

    def __init__(
        self,
        size: tuple[int, int],
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | None = None,
        dilation: Pair = 1,
    ) -> None:
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride, self.dilation = pair("stride", stride, 1), pair("dilation", dilation, 1)
        if padding is None:
            self.padding = default_padding(self.kernel_size, self.dilation)
        else:
            self.padding = pair("padding", padding, 0)
        self.size = conv_output_size(size, self.kernel_size, self.stride, self.padding, self.dilation)

    def taps(self, x: Tensor, value: float = 0.0) -> Iterator[Tensor]:
        """What each tap reads, (N, C, Ho, Wo), ``value`` outside of the map: views of one padded copy."""
        (kh, kw), (sy, sx), (py, px), (dy, dx) = self.kernel_size, self.stride, self.padding, self.dilation
        height, width = self.size
        padded = F.pad(x, (px, px, py, py), value=value)
        for ky, kx in product(range(kh), range(kw)):
            rows = slice(ky * dy, ky * dy + (height - 1) * sy + 1, sy)
            columns = slice(kx * dx, kx * dx + (width - 1) * sx + 1, sx)
            yield padded[:, :, rows, columns]
