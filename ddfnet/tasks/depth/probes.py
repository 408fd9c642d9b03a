"""Whether a network's paths live: the same network with one of its sources taken away must do clearly worse."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ddfnet.depth.network import GuidedUpsampler
from ddfnet.tasks.depth import baselines
from ddfnet.tasks.depth.baselines import Method


def with_moved_guide(network: GuidedUpsampler) -> Method:
    """The network with the right guide in the wrong place: rolled by half its size, along both axes."""
    method = baselines.ddfnet(network)

    def moved(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
        height, width = guide.shape[1:]
        return method(low, low_valid, guide.roll((height // 2, width // 2), (1, 2)), factor=factor, offset=offset)

    return moved


def without_features(network: GuidedUpsampler) -> Method:
    """The network with zeros for the features that each stage hands to the next, in place of what DDF-Up gives.

    What is left of a stage is its guide and the depth. At 2x there is one stage, and no difference.
    """
    cut = copy.deepcopy(network)
    for stage in cut.stages:
        if stage.mix is not None:
            stage.mix = _Zero()
    return baselines.ddfnet(cut)


class _Zero(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return torch.zeros_like(features)
