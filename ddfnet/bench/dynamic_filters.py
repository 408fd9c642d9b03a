"""Other 3x3 dynamic filters for the layer benchmark, each in its common form and tap by tap.

The common form stores every window, by ``F.unfold``. It is checked against the same filter computed tap by tap on
shifted maps, which shares only the parameters with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ddfnet

SIDE = 3
TAPS = SIDE**2


class DynamicFilter(nn.Module):
    """Full dynamic filter: per pixel one from every channel to every channel, predicted by a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.predict = nn.Conv2d(channels, channels**2 * TAPS, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, *_ = x.shape
        filters = self.predict(x).reshape(n, c, c * TAPS, -1)
        return torch.einsum("noip,nip->nop", filters, F.unfold(x, SIDE, padding=SIDE // 2)).reshape(x.shape)

    def tap_by_tap(self, x: Tensor) -> Tensor:
        c, total = x.shape[1], torch.zeros_like(x)
        weight = self.predict.weight.reshape(c, c, TAPS, c)
        for tap, shifted in _shifted(x):
            filters = torch.einsum("oim,nmhw->noihw", weight[:, :, tap], x)
            total = total + (filters * shifted[:, None]).sum(2)
        return total


class DepthwiseDynamicFilter(nn.Module):
    """A dynamic filter per pixel and channel, predicted by a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.predict = nn.Conv2d(channels, channels * TAPS, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        filters = self.predict(x).flatten(2)
        return _per_tap(filters * F.unfold(x, SIDE, padding=SIDE // 2)).sum(2).reshape(x.shape)

    def tap_by_tap(self, x: Tensor) -> Tensor:
        c, total = x.shape[1], torch.zeros_like(x)
        weight = self.predict.weight.reshape(c, TAPS, c)
        for tap, shifted in _shifted(x):
            total = total + torch.einsum("cm,nmhw->nchw", weight[:, tap], x) * shifted
        return total


class PixelAdaptive(nn.Module):
    r"""Pixel-adaptive convolution (PAC): a convolution whose windows are weighted by the similarity of their pixels.

    .. math::
        y_i = \sum_{j \in \Omega(i)} e^{-\frac{1}{2} \lVert f_i - f_j \rVert^2} W_{i-j} x_j

    The guide f is the input here, divided by the root of its channels: distances of unscaled noise would leave only the
    pixel itself.

    Source: Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, equation 3.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.static = nn.Conv2d(channels, channels, SIDE, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        alike = self._alike(x)
        windows = _per_tap(F.unfold(x, SIDE, padding=SIDE // 2)) * alike
        return (self.static.weight.flatten(1) @ windows.flatten(1, 2)).reshape(x.shape)

    def _alike(self, guide: Tensor) -> Tensor:
        distances = _per_tap(F.unfold(guide, SIDE, padding=SIDE // 2)) - guide.flatten(2)[:, :, None]
        return (-0.5 * distances.square().mean(1, keepdim=True)).exp()

    def tap_by_tap(self, x: Tensor) -> Tensor:
        guide, total = x / math.sqrt(x.shape[1]), torch.zeros_like(x)
        weight = self.static.weight.flatten(2)
        for (tap, shifted), (_, other) in zip(_shifted(x), _shifted(guide), strict=True):
            alike = (-0.5 * (other - guide).square().sum(1, keepdim=True)).exp()
            total = total + torch.einsum("oi,nihw->nohw", weight[:, :, tap], alike * shifted)
        return total


class Operator(nn.Module):
    """Operator of a `DDF2d` alone, with filters that were predicted from one map at its construction."""

    def __init__(self, layer: Any, x: Tensor) -> None:
        super().__init__()
        with torch.no_grad():
            self.channel_filter = nn.Parameter(layer.channel(x))
            self.spatial_filter = nn.Parameter(layer.spatial(x))

    def forward(self, x: Tensor) -> Tensor:
        return ddfnet.ddf(x, self.channel_filter, self.spatial_filter)


class TapByTap(nn.Module):
    """Tap-by-tap form of one of these filters."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.layer.tap_by_tap(x)
        return total


def _per_tap(windows: Tensor) -> Tensor:
    """Return windows (N, C*TAPS, L) of `F.unfold`, or filters of that shape, as (N, C, TAPS, L)."""
    return windows.unflatten(1, (-1, TAPS))


def _shifted(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each tap and the map of the pixels that it reads, zero outside."""
    (h, w), padded = x.shape[2:], F.pad(x, (SIDE // 2,) * 4)
    for tap in range(TAPS):
        yield tap, padded[..., tap // SIDE :, tap % SIDE :][..., :h, :w]
