"""Decoupled dynamic filters in the place of full convolutions, with the arguments of nn.Conv2d."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ddfnet.nn.ddf import DDF2d
from ddfnet.nn.filter_norm import EPS
from ddfnet.ops.geometry import Pair


class DDFConv2d(nn.Module):
    r"""`DDF2d` with the arguments and the output size of ``nn.Conv2d``; a 1x1 convolution mixes the channels.

    .. math::
        y = W\, \mathrm{DDF2d}(x) + b

    The layer has the 1x1 convolution W if the channels in and out differ or ``pointwise=True``; without it the layer is
    depthwise.

    Args:
        in_channels: C of the input (N, C, H, W).
        out_channels: channels of the output.
        kernel_size: taps, an int or (h, w).
        stride: pixels, an int or (h, w).
        padding: pixels of zeros on each side, an int or (h, w), or ``"same"`` or ``"valid"`` as in ``nn.Conv2d``.
        dilation: pixels between taps, an int or (h, w).
        bias: add one value per channel to the output: the 1x1 convolution's bias or, without that convolution, a
            parameter that starts with zeros.
        groups: 1; nothing else is implemented.
        padding_mode: ``"zeros"``; nothing else is implemented.
        pointwise: have the 1x1 convolution even if as many channels go in as come out.
        heads, reduction, combine, norm, norm_eps, filters, zero_init, static: see `DDF2d`.
        device: device of the parameters.
        dtype: dtype of the parameters.

    Returns:
        (N, out_channels, Ho, Wo), of the size that ``nn.Conv2d`` gives.

    Raises:
        ValueError: as `DDF2d`.
        TypeError: as `DDF2d`; a bias that is not a bool, such as ``nn.Conv2d``'s groups by position.
        NotImplementedError: another ``groups`` or ``padding_mode``.

    Example:
        >>> import torch
        >>> from ddfnet.nn import DDFConv2d
        >>> layer = DDFConv2d(16, 32, kernel_size=3, padding=1)
        >>> layer(torch.randn(2, 16, 24, 24)).shape
        torch.Size([2, 32, 24, 24])

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021. The 1x1 convolution is how the paper's counts
    for ResNet-18 (table 4) come out, where a depthwise filter takes the place of convolutions that change the channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        bias: bool = True,
        *,
        groups: int = 1,
        padding_mode: str = "zeros",
        pointwise: bool = False,
        heads: int = 1,
        reduction: float = 0.2,
        combine: str = "mul",
        norm: str = "filter",
        norm_eps: float = EPS,
        filters: str = "both",
        zero_init: bool = False,
        static: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be a bool, got {bias!r}; the arguments after it go by name")
        if groups != 1:
            raise NotImplementedError(
                f"DDFConv2d has groups=1 alone, got {groups=}; heads give spatial filters that differ between channels"
            )
        if padding_mode != "zeros":
            raise NotImplementedError(f"DDFConv2d pads with zeros alone, got {padding_mode=}; pad the input with F.pad")
        if out_channels < 1:
            raise ValueError(f"out_channels must be at least 1, got {out_channels}")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.ddf = DDF2d(
            in_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            heads=heads,
            reduction=reduction,
            combine=combine,
            norm=norm,
            norm_eps=norm_eps,
            filters=filters,
            zero_init=zero_init,
            static=static,
            **factory,
        )
        self.pointwise: nn.Conv2d | None = None
        self.bias: nn.Parameter | None = None
        if pointwise or in_channels != out_channels:
            self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias, **factory)
        elif bias:
            self.bias = nn.Parameter(torch.empty(out_channels, **factory))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the bias with zeros, if it is not that of the 1x1 convolution."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ddf(x)
        if self.pointwise is not None:
            x = self.pointwise(x)
        if self.bias is not None:
            x = x + self.bias.to(x.dtype)[:, None, None]  # autocast may have made x a half type
        return x
