"""Depth maps as OpenEXR, of one layer or many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.depth.io.claims import map_shape, pixel_limit
from ddfnet.depth.io.registry import DepthMap, NamedFormat, choose, register_format
from ddfnet.depth.sizes import ROWS, tile_slices
from ddfnet.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_MAGIC = b"\x76\x2f\x31\x01"
_CHANNELS = 4  # samples of all channels per pixel of the limit: the library reads all of them


@register_format
class Exr(NamedFormat):
    """OpenEXR, scan lines or tiles; the name of the channel that was read is written again."""

    name, suffixes, dtypes = "EXR", (".exr",), ("float16", "float32", "uint32")
    description = "its only channel, `*.Depth.*`, `Z`, `*.V`, `V`, `*.Z`, `Y`, or --channel"
    package = ("OpenEXR", "formats")
    programs = dict.fromkeys(("OpenEXR",), dtypes)

    def read(self, stream: BinaryIO, channel: str | None = None) -> DepthMap:
        """Return one channel over the display window; where it has no pixel, nan or 0."""
        import numpy as np
        import OpenEXR

        if stream.read(4) != _MAGIC:
            raise DataError("not an EXR file, or a broken one")
        name = str(stream.name)  # OpenEXR before 3.5 reads no streams
        with OpenEXR.File(name, header_only=True) as header:
            total = _check_claims([part.header for part in header.parts])
            count = len(header.parts)
        np.empty(total, np.float32)  # fails now if memory is short, which OpenEXR takes for a part that is broken
        with OpenEXR.File(name, separate_channels=True) as opened:
            if len(opened.parts) != count:  # OpenEXR 3.5 leaves out parts that it cannot read
                raise DataError(f"a broken file: of its {count} parts {len(opened.parts)} can be read")
            found: dict[str, tuple[Any, Any]] = {}
            for part in opened.parts:
                for key, values in part.channels.items():
                    full = key if "." in key or len(opened.parts) == 1 else f"{part.name()}.{key}"
                    found.setdefault(full, (part.header, values))
            key = _choose(found, channel)
            header, chosen = found[key]
            if (chosen.xSampling, chosen.ySampling) != (1, 1):
                raise DataError(f"the channel {key} has fewer samples than pixels, as colours of video have")
            return DepthMap(_display(chosen.pixels, header), channel=key)

    def write(self, stream: BinaryIO, values: Array) -> None:
        self.write_like(stream, values, DepthMap(values))

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        import OpenEXR

        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        name, channel = str(stream.name), source.channel or "Z"
        try:
            with OpenEXR.File(header, {channel: values}) as file:
                file.write(name)
            # A full disk is no error to OpenEXR, and an atomic file must be complete.
            with OpenEXR.File(name, separate_channels=True) as file:
                written = file.channels()[channel].pixels
                parts = tile_slices(len(values), ROWS)  # not all at once: bytes are copies
                complete = all(written[rows].tobytes() == values[rows].tobytes() for rows in parts)
        except (RuntimeError, ValueError, KeyError):
            complete = False
        if not complete:
            raise OSError("it was not written completely; is the disk full?")


def _check_claims(headers: list[Any]) -> int:
    """Refuse parts that are too large, or whose pixels are lists of samples, and return the number of all values."""
    total = 0
    for header in headers:
        if "deep" in str(header.get("type", "")):
            raise DataError("one value per pixel is required, this is a deep EXR, with lists of them")
        for window in ("dataWindow", "displayWindow"):
            (left, top), (right, bottom) = header[window]
            height, width = map_shape((int(bottom) - int(top) + 1, int(right) - int(left) + 1))
            total += height * width * (len(header["channels"]) if window == "dataWindow" else 0)
    if (limit := pixel_limit()) and total > _CHANNELS * limit:
        raise DataError(f"says that it has {total} values, more than the limit of {_CHANNELS * limit}")
    return total


def _choose(found: dict[str, tuple[Any, Any]], channel: str | None) -> str:
    """Return the channel that is the depth map; colours that are all equal are one."""
    names = sorted(found)
    layers = {name: name.lower().split(".") for name in names}
    preferred = [
        [name for name in names if any(part.startswith("depth") for part in layers[name])],
        [name for name in names if name == "Z"],
        [name for name in names if layers[name][-1] == "v"],
        [name for name in names if layers[name][-1] == "z" and len(layers[name]) > 1],
        [name for name in names if name == "Y"],
    ]
    if channel is None:
        colours = next((group for group in [*preferred, names] if group), names)
        if _are_equal_colours(found, colours):
            return next(name for name in colours if layers[name][-1] == "r")
    return choose(names, channel, preferred)


def _are_equal_colours(found: dict[str, tuple[Any, Any]], names: list[str]) -> bool:
    """Return whether channels are R, G and B, or A besides, and the colours are equal, as a grey image's are."""
    import numpy as np

    colour_pixels = {name.split(".")[-1].lower(): found[name][1].pixels for name in names}
    if colour_pixels.keys() - {"a"} != {"r", "g", "b"}:
        return False
    red = colour_pixels["r"]
    return all(np.array_equal(red, colour_pixels[each], equal_nan=red.dtype.kind == "f") for each in "gb")


def _display(values: Array, header: Any) -> Array:
    """Return the values over the display window, which is what an image of the same view shows."""
    import numpy as np

    (left, top), (right, bottom) = (tuple(map(int, corner)) for corner in header["displayWindow"])
    (own_left, own_top), (own_right, own_bottom) = (tuple(map(int, corner)) for corner in header["dataWindow"])
    if (left, top, right, bottom) == (own_left, own_top, own_right, own_bottom):
        return np.ascontiguousarray(values)
    shown = np.full((bottom - top + 1, right - left + 1), np.nan if values.dtype.kind == "f" else 0, values.dtype)
    rows, columns = (max(top, own_top), min(bottom, own_bottom) + 1), (max(left, own_left), min(right, own_right) + 1)
    if rows[0] >= rows[1] or columns[0] >= columns[1]:
        raise DataError("its pixels lie outside of the image that it shows")
    shown[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = values[
        rows[0] - own_top : rows[1] - own_top, columns[0] - own_left : columns[1] - own_left
    ]
    return shown
