"""Ways to take samples: reductions beside Pillow's, and how well the way is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ddfnet.depth.samples import SAMPLES, find_samples, reduce_maps

FACTORS = (2, 3, 4, 8, 16)


def scene(size: int = 192, seed: int = 0, surfaces: int = 40, slope: float = 0.2) -> torch.Tensor:
    """Draw discs at depths of their own on a slanted plane, (size, size), float64, from 1 up."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    depth = 2 + slope * (y + x) / size
    for _ in range(surfaces):
        row, column, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(0.05, 0.15) * size
        inside = (y - row) ** 2 + (x - column) ** 2 < radius**2
        depth[inside] = rng.uniform(1, 3) + slope * x[inside] / size
    return torch.from_numpy(depth)


def taken(depth: torch.Tensor, factor: int, way: str) -> torch.Tensor:
    first = factor // 2
    return depth[first::factor, first::factor] if way == "point" else reduce_maps(depth[None, None], factor, way)[0, 0]


@pytest.mark.parametrize("factor", FACTORS)
def test_the_bicubic_reduction_is_pillows(factor: int) -> None:
    depth = scene(factor * 13).float()
    expected = np.asarray(Image.fromarray(depth.numpy()).resize((13, 13), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(taken(depth, factor, "bicubic").numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("factor", FACTORS)
def test_the_average_is_the_mean_of_the_block(factor: int) -> None:
    depth = scene(factor * 13)
    expected = depth.reshape(13, factor, 13, factor).mean((1, 3))
    torch.testing.assert_close(taken(depth, factor, "average"), expected)


@pytest.mark.parametrize("way", SAMPLES[1:])
def test_a_plane_keeps_its_value_in_the_middle_of_each_block(way: str) -> None:
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    low = taken((3 * y + 2 * x).double(), 8, way)
    middle = 8 * torch.arange(8, dtype=torch.float64) + 3.5
    inside = slice(2, -2)  # at the border a part of the bicubic kernel is cut off
    torch.testing.assert_close(low[inside, inside], (3 * middle[:, None] + 2 * middle)[inside, inside])


@pytest.mark.parametrize("factor", [4, 8])
@pytest.mark.parametrize("way", SAMPLES)
@pytest.mark.parametrize("seed", range(3))
def test_the_way_is_found(way: str, factor: int, seed: int) -> None:
    low = taken(scene(96 * factor, seed), factor, way)
    assert find_samples(low, torch.ones_like(low, dtype=torch.bool)) == way
    assert find_samples(1000 - 7 * low, torch.ones_like(low, dtype=torch.bool)) == way


def test_what_is_not_valid_is_not_looked_at() -> None:
    low = taken(scene(96 * 4), 4, "average")
    valid = torch.from_numpy(np.random.default_rng(0).random(tuple(low.shape)) > 0.05)
    assert find_samples(torch.where(valid, low, 1e30), valid) == "average"


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (1, 40), (40, 1), (0, 0)])
def test_too_few_samples_are_averages(shape: tuple[int, int]) -> None:
    assert find_samples(torch.rand(shape), torch.ones(shape, dtype=torch.bool)) == "average"


def test_without_edges_they_are_averages() -> None:
    everywhere = torch.ones(64, 64, dtype=torch.bool)
    plane = torch.arange(64.0).expand(64, 64)
    assert find_samples(plane, everywhere) == "average"
    assert find_samples(torch.full((64, 64), 7.0), everywhere) == "average"
