"""View from the side: near surfaces move and cover, and flying pixels show."""

from __future__ import annotations

import numpy as np
import pytest

from ddfnet.depth.point_view import point_view, point_views


def scene(size: tuple[int, int] = (60, 80)) -> tuple[np.ndarray, np.ndarray]:
    """Return a red square at depth 1 before a blue wall at depth 3."""
    depth, guide = np.full(size, 3.0), np.zeros((*size, 3), np.uint8)
    guide[:] = (0, 0, 255)
    depth[20:40, 30:50], guide[20:40, 30:50] = 1, (255, 0, 0)
    return depth, guide


def red(image: np.ndarray) -> tuple[float, float]:
    """Return the mean position of the red pixels, and their share."""
    there = (image[..., 0] > 128) & (image[..., 2] < 64)
    return float(np.nonzero(there)[1].mean()), int(there.sum())


def test_from_the_side_what_is_near_moves_against_what_is_far() -> None:
    depth, guide = scene()
    straight, _ = red(point_view(depth, guide, yaw=0, pitch=0))
    assert red(point_view(depth, guide, yaw=30, pitch=0))[0] < straight - 5
    assert red(point_view(depth, guide, yaw=30, pitch=0, nearer="large"))[0] > straight + 5


def test_seen_from_the_front_it_is_the_image() -> None:
    depth, guide = scene()
    seen = point_view(depth, guide, yaw=0, pitch=0, size=(120, 160))
    assert (seen[60, 80] == guide[30, 40]).all() and (seen[20, 20] == guide[10, 10]).all()


def test_what_is_near_covers_what_is_far() -> None:
    depth, guide = scene()
    _, before = red(point_view(depth, guide, pitch=0, yaw=10))
    _, behind = red(point_view(depth, guide, pitch=0, yaw=10, nearer="large"))
    assert before > 300 and behind < before / 2


def test_flying_pixels_show_between_the_surfaces() -> None:
    depth, guide = scene()
    flying = depth.copy()
    flying[20:40, 28:30] = 2
    guide[20:40, 28:30] = (0, 255, 0)
    clean, dirty = point_views([depth, flying], guide, relief=1.5)
    there = (dirty[..., 1] > 128) & (dirty[..., 0] < 64)
    assert there.sum() > 20
    assert (clean[there].max(axis=-1) < 64).mean() > 0.5  # nothing is there in the clean one: background


def test_missing_pixels_are_not_drawn() -> None:
    depth, guide = scene()
    for missing in (0, np.nan, np.inf):
        holed = np.where(depth == 1, missing, depth)
        assert not ((view := point_view(holed, guide))[..., 0] > 128).any() and (view[..., 2] > 128).any()
    assert len(np.unique(point_view(np.zeros_like(depth), guide).reshape(-1, 3), axis=0)) == 1
    assert point_view(np.full_like(depth, 2), guide).any()  # a constant map has no range


def test_points_need_sizes_that_agree() -> None:
    depth, guide = scene()
    with pytest.raises(ValueError, match="are required, got"):
        point_view(depth[:-1], guide)
    with pytest.raises(ValueError, match='nearer must be "small" or "large", got \'big\''):
        point_view(depth, guide, nearer="big")
