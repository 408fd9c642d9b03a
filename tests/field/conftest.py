"""Small network with every layer, its copy, and its gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from ddfnet.nn import DDF2d, DDFConv2d, DDFUpsample2d


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(
        DDFConv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        DDF2d(8, heads=2, norm="batch"),
        DDFUpsample2d(8),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )


@pytest.fixture
def plain(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 3, 13, 18)


def gradients(network: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the gradients of every parameter after one backward pass."""
    network.zero_grad()
    network(images).square().sum().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]
