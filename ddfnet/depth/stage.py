"""One factor of two of `GuidedUpsampler`: what predicts the filters, and the DDF-Up of the features."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.depth.layers import SLOPE, Block, convs
from ddfnet.nn.branches import SpatialBranch
from ddfnet.nn.filter_norm import FilterNorm
from ddfnet.ops import ddf_upsample
from ddfnet.ops.geometry import Combine

_NEVER = -1e30  # the logit of a sample that is not valid: finite, so that a window without any has a softmax


class Stage(nn.Module):
    """A trunk that reads features and guide, and what enlarges depth and features by two with what it finds."""

    def __init__(
        self,
        channels: int,
        guide_channels: int,
        blocks: int,
        carry: bool,
        upsampler: str,
        *,
        features_too: bool,
        kernel_size: int,
        **ways: Any,
    ) -> None:
        super().__init__()
        plain = upsampler == "bilinear"
        self.kernel_size = kernel_size
        self.entry = nn.Sequential(*convs(channels + guide_channels, channels))
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.logits = self.correction = None
        if carry and not plain:
            # Every tap has a share at first, so that every tap can be learnt.
            start = _bilinear(kernel_size, least=0.03)
            self.logits = nn.Conv2d(channels, start.numel(), 1)
            nn.init.normal_(self.logits.weight, std=0.1 * math.sqrt(2 / channels))
            with torch.no_grad():
                self.logits.bias.copy_(start.flatten())  # type: ignore[union-attr]
        else:
            self.register_buffer("bilinear", _bilinear(kernel_size, least=1e-13), persistent=False)
            self.bilinear: Tensor
        if plain:
            self.correction = nn.Conv2d(channels, 4, 1)
            nn.init.zeros_(self.correction.weight)
            nn.init.zeros_(self.correction.bias)  # type: ignore[arg-type]
        self.enlarge = self.mix = None
        if features_too:
            self.enlarge = _Bilinear() if plain else _DDFUp(channels, kernel_size, carry=carry, **ways)
            self.mix = nn.Sequential(*convs(channels, channels, kernel_size=3 if plain else 1))

    def forward(
        self, scaled: Tensor, known: Tensor, features: Tensor, guide: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        trunk = self.blocks(self.entry(torch.cat([features, guide], 1)))
        taps = self._taps(trunk, known)
        scaled, known = self._average(scaled, known, taps)
        if self.correction is not None:
            scaled = scaled + F.pixel_shuffle(self.correction(trunk), 2)
        if self.enlarge is not None and self.mix is not None:
            features = self.mix(self.enlarge(trunk, context, taps))
        return scaled, known, features

    def _taps(self, trunk: Tensor, known: Tensor) -> Tensor:
        """The filters that carry the depth: a softmax over the valid samples of a window.

        In float32 whatever autocast says: what they carry is the result, and not a feature. Not a softmax over all
        samples whose valid part is scaled up: the gradient of a division by what the softmax left of it is infinite.
        """
        logits = (
            self.bilinear[None, ..., None, None] if self.logits is None else self.logits(trunk).unflatten(1, (4, -1))
        )
        size = self.kernel_size
        there = F.unfold(known, size, padding=size // 2).unflatten(2, known.shape[2:])[:, None] > 0
        return torch.where(there, logits.float(), _NEVER).softmax(2).flatten(1, 2)

    def _average(self, scaled: Tensor, known: Tensor, taps: Tensor) -> tuple[Tensor, Tensor]:
        """The depths below each filter, weighted by it, and whether any of them is valid."""
        with torch.autocast(scaled.device.type, enabled=False):
            scaled = ddf_upsample(scaled, None, taps, scale_factor=2, kernel_size=self.kernel_size)
        near = F.max_pool2d(known, self.kernel_size, 1, self.kernel_size // 2)
        return scaled, F.interpolate(near, scale_factor=2, mode="nearest")


class _DDFUp(nn.Module):
    """DDF-Up of the features: by the depth's spatial filters or by others, and by channel filters from the context."""

    def __init__(self, channels: int, kernel_size: int, *, carry: bool, filters: str, combine: str, norm: str) -> None:
        super().__init__()
        kernel, self.combine = (kernel_size, kernel_size), combine
        self.spatial = self.channel = None
        self.carried = filters != "channel" and carry and norm == "softmax"
        if filters != "channel" and not self.carried:
            self.spatial = SpatialBranch(channels, 4, kernel, norm=norm, nonlinearity="leaky_relu")
        if filters != "spatial":
            self.channel = _ChannelFilters(channels, kernel, norm=norm, around=Combine(combine).identity)
        self.kernel = kernel

    def forward(self, trunk: Tensor, context: Tensor, taps: Tensor) -> Tensor:
        """``taps`` are the filters that the depth is enlarged with."""
        spatial = taps.to(trunk.dtype) if self.carried else None
        return ddf_upsample(
            trunk,
            None if self.channel is None else self.channel(context).to(trunk.dtype),
            spatial if self.spatial is None else self.spatial(trunk),
            scale_factor=2,
            kernel_size=self.kernel,
            combine=self.combine,
        )


class _ChannelFilters(nn.Module):
    """Channel filters (N, 4, C, k, k) from the context (N, C, 1, 1): learnt ones, and what a bottleneck adds to them.

    The learnt ones start around the identity of the combination, so that at first each spatial filter acts as it is.
    With ``norm="filter"`` there are none, for `FilterNorm` takes a filter's mean away and scales the rest.
    """

    def __init__(self, channels: int, kernel: tuple[int, int], *, norm: str, around: float) -> None:
        super().__init__()
        self.shape = (4, channels, *kernel)
        self.reduce = nn.Linear(channels, channels // 2)
        self.expand = nn.Linear(channels // 2, math.prod(self.shape))
        for dense in (self.reduce, self.expand):
            nn.init.kaiming_normal_(dense.weight, a=SLOPE)
            nn.init.zeros_(dense.bias)
        self.norm = self.learnt = None
        if norm == "filter":
            self.norm = FilterNorm(4 * channels, kernel, "channel", nonlinearity="leaky_relu")
        else:
            self.learnt = nn.Parameter(around + 0.3 * torch.randn(self.shape))

    def forward(self, context: Tensor) -> Tensor:
        # In float32 whatever autocast says: as few numbers as these cost nothing.
        hidden = F.leaky_relu(_dense(self.reduce, context.flatten(1).float()), SLOPE)
        filters = _dense(self.expand, hidden)
        if self.norm is not None:
            filters = self.norm(filters)
        filters = filters.unflatten(1, self.shape)
        return filters if self.learnt is None else self.learnt + 0.3 * filters


def _dense(layer: nn.Linear, x: Tensor) -> Tensor:
    """A linear layer as products and sums: a matrix product's bits depend on the number of threads."""
    return (layer.weight * x[:, None]).sum(2) + layer.bias


class _Bilinear(nn.Module):
    """The plain twin's upsampling."""

    def forward(self, trunk: Tensor, context: Tensor, taps: Tensor) -> Tensor:
        return F.interpolate(trunk, scale_factor=2, mode="bilinear", align_corners=False)


def _bilinear(kernel_size: int, *, least: float) -> Tensor:
    """Logits (4, K) with which a softmax is the bilinear filter of each sub-pixel, with no weight below ``least``."""
    taps = torch.arange(kernel_size) - kernel_size // 2
    distances = (taps - torch.tensor([[-0.25], [0.25]])).abs()  # of both sub-pixels along one axis
    logits = (1 - distances).clamp(min=least).log()
    return (logits[:, None, :, None] + logits[None, :, None, :]).reshape(4, kernel_size**2)
