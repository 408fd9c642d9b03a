"""Decoupled dynamic filters as a layer, which predicts both filters from the map and filters the map with them."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.nn.branches import ChannelBranch, SpatialBranch, check_channels, check_map, tap_deviation
from ddfnet.nn.filter_norm import EPS
from ddfnet.nn.layer_op import filter_layer, is_one_operator
from ddfnet.ops import ddf
from ddfnet.ops.geometry import Combine, Pair, conv_output_size, pair

_FILTERS = ("both", "spatial", "channel")


class DDF2d(nn.Module):
    r"""A filter for each pixel and channel, predicted from the input: the DDF module.

    .. math::
        D^{sp} = \mathrm{norm}(W_{sp} x), \qquad
        D^{ch} = \mathrm{norm}(W_2\, \mathrm{relu}(W_1\, \mathrm{pool}(x))), \qquad y = \mathrm{ddf}(x, D^{ch}, D^{sp})

    The layer is depthwise, with as many channels out as in and no bias. It takes the place of a depthwise convolution;
    `DDFConv2d` takes that of a full one. The spatial filter of an output pixel is predicted, by a 1x1 convolution, from
    the input pixel at the center of its window, or from the nearest one where the center lies in the padding. For
    inference, `ddfnet.surgery.fuse` folds the batch norm and the ReLU that follow it into it (`FusedDDF2d`).

    Args:
        channels: C of the input (N, C, H, W), from 1 on.
        kernel_size: taps, an int or (h, w); odd or even.
        stride: pixels, an int or (h, w).
        padding: pixels of zeros on each side, an int or (h, w); None is ``(dilation*(kernel_size - 1))//2``. As in
            ``nn.Conv2d``, ``"valid"`` is 0 and ``"same"``, which needs stride 1, gives the output the input's size.
        dilation: pixels between taps, an int or (h, w).
        heads: spatial filters per pixel, each for channels/heads channels in a row; divides ``channels``.
        reduction: width of the channel branch's bottleneck as a share of ``channels``, above 0; at least one wide.
        combine: how the two filters meet, tap by tap, ``"mul"`` or ``"add"``.
        norm: how predicted filters are normalised: ``"filter"`` (`FilterNorm`), ``"batch"`` (batch normalisation, which
            in training needs more than one sample), ``"sigmoid"``, ``"softmax"`` over the taps, or ``"none"``.
        norm_eps: number that ``norm="filter"`` adds to the deviation of a filter; the official code adds 1e-10.
        filters: the filters that there are, ``"both"``, ``"spatial"`` or ``"channel"``.
        zero_init: initialize the layer as a depthwise convolution with random weights, which learns from there to
            adapt: the weights that predict filters from the input are zero at first, and the filters are their biases.
            With ``norm="none"`` that holds as it stands, and the spatial filters begin as ones (as zeros with
            ``"add"``); other norms shape the filters. Not with ``norm="batch"``.
        static: have a depthwise weight W besides, which the predicted filters change:

            .. math::
                y = \mathrm{ddf}(x,\ W + D^{ch},\ 1 + D^{sp})

            (``"add"`` has 0 for 1). The layer begins as the depthwise convolution with W, exactly: with
            ``norm="filter"`` the scales of both norms are parameters that begin as zeros, with ``"none"`` the weights
            that predict filters do. `weight` is W, (C, 1, kH, kW). No other norm, and not with ``zero_init``.
        device: device of the parameters.
        dtype: dtype of the parameters.

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
        norm_eps: float = EPS,
        filters: str = "both",
        zero_init: bool = False,
        static: bool = False,
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
        self.padding, self.extra_padding = self._resolve(padding)
        if zero_init and norm == "batch":
            raise ValueError("zero_init=True needs another norm than 'batch', to which equal filters are all zero")
        if static and (norm not in ("filter", "none") or zero_init):
            raise ValueError(
                f"static=True needs norm='filter' or 'none' and no zero_init, got {norm=} and {zero_init=}; "
                "take them with static=False, for these filters cannot begin as changes of zero"
            )
        self.zero_init, self.norm = zero_init, norm
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        options: dict[str, Any] = {"norm": norm, "nonlinearity": "relu", "norm_eps": norm_eps, "gated": static}
        options |= factory
        spatial_fill = channel_fill = nn.init.zeros_ if static and norm == "none" else None
        if zero_init:
            std = tap_deviation("relu", self.kernel_size) if norm == "none" else 1.0
            spatial_fill = channel_fill = functools.partial(nn.init.normal_, std=std)
            if norm == "none" and filters == "both":
                # The identity leaves the channel filter as it is. Alone or before a norm, equal taps are no filter.
                spatial_fill = functools.partial(nn.init.constant_, val=self.combine.identity)
        self.weight: nn.Parameter | None = None
        if static:
            self.weight = nn.Parameter(torch.empty(channels, 1, *self.kernel_size, **factory))
        self.reset_parameters()
        self.spatial = self.channel = None
        if filters != "channel":
            self.spatial = SpatialBranch(
                channels, heads, self.kernel_size, stride=self.stride, fill=spatial_fill, **options
            )
        if filters != "spatial":
            self.channel = ChannelBranch(channels, self.kernel_size, reduction=reduction, fill=channel_fill, **options)

    def reset_parameters(self) -> None:
        """Initialize the static weight, if there is one, with noise of the deviation that a tap has for ReLU."""
        if self.weight is not None:
            nn.init.normal_(self.weight, std=tap_deviation("relu", self.kernel_size))

    def reset_zero_init(self) -> None:
        """Initialize the branches as ``zero_init`` or ``static`` asks; without them do nothing.

        Call it after code that initializes all convolutions of a network, as timm's does.

        Example:
            >>> import torch
            >>> from ddfnet.nn import DDF2d
            >>> layer = DDF2d(8, norm="none", zero_init=True)
            >>> torch.nn.init.normal_(layer.spatial.conv.weight)[0, 0].shape
            torch.Size([1, 1])
            >>> layer.reset_zero_init()
            >>> float(layer.spatial.conv.weight.abs().max())
            0.0
        """
        if not (self.zero_init or (self.static and self.norm == "none")):
            return
        if self.spatial is not None:
            self.spatial.conv.reset_parameters()
        if self.channel is not None:
            self.channel.expand.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor) and self.is_one_operator():
            return self.call_operator(x)
        check_map("the input of DDF2d", x, self.channels)
        padded = F.pad(x, (0, self.extra_padding[1], 0, self.extra_padding[0])) if any(self.extra_padding) else x
        if isinstance(x, Tensor):  # the stand-ins of a tracer have no sizes
            # Raises where the output would be empty, before the branches are asked for filters of no positions.
            conv_output_size(padded.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        return ddf(
            padded,
            *self.predict(x),
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            combine=self.combine,
        )

    def predict(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the channel filters (N, C, kH, kW) and the spatial filters (N, heads*K, Ho, Wo) of a map.

        They are what `ddfnet.ddf` filters the map with; None is a filter that the layer does not have.

        Example:
            >>> import torch
            >>> from ddfnet.nn import DDF2d
            >>> channel, spatial = DDF2d(8, heads=2).predict(torch.randn(1, 8, 5, 6))
            >>> channel.shape, spatial.shape
            (torch.Size([1, 8, 3, 3]), torch.Size([1, 18, 5, 6]))
        """
        channel = None if self.channel is None else self.channel(x)
        spatial = None if self.spatial is None else self.spatial(self.window_centers(x))
        if self.weight is not None:
            weight = self.weight.squeeze(1)
            if channel is None:
                channel = weight.to(x.dtype if spatial is None else spatial.dtype).expand(x.shape[0], -1, -1, -1)
            else:
                channel = (channel + weight).to(channel.dtype)  # under autocast in float32, rounded once
            if spatial is not None and self.combine.identity:
                spatial = spatial + self.combine.identity
        return channel, spatial

    def is_one_operator(self) -> bool:
        """Return whether a call is one operator, ``ddfnet::ddf_layer``, instead of calls of the branches.

        The operator has both filters, ``norm="filter"`` and centered windows, and needs branches in which no part has a
        hook or was exchanged. A compiler and a tracer get the operations of the branches.
        """
        return (
            not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined]
            and is_one_operator(self.spatial, self.channel)
            and self.is_centered
            and self.spatial.conv.stride == self.stride  # type: ignore[union-attr]
        )

    def call_operator(self, x: Tensor, *epilogue: Any) -> Tensor:
        """Call ``ddfnet::ddf_layer``, with a scale, a shift and ReLU at the end if they are given."""
        check_map(f"the input of {type(self).__name__}", x, self.channels)
        conv_output_size(x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation)
        geometry = self.kernel_size, self.stride, self.padding, self.dilation, self.combine.value
        return filter_layer(x, self.spatial, self.channel, self.weight, geometry, *epilogue)

    @property
    def static(self) -> bool:
        """Return whether there is a static weight."""
        return self.weight is not None

    @property
    def is_centered(self) -> bool:
        """Return whether each window's center is the pixel at ``stride`` times its position, inside of the map."""
        spans = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        return self.extra_padding == (0, 0) and [2 * p for p in self.padding] == spans

    def _resolve(self, padding: Pair | str | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the zeros on each side of the map, and those that the bottom and the right have besides."""
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

    def window_centers(self, x: Tensor) -> Tensor:
        """Return the map whose pixels, taken with the layer's stride, are the centers of the windows.

        The window of output pixel y begins at ``y*stride - padding`` and is ``dilation*(kernel_size - 1) + 1`` long.
        With the default padding of an odd kernel its center is ``y*stride``, and the map is x itself.
        """
        for dim, (kernel, dilation, before, extra) in enumerate(
            zip(self.kernel_size, self.dilation, self.padding, self.extra_padding, strict=True), start=2
        ):
            span, size = dilation * (kernel - 1), x.shape[dim]
            first, last = (
                span // 2 - before,
                (span + 1) // 2 - before - extra,
            )  # pixels to cut off, or below 0 to repeat
            if first > 0 or last > 0:
                x = x.narrow(dim, max(first, 0), size - max(first, 0) - max(last, 0))
            if first < 0 or last < 0:
                x = torch.cat(
                    [x.narrow(dim, 0, 1)] * -min(first, 0) + [x] + [x.narrow(dim, -1, 1)] * -min(last, 0), dim
                )
        return x

    def extra_repr(self) -> str:
        padding = f"{self.padding}+{self.extra_padding}" if any(self.extra_padding) else f"{self.padding}"
        return (
            f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}, padding={padding}, "
            f"dilation={self.dilation}, heads={self.heads}, combine={self.combine!r}, filters={self.filters!r}"
        ) + ", static=True" * self.static
