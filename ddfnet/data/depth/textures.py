"""Textures for composed scenes: crops of real photographs, turned, scaled, recoloured and shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfnet.data.depth.photographs import carried
from ddfnet.errors import DataError

Pixels = np.ndarray[Any, Any]

_SCIKIT_IMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "ihc.png",
    "rocket.jpg",
)
_HELD_BACK = ("aloe", "motorcycle")  # the scenes that methods are tested on
_SUFFIXES = (".png", ".jpg", ".jpeg")
_LEAST = 96  # pixels a side of a photograph; a smaller picture is an icon


def photographs(more: Sequence[str | Path] = ()) -> list[Pixels]:
    """Photographs (H, W, 3), uint8: those that scikit-image carries, and others.

    The test scenes (`ddfnet.data.depth.middlebury`) are held back by name, wherever they are found.

    Args:
        more: PNG and JPEG files, and folders of them, whose sub-folders are not looked into. What is in a folder and is
            held back, no picture, or smaller than 96 pixels a side, is passed over.

    Raises:
        DataError: a file or folder is missing, or has no picture that may be used; this scikit-image was packaged
            without its own.

    Example:
        >>> from ddfnet.data.depth.textures import photographs
        >>> len(photographs())
        10
    """
    pictures = [_decode(carried(name)) for name in _SCIKIT_IMAGE]
    for path in map(Path, more):
        found = [_decode(_content(file)) for file in _listed(path)]
        large = [picture for picture in found if picture is not None and min(picture.shape[:2]) >= _LEAST]
        if not large:
            raise DataError(f"{path} has no photograph of {_LEAST} pixels a side or more ({', '.join(_SUFFIXES)})")
        pictures += large
    return [picture for picture in pictures if picture is not None]


def _listed(path: Path) -> list[Path]:
    if path.is_dir():
        candidates = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES and file.is_file())
    elif path.is_file():
        candidates = [path]
    else:
        raise DataError(f"{path}: no such photograph or folder of photographs")
    free = [file for file in candidates if not _held_back(file)]
    if candidates and not free:
        raise DataError(
            f"{candidates[0]} is held back: its name or its folder's begins as a test scene's does "
            f"({', '.join(_HELD_BACK)}), on which nothing may be trained; leave it out, or rename another picture"
        )
    return free


def _held_back(file: Path) -> bool:
    """Whether it is a test scene; Middlebury's own files are view1.png and im0.png in a folder of the scene's name."""
    return any(name.lower().startswith(_HELD_BACK) for name in (file.stem, file.resolve().parent.name))


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from None


def _decode(content: bytes) -> Pixels | None:
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content else None
    except cv2.error:  # such as a header that states a size beyond OpenCV's limit
        return None


def texture(rng: np.random.Generator, pictures: Sequence[Pixels], height: int, width: int) -> Pixels:
    """A texture (height, width, 3), float32, from 0 to 1: a plain colour now and then, mostly part of a photograph."""
    if rng.random() < 0.12:
        surface = np.empty((height, width, 3), np.float32)
        surface[:] = rng.random(3)
    else:
        surface = _recoloured(rng, _cut(rng, pictures[int(rng.integers(len(pictures)))], height, width))
    if rng.random() < 0.5:
        down, across = rng.uniform(-0.5, 0.5, 2)
        light = 1 + down * np.linspace(-1, 1, height)[:, None] + across * np.linspace(-1, 1, width)[None]
        surface *= light[..., None].astype(np.float32)
    return surface.clip(0, 1, out=surface)


def _cut(rng: np.random.Generator, picture: Pixels, height: int, width: int) -> Pixels:
    """A window of the photograph at a scale, a turn and a place of its own, within it as far as possible."""
    import cv2

    rows, columns = picture.shape[:2]
    diagonal = math.hypot(height, width)
    scale = min(math.exp(rng.uniform(math.log(0.25), math.log(2.5))), max(0.25, 0.98 * min(rows, columns) / diagonal))
    angle = rng.uniform(0, 2 * math.pi) if rng.random() < 0.6 else 0.0
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    mirror = -1 if rng.random() < 0.5 else 1
    half = diagonal * scale / 2
    y, x = (rng.uniform(min(half, side / 2), max(side - half, side / 2)) for side in (rows, columns))
    move = np.array([[mirror * c, -s, 0], [mirror * s, c, 0]])
    move[:, 2] = np.array([x, y]) - move[:, :2] @ np.array([width / 2, height / 2])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, move, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _recoloured(rng: np.random.Generator, window: Pixels) -> Pixels:
    """Other channels in some, another contrast and another mean in all: (h, w, 3), float32, about 0 to 1."""
    import cv2

    if rng.random() < 0.2:
        window = window[..., rng.permutation(3)]
    mean = np.array(cv2.mean(np.ascontiguousarray(window))[:3]) / 255
    tint = rng.uniform(-0.25, 0.25, 3) if rng.random() < 0.4 else np.full(3, rng.uniform(-0.3, 0.3))
    contrast = rng.uniform(0.3, 1.1)
    shift = (mean + tint).clip(0.05, 0.95) - contrast * mean
    return window * np.float32(contrast / 255) + shift.astype(np.float32)
