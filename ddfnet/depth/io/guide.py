"""Guide images, as viewers show them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.depth.io.access import read_file
from ddfnet.depth.io.pillow import decode
from ddfnet.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Array = np.ndarray[Any, np.dtype[Any]]

GUIDES = (
    *(".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm"),
    *(".heic", ".heif", ".avif"),
)
"""Endings of the names of guide images."""

_DECODERS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "AVIF")  # no other: some of Pillow's start programs
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_WHITE_IS_ZERO = (0x0106, 0)  # TIFF's tag PhotometricInterpretation, and its value


def read_guide(path: str | Path) -> Array:
    """Read a guide image as viewers show it: turned as its EXIF data says, without transparency.

    Args:
        path: JPEG, PNG, TIFF, WebP, BMP, PPM, AVIF or HEIC, colour or grey. In 16-bit grey the darkest 0.5 % of the
            pixels become black, and the brightest white.

    Returns:
        (H, W, 3), uint8.

    Raises:
        DataError: the file is missing, empty, broken, huge, or of another kind, or pillow-heif is not installed.
    """
    return read_file(Path(path), _read)


def _read(stream: BinaryIO) -> Array:
    if _is_heif(stream):
        try:
            import pillow_heif
        except ImportError:
            needs = "a HEIC image needs pillow-heif, which is not installed; run: pip install 'ddfnet[formats]'"
            raise DataError(needs) from None
        pillow_heif.register_heif_opener()  # for the whole process, but Pillow opens no file by it that names others
        return decode(stream, ("HEIF",), _to_rgb)
    return decode(stream, _DECODERS, _to_rgb)


def _is_heif(stream: BinaryIO) -> bool:
    head = stream.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _to_rgb(image: Image.Image) -> Array:
    import numpy as np
    from PIL import ImageOps

    if image.mode in ("F", "I") and image.format != "PPM":  # Pillow has grey of 16 bits in PGM as I
        raise DataError(f"a guide image is required, got an image of mode {image.mode}, as depth maps are")
    tag, white_is_zero = _WHITE_IS_ZERO
    inverted = image.format == "TIFF" and image.tag_v2.get(tag) == white_is_zero  # type: ignore[attr-defined]
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = stretch(np.array(upright, dtype=np.float32))
        grey = 255 - grey if inverted else grey  # Pillow inverts 8 bits itself, and not 16
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.array(upright.convert("RGB"))


def stretch(grey: Array) -> Array:
    """Map grey values to uint8: the darkest 0.5 % of the pixels to black, the brightest 0.5 % to white.

    A camera that writes 16 bits rarely uses all of them, and one hot pixel does not make the others dark.

    Args:
        grey: (H, W), float.

    Returns:
        (H, W), uint8; black where all are equal.
    """
    import numpy as np

    low, high = np.percentile(grey, (0.5, 99.5), method="nearest")
    if high <= low:
        low, high = grey.min(), grey.max()  # a few bright pixels on an even ground
    scaled = (grey - low) * (255 / max(high - low, 1))
    found: Array = (scaled.clip(0, 255) + 0.5).astype(np.uint8)
    return found
