"""Plain network for restoration: eight residual blocks, of which the layer in the middle is exchanged."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet import profiler
from ddfnet.nn import DDF2d

BLOCKS = 8
WIDTH = 48  # channels of the network with DDF, whose costs the others have

MIXERS: dict[str, Callable[[int], nn.Module]] = {
    "convolution": lambda channels: nn.Conv2d(channels, channels, 3, padding=1),
    "depthwise": lambda channels: nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
    "ddf": lambda channels: DDF2d(channels, static=True),
    "spatial": lambda channels: DDF2d(channels, static=True, filters="spatial"),
    "paper": lambda channels: DDF2d(channels),
}


class Block(nn.Module):
    """Return x + P relu(M relu(Q x)), with 1x1 convolutions P and Q and a mixer M."""

    def __init__(self, mixer: str, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 1)
        self.mixer = MIXERS[mixer](channels)
        self.last = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.last(self.mixer(self.first(x).relu()).relu())
        return result


class Restorer(nn.Module):
    """Return a restored image: the given one, enlarged by bicubic interpolation, plus what the blocks predict.

    Args:
        mixer: a name of `MIXERS`.
        channels: C of the blocks.
        factor: the enlargement; 1 for denoising.
    """

    def __init__(self, mixer: str, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(mixer, channels) for _ in range(BLOCKS)))
        self.tail = nn.Conv2d(channels, 3 * factor**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = F.pixel_shuffle(self.tail(self.blocks(self.head(x))), self.factor)
        size = x.shape[2] * self.factor, x.shape[3] * self.factor
        return found + (x if self.factor == 1 else F.interpolate(x, size, mode="bicubic"))


@functools.cache
def costs(mixer: str, channels: int, factor: int) -> dict[str, int]:
    """Return parameters, and multiply-accumulates for an image of 32x32 pixels."""
    found = profiler.estimate(Restorer(mixer, channels, factor).eval(), (1, 3, 32, 32))
    return {"parameters": found.parameters, "macs": found.predicted.macs}


def width(mixer: str, factor: int, equal: str) -> int:
    """Return the channels at which a mixer's network is nearest to that with DDF in ``"macs"`` or ``"parameters"``.

    Both grow with the channels, so that the interval that holds the goal can be halved.
    """
    goal = costs("ddf", WIDTH, factor)[equal]
    low, high = 8, 128
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if costs(mixer, middle, factor)[equal] <= goal else (low, middle)
    return min((low, high), key=lambda channels: abs(costs(mixer, channels, factor)[equal] - goal))


def build(mixer: str, factor: int, equal: str, seed: int) -> Restorer:
    torch.manual_seed(seed)
    return Restorer(mixer, width(mixer, factor, equal), factor)
