"""Depth maps that Pillow reads and writes: PNG and PFM."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.depth.io.registry import DepthFormat, DepthMap, register_format
from ddfnet.depth.io.rows import write_rows
from ddfnet.errors import DataError
from ddfnet.images import decode

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageFile

    Array = np.ndarray[Any, np.dtype[Any]]

_MODES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "F": "float32"}  # Pillow's modes of one channel
_SCALES = {"L;2": 85, "L;4": 17}  # Pillow makes 8 bits of fewer, by these factors


@register_format
class Png(DepthFormat):
    """PNG of one channel; its texts are kept."""

    name, suffixes, dtypes = "PNG", (".png",), ("uint8", "uint16")
    description = "16, 8, 4 or 2 bits, grey"
    programs = dict.fromkeys(("OpenCV", "Pillow", "rasterio", "Open3D"), dtypes)

    def read(self, stream: BinaryIO) -> DepthMap:
        return self._read(stream, to_channel)

    def read_mask(self, stream: BinaryIO) -> DepthMap:
        return self._read(stream, to_mask)

    def write(self, stream: BinaryIO, values: Array) -> None:
        self.write_like(stream, values, DepthMap(values))

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        from PIL import Image, PngImagePlugin

        info = PngImagePlugin.PngInfo()
        for key, text in source.extras.get("text", {}).items():
            info.add_text(key, text)  # as iTXt where Latin-1 does not hold it
        Image.fromarray(values).save(stream, "PNG", pnginfo=info)

    def _read(self, stream: BinaryIO, convert: Callable[[Image.Image], Array]) -> DepthMap:
        def as_map(image: ImageFile.ImageFile) -> DepthMap:
            scale = _SCALES.get(str(image.tile[0].args))  # known until the image is decoded
            values = convert(image)
            return DepthMap(values // scale if scale else values, extras={"text": _texts(image)})

        return decode(stream, ("PNG",), as_map)


@register_format
class Pfm(DepthFormat):
    """Portable float map of one channel; the scale in its header is kept, and multiplies nothing."""

    name, suffixes, dtypes = "PFM", (".pfm",), ("float32",)
    description = "float32"
    programs = dict.fromkeys(("OpenCV", "Pillow"), dtypes)

    def read(self, stream: BinaryIO) -> DepthMap:
        if stream.read(2) == b"PF":
            raise DataError("a depth map must have one channel, this PFM has three colours")
        return decode(
            stream, ("PPM",), lambda image: DepthMap(to_channel(image), extras={"scale": image.info.get("scale", 1.0)})
        )

    def write(self, stream: BinaryIO, values: Array) -> None:
        self.write_like(stream, values, DepthMap(values))

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        scale = source.extras.get("scale", 1.0)
        scale = scale if math.isfinite(scale) and scale > 0 else 1.0
        # Pillow's own writer has no scale. A negative one means that the low byte is first.
        stream.write(b"Pf\n%d %d\n%s\n" % (values.shape[1], values.shape[0], repr(-float(scale)).encode()))
        write_rows(stream, values[::-1], "<f4")


def to_channel(image: Image.Image) -> Array:
    """Return the values of an image of one channel and one page.

    Raises:
        DataError: another kind of image.
    """
    import numpy as np

    if image.mode not in _MODES:
        got = "one of single bits, as a mask is" if image.mode == "1" else f"an image of mode {image.mode}"
        raise DataError(f"a depth map must have one channel of numbers, got {got}")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"one depth map is required, the file has {getattr(image, 'n_frames', 1)}")
    return np.array(image, dtype=_MODES[image.mode])


def to_mask(image: Image.Image) -> Array:
    """Return the values of a bilevel image, or those of `to_channel`."""
    import numpy as np

    return np.array(image, dtype=np.uint8) if image.mode == "1" else to_channel(image)


def _texts(image: Image.Image) -> dict[str, str]:
    """Return the texts of a PNG; some stand behind the pixels."""
    image.load()
    return {key: str(text) for key, text in getattr(image, "text", {}).items() if 0 < len(key.encode("latin-1")) < 80}
