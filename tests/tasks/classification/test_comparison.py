"""Scores of the networks that differ in their mixers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
pytest.importorskip("timm")
pytest.importorskip("torchvision")

from ddfnet.data.classification.splits import Split, Splits
from ddfnet.nn import DDF2d
from ddfnet.tasks.classification import comparison


def splits(size: int, channels: int = 1) -> Splits:
    part = Split(torch.randint(256, (40, channels, size, size), dtype=torch.uint8), torch.arange(40) % 4)
    return Splits("noise", part, part, ("a", "b", "c", "d"), "Noise.")


def test_macs_of_a_convolution() -> None:
    assert comparison.macs(nn.Conv2d(4, 6, 3, padding=1, bias=False), (4, 5, 7)) == 4 * 6 * 9 * 5 * 7


def test_macs_of_a_ddf_layer_are_those_of_its_parts() -> None:
    c, taps, pixels, middle = 20, 9, 8 * 8, 4
    branches = c * taps * pixels + c * middle + middle * c * taps
    assert comparison.macs(DDF2d(c), (c, 8, 8)) == branches + 3 * c * taps * pixels // 2


def test_milliseconds_are_those_of_one_image() -> None:
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            import time

            time.sleep(0.02)
            return x

    times = comparison.milliseconds({"slow": Slow(), "fast": nn.Identity()}, (1, 2, 2), batch_sizes=(1, 4), rounds=3)
    assert 20 <= times["slow"][1] < 60
    assert 5 <= times["slow"][4] < 15
    assert times["fast"][1] < 5


@pytest.mark.parametrize(("size", "last"), [(8, 2), (28, 4)])
def test_the_network_suits_the_images(size: int, last: int) -> None:
    network = comparison.create("conv", splits(size, channels=3))
    assert network.forward_features(torch.randn(1, 3, size, size)).shape[2:] == (last, last)
    assert network(torch.randn(2, 3, size, size)).shape == (2, 4)


@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_gives_the_same_network() -> None:
    images = splits(8)

    def weights(seed: int) -> torch.Tensor:
        network, _, _ = comparison.train("ddf", images, epochs=1, batch_size=20, seed=seed, progress_bar=False)
        assert not network.training
        return network.fc.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
