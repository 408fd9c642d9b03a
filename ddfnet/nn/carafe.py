"""CARAFE: upsampling with a filter for each output pixel, the same for all channels, predicted from what lies there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet.nn.branches import TapSoftmax, check_channels, check_map
from ddfnet.ops import ddf_upsample
from ddfnet.ops.geometry import Pair, odd_pair, pair


class CARAFE(nn.Module):
    r"""Upsample by content-aware reassembly: the operator with a softmax spatial filter and no channel filter.

    .. math::
        y = \mathrm{ddf\_upsample}(x, 1, D^{sp}), \qquad D^{sp} = \mathrm{softmax}(W_e * (W_c\, x))

    where :math:`W_c` is a 1x1 convolution that compresses the channels, and :math:`W_e` a convolution that predicts
    the K taps of each of the s*s sub-pixels of a pixel. Each filter is positive with sum 1.

    Args:
        channels: C of the input (N, C, H, W), from 1 on.
        scale_factor: an int or (h, w), from 1 on.
        kernel_size: taps of the predicted filters, an odd int or (h, w).
        heads: filters a sub-pixel, each for channels/heads channels in a row; divides ``channels``.
        compressed: channels between the two convolutions.
        encoder_size: taps of the second convolution, an odd int or (h, w).
        device: of the parameters.
        dtype: of the parameters.

    Returns:
        (N, C, s*H, s*W).

    Raises:
        ValueError: a wrong option; an input of another shape.
        TypeError: an input that is not a tensor; a size that is not an int.

    Example:
        >>> import torch
        >>> from ddfnet.nn import CARAFE
        >>> CARAFE(32)(torch.randn(2, 32, 20, 30)).shape
        torch.Size([2, 32, 40, 60])

    Source: Wang et al., CARAFE: Content-Aware ReAssembly of FEatures, ICCV 2019, whose sizes the defaults are. Its own
    layer, in mmcv, orders the predicted taps otherwise; for its weights there is `ddfnet.family.CARAFEPack`.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: Pair = 2,
        *,
        kernel_size: Pair = 5,
        heads: int = 1,
        compressed: int = 64,
        encoder_size: Pair = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_channels(channels, heads)
        if compressed < 1:
            raise ValueError(f"compressed must be at least 1, got {compressed}")
        self.channels, self.heads = channels, heads
        self.scale_factor = pair("scale_factor", scale_factor, 1)
        self.kernel_size = odd_pair("kernel_size", kernel_size)
        encoder = odd_pair("encoder_size", encoder_size)
        filters, taps = math.prod(self.scale_factor) * heads, math.prod(self.kernel_size)
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.compress = nn.Conv2d(channels, compressed, 1, **factory)
        padding = (encoder[0] // 2, encoder[1] // 2)
        self.encode = nn.Conv2d(compressed, filters * taps, encoder, padding=padding, **factory)
        self.norm = TapSoftmax(filters, taps)
        nn.init.xavier_uniform_(self.compress.weight)
        nn.init.normal_(self.encode.weight, std=1e-3)  # at first all filters are nearly averages
        for convolution in (self.compress, self.encode):
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        check_map("the input of CARAFE", x, self.channels)
        filters = self.norm(self.encode(self.compress(x)))
        return ddf_upsample(x, None, filters, scale_factor=self.scale_factor, kernel_size=self.kernel_size)

    def extra_repr(self) -> str:
        return f"{self.channels}, scale_factor={self.scale_factor}, kernel_size={self.kernel_size}, heads={self.heads}"
