"""Guide images, as viewers show them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.depth.sizes import ROWS, tile_slices
from ddfnet.images import read_image

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

GUIDES = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm"),
    *(".heic", ".heif", ".avif"),
)
"""Endings of the names of guide images."""


def read_guide(path: str | Path) -> Array:
    """Read a guide image as `ddfnet.images.read_image` does.

    Args:
        path: JPEG, PNG, TIFF, WebP, BMP, PPM, AVIF or HEIC, colour or grey.

    Returns:
        (H, W, 3), uint8.

    Raises:
        DataError: the file is missing, empty, broken, huge, or of another kind, or pillow-heif is not installed.
    """
    import numpy as np

    image = read_image(path)
    values = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for rows in tile_slices(image.height, ROWS):  # an array of all rows would be copied two times more on its way
        values[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return values
