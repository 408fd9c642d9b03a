"""Branches that predict filters from a map, and the normalisations of filters."""

from __future__ import annotations

import functools
import math
from typing import Any

from torch import Tensor, nn

from ddfnet.nn import starts
from ddfnet.nn.filter_norm import EPS, FilterNorm
from ddfnet.ops.checks import check_dense
from ddfnet.ops.recording import is_recorded, record_call

Kernel = tuple[int, int]

_NORMS = ("filter", "batch", "sigmoid", "softmax", "none")


class SpatialBranch(nn.Module):
    """Prediction of one filter per output pixel: a 1x1 convolution to the taps, then the normalisation.

    Args:
        in_channels: C of the map (N, C, H, W) that the filters are predicted from.
        filters: filters per pixel, G heads or G heads of each sub-pixel.
        kernel: taps (h, w).
        stride: pixels from one predicted filter to the next.
        groups: groups of the convolution.
        fill: initialises the convolution to predict the same filters from any map, see `ddfnet.nn.starts.static`; None
            is random.
        beside: channels of a second map at the size of the filters, whose prediction is added before the normalisation;
            None is no such map.
        norm, nonlinearity, norm_eps, gated: see `make_norm`.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel: Kernel,
        *,
        stride: Kernel = (1, 1),
        groups: int = 1,
        fill: starts.Start | None = None,
        beside: int | None = None,
        norm: str,
        nonlinearity: str,
        norm_eps: float = EPS,
        gated: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, filters * math.prod(kernel), 1, stride, groups=groups, **factory)
        if fill is not None:
            starts.with_start(self.conv, functools.partial(starts.static, fill=fill))
        self.beside: nn.Conv2d | None = None
        if beside is not None:
            # Without a bias, for the first convolution has one.
            self.beside = nn.Conv2d(beside, self.conv.out_channels, 1, bias=False, **factory)
            if fill is not None:
                starts.with_start(self.beside, starts.no_filters)
        self.norm = make_norm(norm, filters, kernel, "spatial", nonlinearity, norm_eps, gated, **factory)

    def forward(self, x: Tensor, second: Tensor | None = None) -> Tensor:
        """Predict filters (N, filters*K, Ho, Wo) from (N, C, H, W), and from the second map of ``beside``."""
        found = self.conv(x)
        filters: Tensor = self.norm(found if self.beside is None else found + self.beside(second))
        return filters


class ChannelBranch(nn.Module):
    """Prediction of one filter per channel: global average, a bottleneck of two layers with ReLU, the normalisation.

    Args:
        channels: C of the map (N, C, H, W).
        kernel: taps (h, w).
        num_sets: independent sets of filters, one per sub-pixel; each has its own bottleneck.
        reduction: width of the bottleneck as a share of C, rounded down, but never 0.
        fill: as of `SpatialBranch`.
        norm, nonlinearity, norm_eps, gated: see `make_norm`.
    """

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        *,
        num_sets: int = 1,
        reduction: float,
        fill: starts.Start | None = None,
        norm: str,
        nonlinearity: str,
        norm_eps: float = EPS,
        gated: bool = False,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.kernel, self.num_sets = kernel, num_sets
        if reduction <= 0:
            raise ValueError(f"reduction must be above 0, got {reduction}")
        width = max(1, int(channels * reduction)) * num_sets
        filters = channels * num_sets
        self.reduce = nn.Conv2d(channels, width, 1, **factory)
        self.act = nn.ReLU(inplace=True)
        self.expand = nn.Conv2d(width, filters * math.prod(kernel), 1, groups=num_sets, **factory)
        if fill is not None:
            starts.with_start(self.expand, functools.partial(starts.static, fill=fill))
        self.norm = make_norm(norm, filters, kernel, "channel", nonlinearity, norm_eps, gated, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Predict filters (N, num_sets*C, kH, kW) from (N, C, H, W)."""
        filters = self.norm(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))
        return filters.reshape(x.shape[0], self.num_sets * x.shape[1], *self.kernel)


class TapSoftmax(nn.Module):
    """Softmax over the K taps of each filter, which become positive with sum 1: (N, filters*K, H, W) in and out."""

    def __init__(self, filters: int, taps: int) -> None:
        super().__init__()
        self.filters, self.taps = filters, taps

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.filters, self.taps)).softmax(2).flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.filters}, {self.taps}"


def tap_deviation(nonlinearity: str, kernel: Kernel) -> float:
    """Return the initial deviation of a tap, ``calculate_gain(nonlinearity)/sqrt(K)``."""
    return nn.init.calculate_gain(nonlinearity) / math.sqrt(math.prod(kernel))  # type: ignore[arg-type]


def make_norm(
    norm: str,
    filters: int,
    kernel: Kernel,
    kind: str,
    nonlinearity: str,
    eps: float = EPS,
    gated: bool = False,
    **factory: Any,
) -> nn.Module:
    """Return the layer that normalises (N, filters*K, H, W), with H = W = 1 for channel filters.

    Args:
        norm: ``"filter"`` (`FilterNorm`), ``"batch"`` (batch normalisation of each tap), ``"sigmoid"``, ``"softmax"``
            (over the taps of a filter) or ``"none"``.
        filters: filters per pixel.
        kernel: taps (h, w).
        kind: ``"spatial"`` or ``"channel"``.
        nonlinearity: sets the initial deviation of a tap, see `tap_deviation`, if a norm has one.
        eps: number that ``"filter"`` adds to the deviation of a filter.
        gated: give ``"filter"`` a scale that is a parameter and begins as zeros.
        factory: device and dtype of the parameters.
    """
    check_norm(norm)
    taps = math.prod(kernel)
    if norm == "filter" and gated:
        return starts.with_start(FilterNorm(filters, kernel, kind, learn_scale=True, eps=eps, **factory), starts.close)
    if norm == "filter":
        return FilterNorm(filters, kernel, kind, nonlinearity=nonlinearity, eps=eps, **factory)
    if norm == "batch":
        scale = functools.partial(starts.scale, value=tap_deviation(nonlinearity, kernel))
        return starts.with_start(nn.BatchNorm2d(filters * taps, **factory), scale)
    if norm == "sigmoid":
        return nn.Sigmoid()
    if norm == "softmax":
        return TapSoftmax(filters, taps)
    return nn.Identity()


def check_norm(norm: str) -> None:
    """Raise ValueError unless `make_norm` has this normalisation."""
    if norm not in _NORMS:
        *most, last = map(repr, _NORMS)
        raise ValueError(f"norm must be {', '.join(most)} or {last}, got {norm!r}")


def check_map(name: str, x: Tensor, channels: int) -> None:
    """Raise an error that says more than a convolution's unless x is (N, C, H, W) with this C."""
    if not isinstance(x, Tensor) and is_recorded(x):
        record_call(check_map, name, x, channels)
        return
    check_dense(name, x)
    if x.dim() != 4 or x.shape[1] != channels:
        hint = "; add a batch dimension with unsqueeze(0)" if x.dim() == 3 else ""
        raise ValueError(f"{name} must be (N, C, H, W) with C = {channels}, got {tuple(x.shape)}{hint}")


def check_channels(channels: int, heads: int) -> None:
    """Raise ValueError unless there are channels, and the heads divide them."""
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    if heads < 1 or channels % heads:
        raise ValueError(f"heads must divide channels, got {heads=} and {channels=}")
