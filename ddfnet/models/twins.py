"""Three small networks that differ in one layer: what stands where a residual bottleneck has its 3x3 convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.nn import DDF2d


def _conv(channels: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)


def _depthwise(channels: int, stride: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)


def _ddf(channels: int, stride: int) -> nn.Module:
    return DDF2d(channels, 3, stride)


MIXERS: dict[str, Callable[[int, int], nn.Module]] = {"conv": _conv, "depthwise": _depthwise, "ddf": _ddf}
"""The layer of each twin, by name: (channels, stride) -> module."""


class TwinNet(nn.Module):
    """A residual network of 1x1 - mixer - 1x1 bottlenecks, small enough to be trained on a laptop.

    Args:
        mixer: ``"conv"`` (3x3 convolution), ``"depthwise"`` (depthwise 3x3 convolution) or ``"ddf"`` (`DDF2d`). Nothing
            else depends on it.
        in_channels: channels of the pictures.
        classes: number of results.
        widths: channels of each stage; the mixers have half as many. Each stage but the first halves the map.
        depth: bottlenecks a stage.
        patch: the first convolution sees patches of this many pixels a side and keeps one position a patch.

    Returns:
        From ``forward(x)`` with x (N, in_channels, H, W): the logits, (N, classes). ``forward_features`` gives the last
        map, before pooling.

    Raises:
        ValueError: no mixer of this name.

    Example:
        >>> import torch
        >>> from ddfnet.models.twins import TwinNet
        >>> TwinNet("conv", in_channels=1, classes=10)(torch.randn(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        mixer: str,
        in_channels: int,
        classes: int,
        *,
        widths: Sequence[int] = (64, 128),
        depth: int = 2,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if mixer not in MIXERS:
            raise ValueError(f"mixer must be one of {', '.join(map(repr, MIXERS))}, got {mixer!r}")
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, widths[0], patch + 2, patch, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.stages = nn.Sequential()
        before = widths[0]
        for index, width in enumerate(widths):
            blocks = [_Bottleneck(mixer, before, width, stride=2 if index else 1)]
            blocks += [_Bottleneck(mixer, width, width, stride=1) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
            before = width
        self.head = nn.Linear(before, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = self.stages(self.stem(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.forward_features(x).mean((2, 3)))
        return logits


class _Bottleneck(nn.Module):
    def __init__(self, mixer: str, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        middle = channels // 2
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, middle, 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            MIXERS[mixer](middle, stride),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))
