"""The twins differ in one layer and in nothing else."""

from __future__ import annotations

import pytest
import torch

from ddfnet.models.twins import MIXERS, TwinNet
from ddfnet.nn import DDF2d


def test_all_but_the_mixers_is_the_same() -> None:
    def shapes(mixer: str) -> dict[str, torch.Size]:
        state = TwinNet(mixer, 3, 10).state_dict()
        return {name: value.shape for name, value in state.items() if ".body.3." not in name}

    assert shapes("conv") == shapes("depthwise") == shapes("ddf")


def test_the_ddf_twin_has_a_ddf_in_each_bottleneck() -> None:
    network = TwinNet("ddf", 1, 10, widths=(8, 16), depth=3)
    layers = [module for module in network.modules() if isinstance(module, DDF2d)]
    assert [layer.channels for layer in layers] == [4, 4, 4, 8, 8, 8]
    assert [layer.stride for layer in layers] == [(1, 1)] * 3 + [(2, 2)] + [(1, 1)] * 2


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("patch", [1, 2])
def test_sizes_and_gradients(mixer: str, patch: int) -> None:
    network = TwinNet(mixer, 2, 5, widths=(8, 16), depth=1, patch=patch)
    x = torch.randn(3, 2, 12, 20)
    assert network.forward_features(x).shape == (3, 16, 6 // patch, 10 // patch)
    output = network(x)
    assert output.shape == (3, 5)
    output.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_an_unknown_mixer_is_refused() -> None:
    with pytest.raises(ValueError, match="mixer must be one of 'conv', 'depthwise', 'ddf', got 'magic'"):
        TwinNet("magic", 1, 10)
