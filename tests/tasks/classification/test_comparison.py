"""What is measured of the twins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("lightning")
pytest.importorskip("torchvision")

from ddfnet.data.classification.splits import Labelled, Splits
from ddfnet.nn import DDF2d
from ddfnet.tasks.classification import comparison


def splits(size: int, channels: int = 1) -> Splits:
    part = Labelled(torch.randint(256, (40, channels, size, size), dtype=torch.uint8), torch.arange(40) % 4)
    return Splits("noise", part, part, ("a", "b", "c", "d"), "Noise.")


def test_macs_of_a_convolution() -> None:
    assert comparison.macs(nn.Conv2d(4, 6, 3, padding=1, bias=False), (4, 5, 7)) == 4 * 6 * 9 * 5 * 7


def test_macs_of_a_ddf_layer_are_those_of_its_parts() -> None:
    c, taps, pixels, middle = 20, 9, 8 * 8, 4
    branches = c * taps * pixels + c * middle + middle * c * taps
    assert comparison.macs(DDF2d(c), (c, 8, 8)) == branches + 3 * c * taps * pixels // 2


def test_milliseconds_are_those_of_one_picture() -> None:
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            import time

            time.sleep(0.02)
            return x

    times = comparison.milliseconds({"slow": Slow(), "fast": nn.Identity()}, (1, 2, 2), batch_sizes=(1, 4), rounds=3)
    assert 20 <= times["slow"][1] < 60
    assert 5 <= times["slow"][4] < 15
    assert times["fast"][1] < 5


@pytest.mark.parametrize(("size", "stages"), [(8, 2), (28, 3)])
def test_the_twin_suits_the_pictures(size: int, stages: int) -> None:
    network = comparison.twin("conv", splits(size, channels=3))
    assert len(network.stages) == stages
    features = network.forward_features(torch.randn(1, 3, size, size))
    assert features.shape[2:] == (4, 4), "half a stage, and half the size for patches"
    assert network(torch.randn(2, 3, size, size)).shape == (2, 4)


@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_gives_the_same_twin() -> None:
    pictures = splits(8)

    def weights(seed: int) -> torch.Tensor:
        network, _, _ = comparison.train("ddf", pictures, epochs=1, batch_size=20, seed=seed, bar=False)
        assert not network.training
        return network.head.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))
