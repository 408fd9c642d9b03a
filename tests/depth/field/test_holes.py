"""Holes are filled with the image's help: on two surfaces with a clear outline, far better than without it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("safetensors")
pytest.importorskip("pyamg")

from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

import ddfnet
from ddfnet.depth import filling

SIZE = 160


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return the depth of a tilted disc before a tilted wall, and their textured photograph."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = (y - 83.4) ** 2 + (x - 77.8) ** 2 < 45**2
    depth = np.where(inside, 900 + 1.5 * y, 2000 + x)
    image = np.where(inside[..., None], [190, 110, 60], [60, 100, 160]) + rng.normal(0, 1.5, (SIZE, SIZE, 3))
    return depth, image.clip(0, 255).astype(np.uint8)


def linear(depth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return SciPy's linear interpolation, and beyond its hull the nearest."""
    points, places = np.argwhere(valid), tuple(np.mgrid[:SIZE, :SIZE])
    found = LinearNDInterpolator(points, depth[valid])(places)
    return np.where(np.isnan(found), NearestNDInterpolator(points, depth[valid])(places), found)


def holes(rng: np.random.Generator) -> np.ndarray:
    valid = np.ones((SIZE, SIZE), bool)
    while valid.mean() > 0.75:
        height, width = rng.integers(10, 51, 2)
        y, x = rng.integers(0, SIZE - height), rng.integers(0, SIZE - width)
        valid[y : y + height, x : x + width] = False
    return valid


def rmse(found: np.ndarray, true: np.ndarray, where: np.ndarray) -> float:
    return float(np.sqrt(np.square(found - true)[where].mean()))


@pytest.mark.parametrize("kind", ["holes", 0.05, 0.01, 0.0013])
def test_far_better_than_linear_interpolation(kind: str | float) -> None:
    rng = np.random.default_rng(0)
    depth, image = scene()
    valid = holes(rng) if isinstance(kind, str) else rng.random(depth.shape) < kind
    given = np.where(valid, depth, 0)
    result = ddfnet.upsample_depth(given, image, fill="guided")
    assert np.array_equal(result[valid], depth[valid])
    assert rmse(result, depth, ~valid) < 0.7 * rmse(linear(depth, valid), depth, ~valid)
    assert depth[valid].min() <= result.min() and result.max() <= depth[valid].max()


@pytest.mark.parametrize("kind", ["holes", 0.05, 0.01])
def test_large_maps_are_solved_on_their_means(kind: str | float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full-size map of twelve megapixels of which few are known would take ten gigabytes otherwise."""
    rng = np.random.default_rng(0)
    depth, image = scene()
    valid = holes(rng) if isinstance(kind, str) else rng.random(depth.shape) < kind
    sizes: list[int] = []
    solve = filling._solve
    monkeypatch.setattr(filling, "_solve", lambda *maps: (sizes.append((~maps[1]).sum()), solve(*maps))[1])
    monkeypatch.setattr(filling, "_AT_ONCE", 3000)
    result = ddfnet.upsample_depth(np.where(valid, depth, 0), image, fill="guided")
    assert len(sizes) == 1 and sizes[0] <= 3000
    assert np.array_equal(result[valid], depth[valid])
    assert rmse(result, depth, ~valid) < 0.7 * rmse(linear(depth, valid), depth, ~valid)
    assert depth[valid].min() <= result.min() and result.max() <= depth[valid].max()


@pytest.mark.parametrize("ratio", [2, 4])
def test_holes_of_a_smaller_map(ratio: int) -> None:
    depth, image = scene()
    start = (ratio - 1) // 2
    small = depth[start::ratio, start::ratio].copy()
    valid = np.ones(small.shape, bool)
    valid[30 // ratio : 60 // ratio, 60 // ratio : 90 // ratio] = False  # across the outline
    near = np.kron(~valid, np.ones((ratio, ratio), bool))
    result = ddfnet.upsample_depth(small, image, valid=valid, offset=start, fill="guided")
    other = ddfnet.upsample_depth(small, image, valid=valid, offset=start, fill="nearest")
    assert rmse(result, depth, near) < 0.5 * rmse(other, depth, near)


def test_a_map_of_the_images_size() -> None:
    """It is not upsampled: what is valid stays as it is, to the bit, and by default its holes are filled."""
    depth, image = scene()
    depth = depth.astype(np.float32)
    assert np.array_equal(ddfnet.upsample_depth(depth, image), depth)
    valid = np.ones(depth.shape, bool)
    valid[20:40, 50:70] = False
    result = ddfnet.upsample_depth(depth, image, valid=valid)
    assert np.array_equal(result[valid], depth[valid]) and np.isfinite(result).all()
    kept = ddfnet.upsample_depth(depth, image, valid=valid, fill="none")
    assert np.array_equal(np.isfinite(kept), valid) and np.array_equal(kept[valid], depth[valid])


def test_an_unknown_way() -> None:
    with pytest.raises(ValueError, match="fill must be 'guided', 'nearest' or 'none', or True or False, got 'linear'"):
        ddfnet.upsample_depth(np.ones((2, 2)), np.zeros((4, 4, 3), np.uint8), fill="linear")
