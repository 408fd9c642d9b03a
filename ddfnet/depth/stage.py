"""Stages of `GuidedUpsampler`, each for one factor of two: filter prediction and DDF-Up of depth and features."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.depth.planes import Planes
from ddfnet.nn.branches import SpatialBranch
from ddfnet.nn.filter_norm import FilterNorm
from ddfnet.nn.starts import fill, with_start
from ddfnet.ops import ddf_upsample
from ddfnet.ops.geometry import Combine
from ddfnet.ops.recording import recordable

_NEVER = -1e30  # logit of a sample that is not valid: finite, so that a window without any has a softmax
SLOPE = 0.1  # negative slope of every leaky ReLU: with plain ReLUs all units of a path can die

Carried = Tensor | Planes  # from stage to stage: depth (N, 1, h, w), or planes


class Block(nn.Module):
    """Residual block of two 3x3 convolutions; the second starts small."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels, share=0.3)
        self.between, self.after = nn.LeakyReLU(SLOPE), nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(x + self.second(self.between(self.first(x))))
        return y


def conv(channels: int, out: int, kernel_size: int = 3, stride: int = 1, share: float = 1.0) -> nn.Conv2d:
    """Return a convolution that keeps the size, initialised after He and multiplied by ``share``."""
    layer = nn.Conv2d(channels, out, kernel_size, stride, kernel_size // 2)
    return with_start(layer, functools.partial(_he, share=share))


def _he(layer: nn.Conv2d | nn.Linear, share: float = 1.0) -> None:
    """Initialize a layer after He, for the leaky ReLU that follows it, and multiply its weight by ``share``."""
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    with torch.no_grad():
        layer.weight.mul_(share)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def convs(*channels: int, kernel_size: int = 3, stride: int = 1) -> Iterator[nn.Module]:
    """Yield convolutions between these numbers of channels, each with its leaky ReLU; the first has the stride."""
    for number, (before, after) in enumerate(pairwise(channels)):
        yield conv(before, after, kernel_size, stride if number == 0 else 1)
        yield nn.LeakyReLU(SLOPE)


def channels_last(x: Tensor) -> Tensor:
    """Return a tensor in channels_last, the fastest layout on the CPU; convolutions hardly depend on threads there."""
    return x.contiguous(memory_format=torch.channels_last)


class Stage(nn.Module):
    """Trunk that reads features and guide, and the upsampling by two of features and depth or planes by its filters."""

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
        **options: Any,
    ) -> None:
        super().__init__()
        plain = upsampler == "bilinear"
        self.kernel_size = kernel_size
        self.entry = nn.Sequential(*convs(channels + guide_channels, channels))
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.logits = self.correction = None
        if carry and not plain:
            logits = nn.Conv2d(channels, 4 * kernel_size**2, 1)
            self.logits = with_start(logits, functools.partial(_start_logits, kernel_size=kernel_size))
        else:
            self.register_buffer("bilinear", torch.empty(4, kernel_size**2), persistent=False)
            self.bilinear: Tensor
        if plain:
            self.correction = with_start(nn.Conv2d(channels, 4, 1), _zero)
        self.enlarge = self.mix = None
        if features_too:
            self.enlarge = _Bilinear() if plain else _DDFUp(channels, kernel_size, carry=carry, **options)
            self.mix = nn.Sequential(*convs(channels, channels, kernel_size=3 if plain else 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the logits of the bilinear filter, if the stage predicts none."""
        if self.logits is None:
            fill(self.bilinear, _bilinear(self.kernel_size, least=1e-13))

    @property
    def receptive_radius(self) -> int:
        """Receptive radius of a pixel in pixels of the input: of the entry, the blocks, and the filters."""
        return 1 + 2 * len(self.blocks) + self.kernel_size // 2

    def forward(
        self, carried: Carried, mask: Tensor, guided: Tensor, context: Tensor
    ) -> tuple[Carried, Tensor, Tensor, Tensor]:
        """Return what the filters carry, its validity, features, all of twice the size, and the filters themselves.

        Args:
            carried: depth or planes.
            mask: 1 where they are valid.
            guided: features and guide, one after the other.
            context: mean of the target features.
        """
        trunk = self.blocks(self.entry(guided))
        taps = self._taps(trunk, mask)
        carried, mask = self._average(carried, mask, taps)
        if self.correction is not None:
            assert not isinstance(carried, Planes)
            carried = carried + F.pixel_shuffle(self.correction(trunk), 2).to(carried.dtype)
        features = trunk
        if self.enlarge is not None and self.mix is not None:
            features = self.mix(self.enlarge(trunk, context, taps))
        return carried, mask, features, taps

    def _taps(self, trunk: Tensor, mask: Tensor) -> Tensor:
        """Return the filters that carry the depth, (N, 4*K, h, w): a softmax over the valid samples of a window.

        In float32 under autocast too, for they carry the result. A softmax over all samples, divided by the sum of its
        valid part, would have infinite gradients where that sum is 0.
        """
        logits = (
            self.bilinear[None, ..., None, None] if self.logits is None else self.logits(trunk).unflatten(1, (4, -1))
        )
        size = self.kernel_size
        valid = F.unfold(mask, size, padding=size // 2).unflatten(2, mask.shape[2:])[:, None] > 0
        return torch.where(valid, logits.float(), _NEVER).softmax(2).flatten(1, 2)

    def _average(self, carried: Carried, mask: Tensor, taps: Tensor) -> tuple[Carried, Tensor]:
        """Return the depths or planes in each window, weighted by its filter, and whether any of them is valid."""
        carried = enlarge(carried, taps, self.kernel_size)
        near = F.max_pool2d(mask, self.kernel_size, 1, self.kernel_size // 2)
        return carried, F.interpolate(near, scale_factor=2, mode="nearest")


@recordable
def enlarge(carried: Carried, taps: Tensor, kernel_size: int) -> Carried:
    """Return depth or planes on the grid of twice the size, filtered by a stage; in float32 under autocast too."""
    with torch.autocast(taps.device.type, enabled=False):
        if isinstance(carried, Planes):
            return carried.enlarge(taps, kernel_size)
        return ddf_upsample(carried, None, taps, scale_factor=2, kernel_size=kernel_size)


def cut(carried: Carried, inner: tuple[Any, ...]) -> Carried:
    """Return the part of depth or planes that an index takes."""
    return Planes(*(each[inner] for each in carried)) if isinstance(carried, Planes) else carried[inner]


class _DDFUp(nn.Module):
    """DDF-Up of the features, by the depth's spatial filters or its own, and by channel filters from the context."""

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
        """Upsample the trunk's features; ``taps`` are the filters that carry the depth."""
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
    """Channel filters (N, 4, C, k, k) from the context (N, C, 1, 1): learnt ones plus the output of a bottleneck.

    The learnt ones start around the identity of the combine mode, so that at first each spatial filter acts as it is.
    With ``norm="filter"`` there are none, for `FilterNorm` subtracts a filter's mean and scales the rest.
    """

    def __init__(self, channels: int, kernel: tuple[int, int], *, norm: str, around: float) -> None:
        super().__init__()
        self.shape = (4, channels, *kernel)
        self.reduce = with_start(nn.Linear(channels, channels // 2), _he)
        self.expand = with_start(nn.Linear(channels // 2, math.prod(self.shape)), _he)
        self.norm = self.learnt = None
        if norm == "filter":
            self.norm = FilterNorm(4 * channels, kernel, "channel", nonlinearity="leaky_relu")
        else:
            self.around, self.learnt = around, nn.Parameter(torch.empty(self.shape))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the learnt filters around the identity of the combine mode."""
        if self.learnt is not None:
            nn.init.normal_(self.learnt, self.around, 0.3)

    def forward(self, context: Tensor) -> Tensor:
        # In float32 under autocast too: so few numbers cost nothing.
        hidden = F.leaky_relu(_dense(self.reduce, context.flatten(1).float()), SLOPE)
        filters = _dense(self.expand, hidden)
        if self.norm is not None:
            filters = self.norm(filters)
        filters = filters.unflatten(1, self.shape)
        return filters if self.learnt is None else self.learnt + 0.3 * filters


def _start_logits(conv: nn.Conv2d, kernel_size: int) -> None:
    """Initialize the prediction of the filters: nearly bilinear, and each tap has a share, so that it can be learnt."""
    nn.init.normal_(conv.weight, std=0.1 * math.sqrt(2 / conv.in_channels))
    fill(conv.bias, _bilinear(kernel_size, least=0.03).flatten())  # type: ignore[arg-type]


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]


def _dense(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a linear layer by products and sums: the bits of a matrix product depend on the number of threads."""
    return (layer.weight * x[:, None]).sum(2) + layer.bias


class _Bilinear(nn.Module):
    """Bilinear upsampling with the arguments of `_DDFUp`, for the plain network."""

    def forward(self, trunk: Tensor, context: Tensor, taps: Tensor) -> Tensor:
        return F.interpolate(trunk, scale_factor=2, mode="bilinear", align_corners=False)


def _bilinear(kernel_size: int, *, least: float) -> Tensor:
    """Return logits (4, K) whose softmax is the bilinear filter of each sub-pixel, with no weight below ``least``."""
    taps = torch.arange(kernel_size) - kernel_size // 2
    distances = (taps - torch.tensor([[-0.25], [0.25]])).abs()  # for both sub-pixels along one axis
    logits = (1 - distances).clamp(min=least).log()
    return (logits[:, None, :, None] + logits[None, :, None, :]).reshape(4, kernel_size**2)
