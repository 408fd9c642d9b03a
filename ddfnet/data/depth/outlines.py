"""Outlines of the objects in a synthetic scene: closed curves around the origin, as points (n, 2) in pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Points = np.ndarray[tuple[int, int], np.dtype[np.float64]]
_TURN = 2 * math.pi


def outline(rng: np.random.Generator, radius: float) -> Points:
    """Draw a curve of a random kind, about ``radius`` pixels from the origin to its furthest point."""
    kinds: tuple[Callable[[np.random.Generator, float], Points], ...] = (
        _star,
        _rectangle,
        _ellipse,
        _blob,
        _blob,
        _bar,
    )
    return kinds[rng.integers(len(kinds))](rng, radius)


def rotated(points: Points, angle: float) -> Points:
    """Return points rotated around the origin by an angle in radians."""
    c, s = math.cos(angle), math.sin(angle)
    return points @ np.array([[c, s], [-s, c]])


def _around(angles: np.ndarray[Any, Any], radii: np.ndarray[Any, Any]) -> Points:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _star(rng: np.random.Generator, radius: float) -> Points:
    """Draw a polygon of three to ten corners."""
    corners = int(rng.integers(3, 11))
    return _around(np.sort(rng.uniform(0, _TURN, corners)), radius * rng.uniform(0.4, 1, corners))


def _rectangle(rng: np.random.Generator, radius: float) -> Points:
    """Draw a rectangle, upright in half of the cases, as man-made objects are."""
    aspect = math.exp(rng.uniform(-0.6, 0.6))
    corners = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * radius * 0.75 * np.array([aspect, 1 / aspect])
    return rotated(corners, rng.normal(0, 0.1) if rng.random() < 0.5 else rng.uniform(0, _TURN))


def _ellipse(rng: np.random.Generator, radius: float) -> Points:
    angles = np.linspace(0, _TURN, 48, endpoint=False)
    return rotated(_around(angles, np.full(48, radius)) * np.array([1, rng.uniform(0.3, 1)]), rng.uniform(0, _TURN))


def _blob(rng: np.random.Generator, radius: float) -> Points:
    """Draw a smooth closed curve: a circle with a few harmonics."""
    angles = np.linspace(0, _TURN, 64, endpoint=False)
    radii = np.ones(64)
    for harmonic in range(2, 7):
        radii += rng.normal(0, 0.5 / harmonic) * np.cos(harmonic * angles + rng.uniform(0, _TURN))
    return _around(angles, radius * radii.clip(0.15, 2) / 1.3)


def _bar(rng: np.random.Generator, radius: float) -> Points:
    """Draw a rod, thinner than the low resolution can show, and bent in half of the cases."""
    half, width = radius * rng.uniform(1, 2.5), max(1.2, rng.uniform(0.01, 0.2) * radius)
    bend = rng.normal(0, 0.3) * half if rng.random() < 0.5 else 0
    along = np.linspace(-1, 1, 9)
    middle = bend * (1 - along**2)
    forth = np.stack([along * half, middle - width / 2], 1)
    back = np.stack([along * half, middle + width / 2], 1)[::-1]
    return rotated(np.concatenate([forth, back]), rng.uniform(0, _TURN))
