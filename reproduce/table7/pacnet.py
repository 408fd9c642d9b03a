"""PAC-Net of our own, the rival in table 7: trained by ``ddfnet train depth``, measured by ``--beside``."""

from __future__ import annotations

import functools
import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddfnet.depth.alignment import aligned_bilinear
from ddfnet.depth.network import DepthNetwork, Level, typical_range
from ddfnet.family import pac_transpose
from ddfnet.pretrained import load, register_kind

CHANNELS, SLICE, KERNEL = 32, 16, 5  # SLICE channels of the guidance are those of one stage


@register_kind("pacnet")
class PacNet(DepthNetwork):
    r"""Upsample a depth map by transposed pixel-adaptive convolutions, one per factor of two.

    Three 5x5 convolutions of the depth and of the image, 32 channels each; the last of the image gives every stage 16
    channels of its own, resized bilinearly to its output. A stage is `ddfnet.family.pac_transpose` with 5x5 taps and a
    1x1 convolution, for PAC's own mixes channels within its taps; two 5x5 convolutions give the depth, as a correction
    of bilinear interpolation: without it the network hardly learns in some thousand steps.

    Args:
        scale_factor: the largest factor. A smaller one is served by the finest stages.

    Source: Su et al., Pixel-Adaptive Convolutional Neural Networks, CVPR 2019, section 4.1, whose layers, channels and
    kernel sizes these are.
    """

    def __init__(self, scale_factor: int = 16) -> None:
        super().__init__()
        self.scale_factor = scale_factor
        stages = scale_factor.bit_length() - 1
        self.target = _convs(1, CHANNELS, CHANNELS, CHANNELS)
        self.guidance = _convs(3, CHANNELS, CHANNELS, SLICE * stages)
        self.stages = nn.ModuleList([_Stage() for _ in range(stages)])  # the finest is the first
        self.head = _convs(CHANNELS, CHANNELS, 1)

    def upsample(
        self,
        depth: Tensor,
        guide: Tensor,
        valid: Tensor | None = None,
        *,
        scale_factor: int | None = None,
        samples: str = "point",
    ) -> Level:
        """Return the depth (N, 1, s*h, s*w). It knows no missing depth: what is not valid is seen as the lowest."""
        factor = self.scale_factor if scale_factor is None else scale_factor
        mask = torch.ones_like(depth, dtype=torch.bool) if valid is None else valid
        lowest, span = (each[:, None] for each in typical_range(depth[:, 0], mask[:, 0]))
        scaled = torch.where(mask, (depth - lowest) / span, 0)
        offset = (factor - 1) // 2 if samples == "point" else (factor - 1) / 2
        size = guide.shape[2], guide.shape[3]
        maps = [
            aligned_bilinear(low, size, valid=there, ratio=factor, offset=offset)
            for low, there in zip(scaled[:, 0], mask[:, 0], strict=True)
        ]
        start = torch.stack(maps)[:, None]
        features, parts = self.target(scaled), self.guidance(guide).split(SLICE, 1)
        for number in reversed(range(factor.bit_length() - 1)):
            twice = [2 * length for length in features.shape[2:]]
            own = F.interpolate(parts[number], size=twice, mode="bilinear", align_corners=False)
            features = self.stages[number](features, own)
        found = start + self.head(features).to(start.dtype)
        return Level(found * span + lowest, torch.ones_like(found, dtype=torch.bool))


class _Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(CHANNELS, 1, KERNEL, KERNEL))
        self.mix = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin as bilinear interpolation of each channel, and a little besides."""
        ramp = torch.tensor([0.25, 0.5, 1.0, 0.5, 0.25])
        with torch.no_grad():
            self.weight.copy_(torch.outer(ramp, ramp).expand_as(self.weight))
            self.weight.add_(0.1 * torch.randn_like(self.weight))

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        return F.relu(self.mix(pac_transpose(x, guide, self.weight, padding=KERNEL // 2, output_padding=1)))


def _convs(*channels: int) -> nn.Sequential:
    """Return 5x5 convolutions with ReLUs between them."""
    layers: list[nn.Module] = []
    for number in range(len(channels) - 1):
        layers += [nn.Conv2d(*channels[number : number + 2], KERNEL, padding=KERNEL // 2), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@functools.cache
def trained() -> PacNet:
    file = os.environ.get("PACNET", "runs/nyu-pacnet/model.safetensors")
    return load(file, PacNet).eval()


@torch.no_grad()
def pacnet(low: Any, guide: Any, factor: int, offset: float, valid: Any) -> Any:
    """Return the depth of the network of ``PACNET``, by default runs/nyu-pacnet/model.safetensors."""
    depth, mask = (torch.from_numpy(each)[None, None] for each in (low, valid))
    image = torch.from_numpy(guide).permute(2, 0, 1)[None] / 255
    samples = "average" if offset % 1 else "point"
    return trained().upsample(depth, image, mask, scale_factor=factor, samples=samples).depth[0, 0].numpy()
