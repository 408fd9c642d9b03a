"""Known depth does not grow over the image's edges into what has none, as sky or an empty background."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("safetensors")

import ddfnet
from ddfnet.depth.alignment import align

SIZE, RADIUS = 384, 100


def disc() -> tuple[np.ndarray, np.ndarray]:
    """Return a disc that lies on no pixel's grid, and its photograph."""
    y, x = np.mgrid[:SIZE, :SIZE]
    inside = (y - 192.3) ** 2 + (x - 189.8) ** 2 < RADIUS**2
    image = np.where(inside[..., None], [180, 120, 60], [60, 90, 170])
    return inside, (image + np.random.default_rng(0).normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


def iou(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize("quality", ["best", "fast"])
@pytest.mark.parametrize("ratio", [4, 8, 16])
def test_a_disc_on_an_empty_background(ratio: int, quality: str) -> None:
    inside, image = disc()
    start = (ratio - 1) // 2
    depth = np.where(inside, 2.0, 0)[start::ratio, start::ratio]
    result = ddfnet.upsample_depth(depth, image, offset=start, quality=quality)
    rows, columns = (axis.nearest_sample().numpy() for axis in align(depth.shape, image.shape, ratio, start))
    nearest = iou((depth > 0)[np.ix_(rows, columns)], inside)
    assert iou(np.isfinite(result), inside) > max(nearest, 0.99)
    assert (result[np.isfinite(result)] == 2).all()


def test_a_hole_stays_a_hole_unless_it_is_filled() -> None:
    depth = np.full((24, 24), 3.0)
    depth[10:14, 9:14] = depth[4, 4] = 0
    guide = np.full((96, 96, 3), 120, np.uint8)
    result = ddfnet.upsample_depth(depth, guide)
    missing = np.isnan(result)
    assert missing[42:54, 38:54].all() and not missing[:12].any()
    assert 0.6 < missing.sum() / ((depth == 0).sum() * 16) < 1.4
    pytest.importorskip("pyamg")
    for fill in ("guided", "nearest", True):
        assert (ddfnet.upsample_depth(depth, guide, fill=fill) == 3).all()
    for fill in ("none", False):
        assert np.array_equal(np.isnan(ddfnet.upsample_depth(depth, guide, fill=fill)), missing)
