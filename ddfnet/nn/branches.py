"""Branches that predict filters from a map, and the normalisations of filters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ddfnet.nn.filter_norm import FilterNorm
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
        norm, nonlinearity: see `make_norm`.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        kernel: Kernel,
        *,
        stride: Kernel = (1, 1),
        groups: int = 1,
        norm: str,
        nonlinearity: str,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, filters * math.prod(kernel), 1, stride, groups=groups, **factory)
        self.norm = make_norm(norm, filters, kernel, "spatial", nonlinearity, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """Predict filters (N, filters*K, Ho, Wo) from (N, C, H, W)."""
        filters: Tensor = self.norm(self.conv(x))
        return filters


class ChannelBranch(nn.Module):
    """Prediction of one filter per channel: global average, a bottleneck of two layers with ReLU, the normalisation.

    Args:
        channels: C of the map (N, C, H, W).
        kernel: taps (h, w).
        num_sets: independent sets of filters, one per sub-pixel; each has its own bottleneck.
        reduction: width of the bottleneck as a share of C, rounded down, but never 0.
        norm, nonlinearity: see `make_norm`.
    """

    def __init__(
        self,
        channels: int,
        kernel: Kernel,
        *,
        num_sets: int = 1,
        reduction: float,
        norm: str,
        nonlinearity: str,
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
        self.norm = make_norm(norm, filters, kernel, "channel", nonlinearity, **factory)

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


def init_static_(conv: nn.Conv2d, taps: Tensor | None, norm: str, kernel: Kernel, nonlinearity: str) -> None:
    """Initialize a convolution to predict the same filters from any map: zeros in its weight, the filters in its bias.

    Args:
        conv: predicts the filters, with a bias.
        taps: the taps before they are normalised, (filters*K,), or one number for all of them; None draws them.
        norm: the normalisation after the convolution. Before ``"none"`` drawn taps are as large as `make_norm`'s.
        kernel: taps (h, w).
        nonlinearity: see `make_norm`.
    """
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.zero_()
        if taps is not None:
            conv.bias.copy_(taps)
        elif norm == "none":
            gain = nn.init.calculate_gain(nonlinearity) / math.sqrt(math.prod(kernel))  # type: ignore[arg-type]
            conv.bias.normal_(std=gain)
        else:
            conv.bias.normal_()


def make_norm(norm: str, filters: int, kernel: Kernel, kind: str, nonlinearity: str, **factory: Any) -> nn.Module:
    """Return the layer that normalises (N, filters*K, H, W), with H = W = 1 for channel filters.

    Args:
        norm: ``"filter"`` (`FilterNorm`), ``"batch"`` (batch normalisation of each tap), ``"sigmoid"``, ``"softmax"``
            (over the taps of a filter) or ``"none"``.
        filters: filters per pixel.
        kernel: taps (h, w).
        kind: ``"spatial"`` or ``"channel"``.
        nonlinearity: sets the initial deviation of a tap, ``calculate_gain(nonlinearity)/sqrt(K)``, if a norm has one.
        factory: device and dtype of the parameters.
    """
    check_norm(norm)
    taps = math.prod(kernel)
    if norm == "filter":
        return FilterNorm(filters, kernel, kind, nonlinearity=nonlinearity, **factory)
    if norm == "batch":
        batch_norm = nn.BatchNorm2d(filters * taps, **factory)
        nn.init.constant_(batch_norm.weight, nn.init.calculate_gain(nonlinearity) / math.sqrt(taps))  # type: ignore[arg-type]
        return batch_norm
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
