"""A depth map as a cloud of points in the colours of its photograph, seen from the side.

On the map itself an edge that is blurred over a few pixels looks almost like a sharp one. From the side its pixels hang
in the air between the surface in front and the one behind: flying pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Limits = tuple[float, float]

_BACKGROUND = (18, 20, 24)
_MARGIN = 0.02
_FINER = 2  # the points are drawn at this many times the size, then averaged


def point_view(depth: Array, guide: Array, **options: Any) -> Array:
    """Draw each pixel of one map as a point: `point_views` of it alone.

    Args:
        depth: (H, W), any real dtype and unit; pixels that are 0, nan or inf are not drawn.
        guide: (H, W, 3), uint8.
        options: those of `point_views`.

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

    The camera is unknown, so this is a relief and no reconstruction: a pixel keeps its place in the picture, and its
    depth is stretched to ``relief`` picture widths between the limits; no perspective.

    Args:
        depths: maps (H, W), any real dtype and unit; pixels that are 0, nan or inf are not drawn.
        guide: (H, W, 3), uint8.
        limits: the depths that the relief spans; what lies beyond is drawn at the limit. By default those of the maps.
        nearer: "small" where small values are near, as for depth; "large" for disparities.
        yaw: degrees that the camera has gone to the right.
        pitch: degrees that it has gone up.
        relief: of the whole range of depth, in picture widths.
        size: (height, width) of the result; by default (H, W). The points of all maps together fill it.

    Returns:
        For each map (height, width, 3), uint8.

    Raises:
        ValueError: the sizes differ, or ``nearer`` is another word.
    """
    for depth in depths:
        if depth.ndim != 2 or guide.shape != (*depth.shape, 3):
            raise ValueError(f"depth (H, W) and guide (H, W, 3) are required, got {depth.shape} and {guide.shape}")
    if nearer not in ("small", "large"):
        raise ValueError(f'nearer must be "small" or "large", got {nearer!r}')
    camera = _camera(yaw, pitch)
    valid = [np.isfinite(depth) & (depth != 0) for depth in depths]
    values = [depth[there].astype(np.float32) for depth, there in zip(depths, valid, strict=True)]
    every = np.concatenate(values)
    low, high = limits or ((every.min(), every.max()) if len(every) else (0, 0))
    clouds = []
    for own, there in zip(values, valid, strict=True):
        share = ((own - low) / (high - low if high > low else 1)).clip(0, 1)
        away = share if nearer == "small" else 1 - share
        clouds.append(_project(camera, np.nonzero(there), away * relief, guide.shape[:2]))
    height, width = size or guide.shape[:2]
    canvases = [np.full((height * _FINER, width * _FINER, 3), _BACKGROUND, np.uint8) for _ in depths]
    if len(every):
        together = np.concatenate(clouds, axis=1)
        frame = np.stack([together.min(axis=1), together.max(axis=1)])
        for canvas, cloud, there in zip(canvases, clouds, valid, strict=True):
            _draw(canvas, cloud, frame, guide[there])
    return [
        canvas.reshape(height, _FINER, width, _FINER, 3).mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8)
        for canvas in canvases
    ]


def _camera(yaw: float, pitch: float) -> Array:
    """The rotation from the picture's (right, down, away) to the camera's."""
    a, b = math.radians(yaw), math.radians(pitch)
    about_down = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    about_right = np.array([[1, 0, 0], [0, math.cos(b), math.sin(b)], [0, -math.sin(b), math.cos(b)]])
    return about_right @ about_down


def _project(camera: Array, pixels: tuple[Array, ...], away: Array, size: tuple[int, ...]) -> Array:
    """Where points (3, P) land: down, right and away from the camera, in pixels; ``away`` is in picture widths."""
    rows, columns = pixels
    right, down, far = camera @ np.stack([columns - size[1] / 2, rows - size[0] / 2, (away - 0.5) * size[1]])
    return np.stack([down, right, far])


def _draw(canvas: Array, cloud: Array, frame: Array, colours: Array) -> None:
    """The furthest points first, each a square as wide as pixels lie apart, so that what is in front covers them."""
    extent, middle = (frame[1] - frame[0])[:2], frame.mean(axis=0)[:2]
    scale = min(length / (own + 1) for length, own in zip(canvas.shape[:2], extent, strict=True)) * (1 - 2 * _MARGIN)
    order = np.argsort(-cloud[2], kind="stable")
    side = max(1, math.ceil(scale))
    top, left = (
        np.floor((cloud[axis][order] - middle[axis]) * scale + (canvas.shape[axis] - side) / 2 + 0.5).astype(np.int64)
        for axis in (0, 1)
    )
    # One assignment for the whole cloud: where an index is repeated the last, the nearest, stays.
    steps = np.arange(side)
    down = (top[:, None, None] + steps[:, None]).clip(0, canvas.shape[0] - 1)
    right = (left[:, None, None] + steps).clip(0, canvas.shape[1] - 1)
    canvas[down, right] = colours[order, None, None]
