"""The decoupled dynamic filter as a layer: predict both filters from the map, then filter the map with them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.nn.branches import ChannelBranch, SpatialBranch, begin_static, check_channels, check_map
from ddfnet.nn.fused import filter_whole
from ddfnet.ops import ddf
from ddfnet.ops.geometry import Combine, Pair, conv_output_size, pair

_FILTERS = ("both", "spatial", "channel")


class DDF2d(nn.Module):
    r"""Filter each pixel and channel with a kernel of its own that is predicted from the input: the DDF module.

    .. math::
        D^{sp} = \mathrm{norm}(W_{sp} x), \qquad
        D^{ch} = \mathrm{norm}(W_2\, \mathrm{relu}(W_1\, \mathrm{pool}(x))), \qquad y = \mathrm{ddf}(x, D^{ch}, D^{sp})

    Depthwise: as many channels out as in, no bias. It takes the place of a depthwise convolution; `DDFConv2d` takes
    that of a full one. The spatial filter of an output pixel is predicted, by a 1x1 convolution, from the input pixel
    in the middle of its window, or from the nearest one where the middle lies in the padding.

    Args:
        channels: C of the input (N, C, H, W), from 1 on.
        kernel_size: taps, an int or (h, w); odd or even.
        stride: pixels, an int or (h, w).
        padding: pixels of zeros on each side, an int or (h, w); None is ``(dilation*(kernel_size - 1))//2``. As in
            ``nn.Conv2d``, ``"valid"`` is 0 and ``"same"``, which needs stride 1, gives the output the input's size.
        dilation: pixels between taps, an int or (h, w).
        heads: spatial filters a pixel, each for channels/heads channels in a row; divides ``channels``.
        reduction: width of the channel branch's bottleneck as a share of ``channels``, above 0; at least one wide.
        combine: how the two filters meet, tap by tap, ``"mul"`` or ``"add"``.
        norm: how predicted filters are normalised: ``"filter"`` (`FilterNorm`), ``"batch"`` (batch normalisation, which
            in training needs more than one sample), ``"sigmoid"``, ``"softmax"`` over the taps, or ``"none"``.
        filters: which filters there are, ``"both"``, ``"spatial"`` or ``"channel"``.
        zero_init: whether the layer begins as a depthwise convolution, with random weights, and learns from there to
            adapt: the weights that predict filters from the input are zero at first, and the filters their biases. With
            ``norm="none"`` that holds as it stands, and the spatial filters begin as ones (as zeros with ``"add"``);
            other norms shape the filters. Not with ``norm="batch"``.
        device: of the parameters.
        dtype: of the parameters.

    Returns:
        (N, C, Ho, Wo) with conv2d's output size, in the input's memory format.

    Raises:
        ValueError: a wrong option; one tap with ``norm="filter"``; an input of another shape, or too small.
        TypeError: an input that is not a tensor; a size that is not an int.

    Example:
        >>> import torch
        >>> from ddfnet.nn import DDF2d
        >>> layer = DDF2d(64, kernel_size=3, stride=2)
        >>> layer(torch.randn(2, 64, 29, 29)).shape
        torch.Size([2, 64, 15, 15])

    Source: Zhou et al., Decoupled Dynamic Filter Networks, CVPR 2021, section 4, figure 2b and equations 2 and 3;
    heads and "add" are its code's, ``zero_init`` is ours.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Pair = 3,
        stride: Pair = 1,
        padding: Pair | str | None = None,
        dilation: Pair = 1,
        *,
        heads: int = 1,
        reduction: float = 0.2,
        combine: str = "mul",
        norm: str = "filter",
        filters: str = "both",
        zero_init: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_channels(channels, heads)
        if filters not in _FILTERS:
            raise ValueError(f"filters must be 'both', 'spatial' or 'channel', got {filters!r}")
        self.channels, self.heads, self.combine, self.filters = channels, heads, Combine(combine), filters
        self.kernel_size = pair("kernel_size", kernel_size, 1)
        self.stride = pair("stride", stride, 1)
        self.dilation = pair("dilation", dilation, 1)
        self.padding, self.extra = self._resolve(padding)
        self.after_scale: Tensor | None
        self.after_shift: Tensor | None
        self.register_buffer("after_scale", None)
        self.register_buffer("after_shift", None)
        self.relu_after = False
        options: dict[str, Any] = {"norm": norm, "nonlinearity": "relu", "device": device, "dtype": dtype}
        self.spatial = self.channel = None
        if filters != "channel":
            self.spatial = SpatialBranch(channels, heads, self.kernel_size, stride=self.stride, **options)
        if filters != "spatial":
            self.channel = ChannelBranch(channels, self.kernel_size, reduction=reduction, **options)
        if zero_init and norm == "batch":
            raise ValueError("zero_init=True needs another norm than 'batch', to which equal filters are all zero")
        self.zero_init, self.norm = zero_init, norm
        self.begin()

    def begin(self) -> None:
        """Begin as ``zero_init`` asks: for whoever initialises convolutions after the network is built, as timm does.

        Without it nothing changes.

        Example:
            >>> import torch
            >>> from ddfnet.nn import DDF2d
            >>> layer = DDF2d(8, norm="none", zero_init=True)
            >>> torch.nn.init.normal_(layer.spatial.conv.weight)[0, 0].shape
            torch.Size([1, 1])
            >>> layer.begin()
            >>> float(layer.spatial.conv.weight.abs().max())
            0.0
        """
        if not self.zero_init:
            return
        start = None
        if self.norm == "none" and self.filters == "both":
            # Equal taps leave the channel filter as it is; alone, or to a norm, they would be no filter.
            start = torch.tensor(self.combine.identity)
        if self.spatial is not None:
            begin_static(self.spatial.conv, start, self.norm, self.kernel_size, "relu")
        if self.channel is not None:
            begin_static(self.channel.expand, None, self.norm, self.kernel_size, "relu")

    def forward(self, x: Tensor) -> Tensor:
        check_map("the input of DDF2d", x, self.channels)
        whole = filter_whole(self, x)
        if whole is not None:
            return whole
        padded = F.pad(x, (0, self.extra[1], 0, self.extra[0])) if any(self.extra) else x
        # Raises where nothing would come out, before the branches are asked for filters of no positions.
        conv_output_size(padded.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        y = ddf(
            padded,
            None if self.channel is None else self.channel(x),
            None if self.spatial is None else self.spatial(self.centres(x)),
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            combine=self.combine,
        )
        if self.after_scale is not None and self.after_shift is not None:
            # In the dtype that the filter gave, which under autocast is another than theirs.
            y = (y * self.after_scale[:, None, None] + self.after_shift[:, None, None]).to(y.dtype)
        return F.relu(y) if self.relu_after else y

    def fold_after(self, scale: Tensor, shift: Tensor, relu: bool) -> None:
        """Let ``y * scale + shift``, then ReLU if asked for, follow the filter: what a batch norm does in evaluation.

        Args:
            scale: (C,), as shift; copies of them become buffers, which a state dict holds. ``relu`` is not in it: it is
                loaded into a layer that the same was folded into.
            shift: (C,).
            relu: whether the positive part is taken in the end.

        Raises:
            ValueError: another shape; something was folded before.

        Example:
            >>> import torch
            >>> from ddfnet.nn import DDF2d
            >>> layer = DDF2d(8)
            >>> layer.fold_after(torch.full((8,), 2.0), torch.zeros(8), relu=True)
            >>> bool((layer(torch.randn(1, 8, 5, 5)) >= 0).all())
            True
        """
        if self.after_scale is not None or self.relu_after:
            raise ValueError("something was folded into this DDF2d before; fold once")
        for name, value in (("scale", scale), ("shift", shift)):
            if value.shape != (self.channels,):
                raise ValueError(f"{name} must be (C,) = ({self.channels},), got {tuple(value.shape)}")
        like = next(self.parameters())
        self.after_scale, self.after_shift = (
            value.detach().to(like).clone(memory_format=torch.contiguous_format) for value in (scale, shift)
        )
        self.relu_after = relu

    @property
    def centred(self) -> bool:
        """Whether the middle of each window is a pixel of the map, from which its spatial filter is predicted."""
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return self.extra == (0, 0) and [2 * p for p in self.padding] == spans

    def _resolve(self, padding: Pair | str | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros on each side of the map, and those that the bottom and the right have besides."""
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        half = (spans[0] // 2, spans[1] // 2)
        if padding is None:
            return half, (0, 0)
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding == "same":
            if self.stride != (1, 1):
                raise ValueError(
                    f"padding='same' needs stride 1, got stride={self.stride}; leave padding out or use a number"
                )
            return half, (spans[0] % 2, spans[1] % 2)
        if isinstance(padding, str):
            raise ValueError(f"padding must be an int, (h, w), None, 'same' or 'valid', got {padding!r}")
        return pair("padding", padding, 0), (0, 0)

    def centres(self, x: Tensor) -> Tensor:
        """The map whose pixels, taken with the layer's stride, are the middles of the windows.

        The window of output pixel y begins at ``y*stride - padding`` and is ``dilation*(kernel_size - 1) + 1`` long.
        With the default padding of an odd kernel its middle is ``y*stride``, and the map is x itself.
        """
        for dim, (kernel, dilation, before, extra) in enumerate(
            zip(self.kernel_size, self.dilation, self.padding, self.extra, strict=True), start=2
        ):
            span, size = dilation * (kernel - 1), x.shape[dim]
            first, last = span // 2 - before, (span + 1) // 2 - before - extra  # to cut off; below 0 to repeat instead
            if first > 0 or last > 0:
                x = x.narrow(dim, max(first, 0), size - max(first, 0) - max(last, 0))
            if first < 0 or last < 0:
                x = torch.cat(
                    [x.narrow(dim, 0, 1)] * -min(first, 0) + [x] + [x.narrow(dim, -1, 1)] * -min(last, 0), dim
                )
        return x

    def extra_repr(self) -> str:
        padding = f"{self.padding}+{self.extra}" if any(self.extra) else f"{self.padding}"
        return (
            f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={padding}, "
            f"dilation={self.dilation}, heads={self.heads}, combine={self.combine!r}, filters={self.filters!r}"
            + ", scaled and shifted" * (self.after_scale is not None)
            + ", relu" * self.relu_after
        )
