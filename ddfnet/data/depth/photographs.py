"""Photographs inside scikit-image's package, without the others that it would download."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from ddfnet.errors import DataError
from ddfnet.images import read_image


@dataclass(frozen=True)
class Photograph:
    """Photograph, (3, H, W), uint8, and its credit."""

    name: str
    image: Tensor
    credit: str


_CREDITS = {  # all CC0 or in the public domain, as scikit-image's documentation states
    "chelsea.png": "Chelsea the cat, by Stéfan van der Walt (CC0)",
    "coffee.png": "A cup of coffee, by Rachel Michetti, Pikolo Espresso Bar (CC0)",
    "astronaut.png": "Eileen Collins, NASA (public domain)",
}


def load(size: int) -> list[Photograph]:
    """Load the photographs, cut to their central square.

    Args:
        size: pixels per side.

    Returns:
        Photographs of (3, size, size), uint8.

    Raises:
        DataError: this scikit-image was packaged without them.
    """
    return [Photograph(Path(file).stem, _read(file, size), credit) for file, credit in _CREDITS.items()]


def skimage_file(file: str) -> bytes:
    """Return the bytes of a file of scikit-image's data, by its name.

    Raises:
        DataError: this scikit-image was packaged without it.
    """
    # Not skimage.data.chelsea() and the like: those would download a file that is not there.
    try:
        return (files("skimage.data") / file).read_bytes()
    except OSError as error:
        raise DataError(f"scikit-image was installed without its {file}: {error}") from None


def _read(file: str, size: int) -> Tensor:
    from PIL import Image, ImageOps

    image = ImageOps.fit(read_image(BytesIO(skimage_file(file)), file), (size, size), Image.Resampling.LANCZOS)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(size, size, 3).permute(2, 0, 1)
