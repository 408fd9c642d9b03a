"""The convolutions of `GuidedUpsampler`: initialised after He, and activated by leaky ReLUs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

SLOPE = 0.1  # of every leaky ReLU: with plain ReLUs and a high learning rate all units of a path can die


class Block(nn.Module):
    """Two 3x3 convolutions whose sum with the input is activated; the second starts small."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv(channels, channels), conv(channels, channels)
        self.between, self.after = nn.LeakyReLU(SLOPE), nn.LeakyReLU(SLOPE)
        with torch.no_grad():
            self.second.weight.mul_(0.3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.after(x + self.second(self.between(self.first(x))))
        return y


def conv(channels: int, out: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, kernel_size, stride, kernel_size // 2)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def convs(*channels: int, kernel_size: int = 3, stride: int = 1) -> Iterator[nn.Module]:
    """Convolutions from one number of channels to the next, each with its activation; the first has the stride."""
    for number, (before, after) in enumerate(pairwise(channels)):
        yield conv(before, after, kernel_size, stride if number == 0 else 1)
        yield nn.LeakyReLU(SLOPE)


def channels_last(x: Tensor) -> Tensor:
    """In the format in which the CPU's kernels are fastest, and convolutions hardly depend on the number of threads."""
    return x.contiguous(memory_format=torch.channels_last)
