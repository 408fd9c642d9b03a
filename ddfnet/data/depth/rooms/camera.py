"""Camera: where it stands, the rays of its pixels, and what its sensor makes of the light."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ddfnet.data.depth.rooms.plan import Plan
from ddfnet.data.depth.rooms.shapes import Array
from ddfnet.data.depth.rooms.tracer import Solid

_CANDIDATES = 24  # views, of which the richest is taken
_FARTHEST = np.float32(20)  # metres
_NEAREST = 0.35  # metres, nearer than which nothing may be


class View(NamedTuple):
    """Position of a camera (3,) and its axes (3, 3): right, down, forward; focal length in pixels; width and height."""

    eye: Array
    axes: Array
    focal: float
    size: tuple[int, int]

    def rays(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Return origins and directions (N, 3), float32, through points of the image; depth is the length along them.

        The centre of the first pixel is (0.5, 0.5). Directions are one unit long along the optical axis, so the
        distance that a ray goes, in lengths of its direction, is its depth.
        """
        width, height = self.size
        across, down = (x - width / 2) / self.focal, (y - height / 2) / self.focal
        directions = across[:, None] * self.axes[0] + down[:, None] * self.axes[1] + self.axes[2]
        return np.broadcast_to(self.eye.astype(np.float32), directions.shape), directions.astype(np.float32)


def draw(rng: np.random.Generator, plan: Plan, solid: Solid, things: Array, size: tuple[int, int]) -> View:
    """Draw some views into a room, and return the one with the most things at a good distance.

    Args:
        rng: source of all draws.
        plan: the room.
        solid: its triangles.
        things: the number of the object that each triangle is of.
        size: width and height in pixels.
    """
    best, most = None, -math.inf
    for _ in range(_CANDIDATES):
        view = _candidate(rng, plan, size)
        score = _worth(view, solid, things)
        if best is None or score > most:
            best, most = view, score
    assert best is not None
    return best


def _candidate(rng: np.random.Generator, plan: Plan, size: tuple[int, int]) -> View:
    room = np.array(plan.size)
    eye = np.array([0.0, rng.uniform(0.8, min(1.9, room[1] - 0.3)), 0.0])
    eye[[0, 2]] = rng.uniform(0.3, room[[0, 2]] - 0.3)
    target = np.array([0.0, rng.uniform(0.2, 1.4), 0.0])
    target[[0, 2]] = room[[0, 2]] * rng.uniform(0.1, 0.9, 2)
    forward = target - eye
    if np.linalg.norm(forward[[0, 2]]) < 0.5:
        forward = np.array([room[0] / 2, eye[1], room[2] / 2]) - eye + np.array([0.05, -0.1, 0.05])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = math.radians(rng.normal(0, 2))
    right, down = math.cos(roll) * right + math.sin(roll) * down, math.cos(roll) * down - math.sin(roll) * right
    focal = size[0] / 2 / math.tan(math.radians(rng.uniform(45, 75)) / 2)
    return View(eye, np.stack([right, down, forward]), focal, size)


def _worth(view: View, solid: Solid, things: Array) -> float:
    """Return how much a view shows: things, and depths far from one another; far below 0 if something is too near."""
    width, height = view.size
    y, x = (grid.ravel() for grid in np.mgrid[0.5:24, 0.5:32])
    origins, directions = view.rays(x * width / 32, y * height / 24)
    hits, depth = solid.meet(origins, directions * _FARTHEST)
    depth = depth * _FARTHEST
    if depth.min() < _NEAREST or (hits < 0).any():
        return -1000 + float(depth.min())
    seen = np.unique(things[hits], return_counts=True)[1]
    near = (depth < 1).mean()
    return float((seen >= 2).sum() - 30 * max(near - 0.1, 0) + 5 * np.log(depth).std())


def expose(rng: np.random.Generator, light: Array) -> Array:
    """Return the image of a sensor, (H, W, 3), uint8.

    Args:
        rng: source of all draws.
        light: (H, W, 3), float32, of any brightness.
    """
    import cv2

    height, width = light.shape[:2]
    brightness = light.mean(-1)
    level = np.exp(np.log(brightness + 1e-4).mean())
    light = light * np.float32(0.16 * 2 ** rng.normal(0, 0.7) / level)
    balance = rng.normal(0, 0.06, 3)
    light = light * np.exp(balance - balance.mean()).astype(np.float32)
    if rng.random() < 0.7:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.25, 0.9))
    if rng.random() < 0.4:  # darker corners
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        light = light * (1 - rng.uniform(0, 0.25) * (x * x + y * y)[..., None]).astype(np.float32)
    grain = rng.uniform(0.0, 1.0) ** 2
    noise = rng.standard_normal(light.shape, np.float32)
    light = light + noise * np.sqrt(light.clip(0) * (2e-3 * grain) + (6e-3 * grain) ** 2).astype(np.float32)
    bend = rng.uniform(0.0, 0.6)  # a curve that spares bright parts
    light = light.clip(0)
    light = light * (1 + bend * light * 0.6) / (1 + bend * light)
    image = light.clip(0, 1) ** np.float32(1 / rng.uniform(2.0, 2.4))
    return (image * 255 + 0.5).astype(np.uint8)


def quality(rng: np.random.Generator) -> int | None:
    """Draw the quality of a JPEG file, None for a file without loss."""
    return None if rng.random() < 0.5 else int(rng.integers(75, 98))
