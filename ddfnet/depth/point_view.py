"""Depth maps as point clouds in the colours of their guide, seen from the side.

On the map itself an edge that is blurred over a few pixels looks almost like a sharp one. From the side its pixels hang
in the air between the surface in front and the one behind: flying pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddfnet.depth.valid import valid_depth

Array = np.ndarray[Any, np.dtype[Any]]
Limits = tuple[float, float]

_BACKGROUND = (18, 20, 24)
_MARGIN = 0.02
_SUPERSAMPLE = 2  # points are drawn at this many times the size, then averaged


def point_view(depth: Array, guide: Array, **options: Any) -> Array:
    """Draw each pixel of one map as a point, see `point_views`.

    Args:
        depth: (H, W), any real dtype and unit; pixels that are 0, nan or inf are not drawn.
        guide: (H, W, 3), uint8.
        options: options of `point_views`.

    Returns:
        (height, width, 3), uint8.

    Raises:
        ValueError: as `point_views`.

    Example:
        >>> ramp = np.tile(np.linspace(1, 2, 40), (30, 1))
        >>> point_view(ramp, np.full((30, 40, 3), 200, np.uint8), size=(60, 90)).shape
        (60, 90, 3)
    """
    return point_views([depth], guide, **options)[0]


def point_views(
    depths: Sequence[Array],
    guide: Array,
    *,
    limits: Limits | None = None,
    nearer: str = "small",
    yaw: float = 38.0,
    pitch: float = 14.0,
    relief: float = 0.8,
    size: tuple[int, int] | None = None,
) -> list[Array]:
    """Draw maps of one scene, each pixel a point coloured by the guide, seen from one slant in one scale.

    The camera is unknown, so this is a relief and no reconstruction: a pixel keeps its place in the image, and its
    depth is stretched to ``relief`` image widths between the limits; no perspective.

    Args:
        depths: maps (H, W), any real dtype and unit; pixels that are 0, nan or inf are not drawn.
        guide: (H, W, 3), uint8.
        limits: range of depths that the relief spans; others are drawn at the limit. By default the maps' own range.
        nearer: "small" where small values are near, as for depth; "large" for disparities.
        yaw: rotation of the camera to the right, in degrees.
        pitch: rotation of the camera upward, in degrees.
        relief: extent of the range of depths, in image widths.
        size: (height, width) of the result; by default (H, W). The points of all maps together fill it.

    Returns:
        For each map (height, width, 3), uint8.

    Raises:
        ValueError: the sizes differ, or ``nearer`` has another value.
    """
    for depth in depths:
        if depth.ndim != 2 or guide.shape != (*depth.shape, 3):
            raise ValueError(f"depth (H, W) and guide (H, W, 3) are required, got {depth.shape} and {guide.shape}")
    if nearer not in ("small", "large"):
        raise ValueError(f'nearer must be "small" or "large", got {nearer!r}')
    camera = _camera(yaw, pitch)
    masks = [valid_depth(depth) for depth in depths]
    values = [depth[mask].astype(np.float32) for depth, mask in zip(depths, masks, strict=True)]
    together = np.concatenate(values)
    low, high = limits or ((together.min(), together.max()) if len(together) else (0, 0))
    clouds = []
    for own, mask in zip(values, masks, strict=True):
        share = ((own - low) / (high - low if high > low else 1)).clip(0, 1)
        away = share if nearer == "small" else 1 - share
        clouds.append(_project(camera, np.nonzero(mask), away * relief, guide.shape[:2]))
    height, width = size or guide.shape[:2]
    canvases = [np.full((height * _SUPERSAMPLE, width * _SUPERSAMPLE, 3), _BACKGROUND, np.uint8) for _ in depths]
    if len(together):
        points = np.concatenate(clouds, axis=1)
        frame = np.stack([points.min(axis=1), points.max(axis=1)])
        for canvas, cloud, mask in zip(canvases, clouds, masks, strict=True):
            _draw(canvas, cloud, frame, guide[mask])
    blocks = (canvas.reshape(height, _SUPERSAMPLE, width, _SUPERSAMPLE, 3) for canvas in canvases)
    return [block.mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8) for block in blocks]


def _camera(yaw: float, pitch: float) -> Array:
    """Return the rotation from (right, down, away) of the image to that of the camera."""
    a, b = math.radians(yaw), math.radians(pitch)
    about_down = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_right = np.array([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
    return about_right @ about_down


def _project(camera: Array, pixels: tuple[Array, ...], away: Array, size: tuple[int, ...]) -> Array:
    """Return the points (3, P): down, right and away from the camera, in pixels; ``away`` is in image widths."""
    rows, columns = pixels
    right, down, far = camera @ np.stack([columns - size[1] / 2, rows - size[0] / 2, (away - 0.5) * size[1]])
    return np.stack([down, right, far])


def _draw(canvas: Array, cloud: Array, frame: Array, colours: Array) -> None:
    """Draw the furthest points first, each a square as wide as pixels lie apart, so that nearer ones cover them."""
    extent, middle = (frame[1] - frame[0])[:2], frame.mean(axis=0)[:2]
    scale = min(length / (own + 1) for length, own in zip(canvas.shape[:2], extent, strict=True)) * (1 - 2 * _MARGIN)
    order = np.argsort(-cloud[2], kind="stable")
    side = max(1, math.ceil(scale))
    top, left = (
        np.floor((cloud[axis][order] - middle[axis]) * scale + (canvas.shape[axis] - side) / 2 + 0.5).astype(np.int64)
        for axis in (0, 1)
    )
    # One assignment for the whole cloud: where an index is repeated, the last and so the nearest one stays.
    steps = np.arange(side)
    down = (top[:, None, None] + steps[:, None]).clip(0, canvas.shape[0] - 1)
    right = (left[:, None, None] + steps).clip(0, canvas.shape[1] - 1)
    canvas[down, right] = colours[order, None, None]
