"""Textures for synthetic scenes: crops of real photographs, rotated, scaled, recoloured and shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddfnet.data.depth.photographs import skimage_file
from ddfnet.data.hidden import is_hidden
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
_LEAST = 96  # pixels per side of a photograph; a smaller image is an icon


def photographs(more: Sequence[str | Path] = ()) -> list[Pixels]:
    """Return photographs (H, W, 3), uint8: those inside scikit-image, and others.

    The test scenes (`ddfnet.data.depth.middlebury`) are held back by name, wherever they are found.

    Args:
        more: PNG and JPEG files, and folders of them, without their sub-folders. Files of a folder are passed over that
            are held back, no images, or smaller than 96 pixels per side.

    Raises:
        DataError: a file or folder is missing, or has no image that may be used; this scikit-image was packaged
            without its own.

    Example:
        >>> from ddfnet.data.depth.textures import photographs
        >>> len(photographs())
        10
    """
    images = [_decode(skimage_file(name)) for name in _SCIKIT_IMAGE]
    for path in map(Path, more):
        found = [_decode(_content(file)) for file in _listed(path)]
        large = [image for image in found if image is not None and min(image.shape[:2]) >= _LEAST]
        if not large:
            raise DataError(f"{path} has no photograph of {_LEAST} pixels per side or more ({', '.join(_SUFFIXES)})")
        images += large
    return [image for image in images if image is not None]


def _listed(path: Path) -> list[Path]:
    if path.is_dir():
        files = (file for file in sorted(path.iterdir()) if file.suffix.lower() in _SUFFIXES and file.is_file())
        candidates = [file for file in files if not is_hidden(Path(file.name))]
    elif path.is_file():
        candidates = [path]
    else:
        raise DataError(f"{path}: no such photograph or folder of photographs")
    free = [file for file in candidates if not _held_back(file)]
    if candidates and not free:
        raise DataError(
            f"{candidates[0]} is held back: its name or its folder's begins as a test scene's does "
            f"({', '.join(_HELD_BACK)}), on which nothing may be trained; leave it out, or rename another image"
        )
    return free


def _held_back(file: Path) -> bool:
    """Return whether it is a test scene; Middlebury's files are view1.png or im0.png in a folder of its name."""
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


def texture(rng: np.random.Generator, images: Sequence[Pixels], height: int, width: int) -> Pixels:
    """Draw a texture (height, width, 3), float32, from 0 to 1: part of a photograph, sometimes a plain colour."""
    if rng.random() < 0.12:
        surface = np.empty((height, width, 3), np.float32)
        surface[:] = rng.random(3)
    else:
        surface = _recoloured(rng, _crop(rng, images[int(rng.integers(len(images)))], height, width))
    if rng.random() < 0.5:
        down, across = rng.uniform(-0.5, 0.5, 2)
        light = 1 + down * np.linspace(-1, 1, height)[:, None] + across * np.linspace(-1, 1, width)[None]
        surface *= light[..., None].astype(np.float32)
    return surface.clip(0, 1, out=surface)


def _crop(rng: np.random.Generator, image: Pixels, height: int, width: int) -> Pixels:
    """Draw a window of the photograph at a random scale, angle and place, inside it as far as possible."""
    import cv2

    rows, columns = image.shape[:2]
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
    return cv2.warpAffine(image, move, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT_101)


def _recoloured(rng: np.random.Generator, window: Pixels) -> Pixels:
    """Return the window in other colours, (h, w, 3), float32, about 0 to 1.

    Contrast and mean change in all cases, the order of the channels in some.
    """
    import cv2

    if rng.random() < 0.2:
        window = window[..., rng.permutation(3)]
    mean = np.array(cv2.mean(np.ascontiguousarray(window))[:3]) / 255
    tint = rng.uniform(-0.25, 0.25, 3) if rng.random() < 0.4 else np.full(3, rng.uniform(-0.3, 0.3))
    contrast = rng.uniform(0.3, 1.1)
    shift = (mean + tint).clip(0.05, 0.95) - contrast * mean
    return window * np.float32(contrast / 255) + shift.astype(np.float32)
