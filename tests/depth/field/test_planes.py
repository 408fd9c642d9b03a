"""Planes and paraboloids, which come out as such at every ratio and offset, whatever the image."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

pytest.importorskip("safetensors")

import ddfnet

RATIOS = (2, 2.25, 2.5, 3, 4, 5, 5.25, 6, 7, 7.5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20)
SLOPES = (1.0, 0.7)  # depth per sample
RNG = np.random.default_rng(0)
Surface = Callable[[np.ndarray, np.ndarray], np.ndarray]  # from positions in samples


def plane(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return 3 + SLOPES[0] * y[:, None] + SLOPES[1] * x[None]


def paraboloid(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return a surface whose slope changes by a fifth of its own over the map."""
    return plane(y, x) + 0.004 * ((y[:, None] - 5) ** 2 + x[None] ** 2 - y[:, None] * x[None])


def upsample(surface: Surface, ratio: float, offset: float, *, quality: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the result and the true surface, both float64, further than three samples from the border."""
    samples = (13, 15)
    pixels = [round(size * ratio) for size in samples]
    depth = surface(*(np.arange(size, dtype=float) for size in samples)).astype(np.float32)
    guide = RNG.integers(0, 256, (*pixels, 3), dtype=np.uint8)
    options = {"ratio": ratio, "offset": offset, "samples": "point", "quality": quality}
    result = ddfnet.upsample_depth(depth, guide, **options).astype(float)
    positions = [(np.arange(size) - offset) / ratio for size in pixels]
    inside = [(each >= 3) & (each <= size - 4) for each, size in zip(positions, samples, strict=True)]
    return result[np.ix_(*inside)], surface(*positions)[np.ix_(*inside)]


@pytest.mark.parametrize("surface", [plane, paraboloid])
@pytest.mark.parametrize("quality", ["best", "fast"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_surfaces(ratio: float, quality: str, surface: Surface) -> None:
    """Errors in pixels of the guide, that is, over the smaller slope per pixel."""
    middle = (ratio - 1) / 2
    for offset in (middle, math.floor(middle), 0.0, middle + 0.3, middle - 0.45):
        result, true = upsample(surface, ratio, offset, quality=quality)
        error = (result - true) / (min(SLOPES) / ratio)
        assert abs(error.mean()) < 0.01
        assert np.abs(error - error.mean()).max() < 0.02


@pytest.mark.parametrize("ratio", [2, 2.25, 3, 4, 5.25, 7.5, 8, 16])
def test_normals(ratio: float) -> None:
    """Depth in pixels, so that the plane is steep and steps of a pixel tilt its normals."""
    result, true = upsample(lambda y, x: plane(y * ratio, x * ratio), ratio, (ratio - 1) / 2, quality="best")
    normals = [np.stack([*np.gradient(each), np.full(each.shape, -1.0)]) for each in (result, true)]
    cosines = (normals[0] * normals[1]).sum(0) / np.prod([np.linalg.norm(each, axis=0) for each in normals], 0)
    assert np.degrees(np.arccos(cosines.clip(-1, 1))).mean() < 0.3


def test_beyond_the_outermost_samples_nothing_overshoots() -> None:
    ramp = np.tile(np.arange(1.0, 10.0), (9, 1))
    result = ddfnet.upsample_depth(ramp, np.zeros((36, 36, 3), np.uint8))
    assert (result[:, 0] == 1).all() and (result[:, -1] == 9).all()  # before the first sample and behind the last
    assert np.allclose(result[18, 2:34], 1 + (np.arange(2, 34) - 1.5) / 4, atol=1e-5)


def test_at_an_edge_the_slope_is_that_of_the_own_surface() -> None:
    """A floor of slope 1 before a wall at 90, with the edge in the image: no pixel between the two, none beyond."""
    pixels = np.arange(64)
    true = np.where(pixels < 32, 10 + pixels / 4, 90.0)[None].repeat(64, 0)
    guide = np.where(pixels < 32, 60, 190).astype(np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    result = ddfnet.upsample_depth(true[1::4, 1::4], guide, offset=1)
    assert np.abs(result - true)[8:-8, 4:30].max() < 0.3
    assert np.abs(result - true)[8:-8, 34:60].max() < 0.3
    assert result.max() <= 90
