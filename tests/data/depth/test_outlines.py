"""Outlines: closed curves that enclose something and keep to the radius they are asked for."""

import math

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from ddfnet.data.depth import outlines

# How far the furthest point may lie, in radii. A rectangle's corners lie further out than its sides, a blob's harmonics
# add up to twice the circle, and a bar is long for its thickness.
REACH = {"_star": 1, "_rectangle": 1.5, "_ellipse": 1, "_blob": 2 / 1.3, "_bar": 2.6}
SEEDS = range(200)


def made(kind, seed, radius):
    return getattr(outlines, kind)(np.random.default_rng(seed), radius)


@pytest.mark.parametrize("radius", [2, 20, 300])
@pytest.mark.parametrize("kind", REACH)
def test_keeps_to_the_radius(kind, radius):
    for seed in SEEDS:
        points = made(kind, seed, radius)
        assert points.dtype == np.float64 and points.ndim == 2 and points.shape[1] == 2 and len(points) >= 3
        assert np.isfinite(points).all()
        furthest = np.hypot(*points.T).max()
        assert 0.4 * radius <= furthest <= REACH[kind] * radius * (1 + 1e-9)


@pytest.mark.parametrize("kind", [kind for kind in REACH if kind != "_bar"])
def test_grows_with_the_radius_alone(kind):
    """Radii scale a shape and change nothing else, but for the least width of a bar."""
    for seed in SEEDS:
        np.testing.assert_allclose(made(kind, seed, 50), 10 * made(kind, seed, 5), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("kind", REACH)
def test_a_closed_curve_encloses_an_area(kind):
    """Last and first points differ: the line between them is a side."""
    for seed in SEEDS:
        points = made(kind, seed, 40)
        assert np.abs(np.roll(points, -1, 0) - points).sum(1).min() > 1e-6
        mask = np.zeros((256, 256), np.uint8)
        cv2.fillPoly(mask, [np.round(points + 128).astype(np.int32)], 1)
        assert mask.any()


@pytest.mark.parametrize("kind", ["_ellipse", "_blob"])
def test_smooth_ones_have_no_gap_between_last_and_first(kind):
    for seed in SEEDS:
        points = made(kind, seed, 40)
        sides = np.hypot(*(np.roll(points, -1, 0) - points).T)
        assert sides[-1] <= 1.5 * np.sort(sides)[-2]


def test_a_bar_is_thin_and_never_vanishes():
    for seed in SEEDS:
        for radius, least, most in ((2, 1.2, 1.2), (100, 1.2, 20)):
            points = made("_bar", seed, radius)
            there, back = points[:9], points[:8:-1]
            width = np.hypot(*(there - back).T)
            assert (width >= least - 1e-9).all() and (width <= most + 1e-9).all()


def test_all_kinds_are_drawn_and_the_seed_decides():
    sizes = set()
    for seed in range(100):
        points = outlines.outline(np.random.default_rng(seed), 30.0)
        np.testing.assert_array_equal(points, outlines.outline(np.random.default_rng(seed), 30.0))
        assert np.isfinite(points).all() and np.hypot(*points.T).max() <= 30 * max(REACH.values())
        sizes.add(len(points))
    assert {4, 18, 48, 64} <= sizes and sizes & {3, 5, 6, 7, 8, 9, 10}


def test_turned_keeps_distances():
    points = made("_blob", 0, 10)
    np.testing.assert_allclose(outlines.rotated(points, 2 * math.pi), points, atol=1e-12)
    np.testing.assert_allclose(outlines.rotated(points, math.pi), -points, atol=1e-12)
    np.testing.assert_allclose(np.hypot(*outlines.rotated(points, 0.7).T), np.hypot(*points.T))
    np.testing.assert_allclose(outlines.rotated(np.array([[1.0, 0.0]]), math.pi / 2), [[0, 1]], atol=1e-12)
