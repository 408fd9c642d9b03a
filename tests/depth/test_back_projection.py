"""Back-projection: what it changes of `ddfnet.upsample_depth` for averages, and what it leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")

import ddfnet
from ddfnet.depth.back_projection import back_project
from ddfnet.depth.samples import reduce_maps
from tests.depth.test_samples import scene, taken
from tests.guided_networks import network

WAYS = ("average", "bicubic")


def upsample(low: Any, guide: Any, **options: Any) -> Any:
    return ddfnet.upsample_depth(low, guide, fill="none", **options)


def image_of(depth: torch.Tensor) -> torch.Tensor:
    """Return an image (H, W, 3) whose edges are the depth's."""
    grey = (255 * (depth - depth.min()) / (depth.max() - depth.min())).byte()
    return torch.stack([grey, 255 - grey, (grey.int() * 7 % 256).byte()], 2)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("way", WAYS)
def test_the_result_gives_the_samples_again(way: str, factor: int) -> None:
    """Twice as near as without, and nearer to the truth by a tenth at least: with the package's weights."""
    truth = scene(24 * factor)
    low, guide = taken(truth, factor, way), image_of(truth)
    missed, errors = [], []
    for samples in ("point", way):
        result = upsample(low, guide, samples=samples)
        missed.append((taken(result, factor, way) - low).square().mean().sqrt().item())
        errors.append((result - truth).square().mean().sqrt().item())
    assert missed[1] < missed[0] / 2
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("way", WAYS)
def test_auto_finds_the_way(way: str) -> None:
    truth = scene(96 * 4)
    low, guide = taken(truth, 4, way), image_of(truth)
    assert torch.equal(upsample(low, guide), upsample(low, guide, samples=way))
    assert not torch.equal(upsample(low, guide), upsample(low, guide, samples="point"))


def test_auto_takes_the_offset_of_points_for_what_it_is() -> None:
    truth = scene(96 * 4)
    low, guide = taken(truth, 4, "average"), image_of(truth)
    expected = upsample(low, guide, offset=1, samples="point")
    assert torch.equal(upsample(low, guide, offset=1), expected)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5.25, 8, 16, 24])
def test_a_plane_of_averages_is_upsampled_as_the_plane(ratio: float) -> None:
    """On a plane the mean of a block is the depth in its middle."""
    size = 14
    pixels = round(size * ratio)
    ratio = pixels / size
    y, x = torch.meshgrid(*[torch.arange(size, dtype=torch.float64)] * 2, indexing="ij")
    guide = torch.randint(256, (pixels, pixels, 3), dtype=torch.uint8)
    result = upsample(3 + y + 0.7 * x, guide, samples="average")
    middle = (torch.arange(pixels, dtype=torch.float64) + 0.5) / ratio - 0.5
    inside = (middle >= 3) & (middle <= size - 4)
    expected = (3 + middle[:, None] + 0.7 * middle)[inside][:, inside]
    torch.testing.assert_close(result[inside][:, inside], expected, rtol=0, atol=0.02 * 0.7 / ratio)


def test_a_block_that_is_hardly_known_asks_for_nothing() -> None:
    """A sample beside which nothing is known would otherwise be given what its few pixels miss, many times over."""
    filters = [torch.full((1, 36, 4, 4), 1 / 9)]
    samples, mask = torch.full((1, 1, 4, 4), 2.0), torch.ones(1, 1, 4, 4)
    samples[..., 1, 1] = 0.5
    known = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    known[..., :4, :4] = False
    known[..., 3, 3] = True
    depth = torch.where(known, 2.0, 0.0)
    result = back_project(depth, known, samples, mask, filters, 3, "average")
    assert torch.equal(result, depth)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_reach_the_network(way: str) -> None:
    model = network(4).train()
    truth = scene(32).float()[None, None]
    low = reduce_maps(truth, 4, way)
    mask, guide = torch.ones_like(low), torch.rand(1, 3, 32, 32)
    pixels = model.scaled_pixels(low - low.min(), mask, guide, model.context(low - low.min(), mask), 4, way)
    (pixels.depth - (truth - low.min())).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_under_autocast_it_is_computed_in_float32() -> None:
    """As the carried depth is: bfloat16 has three digits."""
    filters = [torch.rand(1, 36, 8, 8).unflatten(1, (4, 9)).softmax(2).flatten(1, 2)]
    samples, mask = torch.rand(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    inputs = torch.rand(1, 1, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool), samples, mask, filters, 3, "average"
    with torch.autocast("cpu", torch.bfloat16):
        result = back_project(*inputs)
    assert result.dtype == torch.float32
    assert torch.equal(result, back_project(*inputs))


@pytest.mark.parametrize("way", WAYS)
def test_outputs_beyond_the_receptive_radius_do_not_change(way: str) -> None:
    model, size = network(4), 64
    low = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    mask, guide = torch.ones_like(low), torch.rand(1, 3, 4 * size, 4 * size)
    context = model.context(low, mask)
    other = low.clone()
    other[..., 0, 0] = 1 - other[..., 0, 0]
    with torch.no_grad():
        one, two = (model.scaled_pixels(each, mask, guide, context, 4, way).depth for each in (low, other))
    radius = 4 * (model.receptive_radius_for(way) + 1)
    assert radius < 4 * size
    assert torch.equal(one[..., radius:, :], two[..., radius:, :])
    assert torch.equal(one[..., :, radius:], two[..., :, radius:])
    assert not torch.equal(one, two)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": "good"}, "quality must be 'best' or 'fast', got 'good'"),
        ({"sharpness": 0}, "sharpness must be finite and above 0, got 0"),
        ({"sharpness": math.nan}, "sharpness must be finite and above 0, got nan"),
        ({"samples": "mean"}, "samples must be 'auto', 'point', 'average', 'bicubic', got 'mean'"),
        (
            {"samples": "average", "offset": 0},
            r"samples='average' needs each sample in the middle of its block, offset \(ratio - 1\) / 2, got offset 0 "
            r"at ratio 4, 0 at ratio 4 \(y, x\); leave offset out, or give samples='point'",
        ),
        ({"samples": "bicubic", "offset": (1.5, 1)}, "got offset 1.5 at ratio 4, 1 at ratio 4"),
    ],
)
def test_errors(options: dict[str, Any], message: str) -> None:
    guide = np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match=message):
        upsample(np.random.default_rng(0).random((8, 8)) + 1, guide, model=network(4), **options)
