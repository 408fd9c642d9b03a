"""Depth maps as TIFF: every type of number, GeoTIFF's nodata and georeference."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from ddfnet.depth.io.claims import check_inflated, map_shape
from ddfnet.depth.io.pillow import to_mask
from ddfnet.depth.io.registry import NUMBERS, DepthFormat, DepthMap, register_format
from ddfnet.errors import DataError
from ddfnet.images import decode

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_PIXEL_SCALE, _TIEPOINT, _TRANSFORM, _NODATA = 33550, 33922, 34264, 42113
_GEO_KEYS, _GEO_DOUBLES, _GEO_TEXTS = 34735, 34736, 34737
_GEOREFERENCE = {_PIXEL_SCALE: "d", _TIEPOINT: "d", _TRANSFORM: "d", _GEO_KEYS: "H", _GEO_DOUBLES: "d", _GEO_TEXTS: "s"}
_RASTER_TYPE, _POINT = 1025, 2  # key in the directory of keys, and its value where coordinates are of pixel centres

_WHOLE = (1, 8, 32946, 32773)  # compressions that tifffile reads by itself: none, deflate (two numbers), PackBits
_DEFLATE = (8, 32946)
_BITS = (1, 8, 16, 32, 64)  # Pillow scales others, and tifffile has them only with a large package
_MOST_PAGES = 64  # a map and its overviews are fewer; the pages of a damaged file can share bytes, and fill any memory
_WHITE_IS_ZERO, _FLOAT_PREDICTOR = 0, 3  # values of PhotometricInterpretation and of Predictor
_PILLOW = ("uint8", "uint16", "int16", "int32", "uint32", "float32")


@register_format
class Tiff(DepthFormat):
    """TIFF of one channel and one page, overviews aside.

    GeoTIFF's nodata is the value that means missing; it and the georeference are written again.
    """

    name, suffixes, dtypes = "TIFF", (".tif", ".tiff"), NUMBERS
    description = "one page; GeoTIFF's nodata is missing"
    package = ("tifffile", "upsample")
    programs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "OpenCV": tuple(name for name in NUMBERS if name != "float16"),
        "Pillow": ("uint8", "uint16", "int16", "int32", "float32"),
        "rasterio": dtypes,
    }
    declares_missing = True

    def read(self, stream: BinaryIO) -> DepthMap:
        page = _page(stream)
        georeference = _georeference(page)
        extras = {"georeference": georeference} if georeference else {}
        return DepthMap(_values(stream, page), missing=_nodata(page), extras=extras)

    def read_mask(self, stream: BinaryIO) -> DepthMap:
        page = _page(stream)
        if page.dtype == bool:  # bilevel, where 0 can be white
            return DepthMap(decode(stream, ("TIFF",), to_mask))
        if page.photometric == _WHITE_IS_ZERO:
            raise DataError("a mask whose white is 0 can be meant in two ways; save it with 0 as black")
        return DepthMap(_values(stream, page))

    def write(self, stream: BinaryIO, values: Array) -> None:
        self.write_like(stream, values, DepthMap(values))

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        import tifffile

        tags: list[tuple[int, str, int, Any, bool]] = []
        for code, value in source.extras.get("georeference", {}).items():
            kind = _GEOREFERENCE[code]
            tags.append((code, kind, 0 if kind == "s" else len(value), value, True))
        if source.missing is not None:
            text = f"{source.missing:.17g}"
            tags.append((_NODATA, "s", 0, text, True))
        with tifffile.TiffWriter(stream) as writer:
            writer.write(values, photometric="minisblack", metadata=None, software=False, extratags=tags)

    def enlarge(self, source: DepthMap, ratio: Sequence[float], offset: Sequence[float]) -> DepthMap:
        """Return a source whose georeference places pixel ``ratio * i + offset`` where its own sample i is."""
        tags = source.extras.get("georeference")
        if not tags:
            return source
        # Coordinates count from the corner of the first pixel, or from its centre.
        half = 0.0 if _counts_from_centre(tags) else 0.5
        y_ratio, x_ratio = ratio
        y, x = (start + half - step * half for start, step in zip(offset, ratio, strict=True))
        new = dict(tags)
        if _PIXEL_SCALE in new:
            width, height, depth = new[_PIXEL_SCALE][:3]
            new[_PIXEL_SCALE] = (width / x_ratio, height / y_ratio, depth)
        if _TIEPOINT in new:
            points = list(new[_TIEPOINT])
            for i in range(0, len(points), 6):
                points[i], points[i + 1] = points[i] * x_ratio + x, points[i + 1] * y_ratio + y
            new[_TIEPOINT] = tuple(points)
        if _TRANSFORM in new:
            rows = [list(new[_TRANSFORM][i : i + 4]) for i in range(0, 16, 4)]
            for row in rows:
                row[0], row[1] = row[0] / x_ratio, row[1] / y_ratio
                row[3] -= row[0] * x + row[1] * y
            new[_TRANSFORM] = tuple(value for row in rows for value in row)
        return replace(source, extras={**source.extras, "georeference": new})


def _page(stream: BinaryIO) -> Any:
    """Return the only page of a TIFF, overviews aside, if its values can be a map."""
    import tifffile

    try:
        with _quiet():
            opened = tifffile.TiffFile(stream)
            pages = [page.aspage() for page in islice(opened.pages, _MOST_PAGES + 1)]
    except tifffile.TiffFileError:
        raise DataError("not a TIFF file that can be read, or a broken one") from None
    if len(pages) > _MOST_PAGES:
        raise DataError(f"one depth map is required, the file has more than {_MOST_PAGES} pages")
    wanted = [page for page in pages if not (page.is_reduced or page.is_mask)]  # GDAL writes overviews behind it
    if len(wanted) != 1:
        raise DataError(f"one depth map is required, the file has {len(wanted)}")
    page = wanted[0]
    if page.samplesperpixel != 1 or page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        kind = "a palette" if page.samplesperpixel == 1 else f"{page.samplesperpixel} channels"
        raise DataError(f"a depth map must have one channel of numbers, got {kind}")
    map_shape(page.shape)
    if page.dtype is None or page.bitspersample not in _BITS:
        raise DataError(f"integers or floats of 8, 16, 32 or 64 bits are required, got {page.bitspersample} bits")
    return page


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile from writing to stderr what is wrong with a file: one line says it."""
    logger, handler = logging.getLogger("tifffile"), logging.NullHandler()
    logger.addHandler(handler)  # with one of its own, Python does not use the last resort
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _values(stream: BinaryIO, page: Any) -> Array:
    """Return the values of a page as they are stored; Pillow would invert 8 bits where 0 is white."""
    import numpy as np

    name = page.dtype.name
    if name in _PILLOW and (page.compression not in _WHOLE or page.predictor == _FLOAT_PREDICTOR):
        return _pillow_values(stream, name, inverted=page.photometric == _WHITE_IS_ZERO)
    if len(page.dataoffsets) != len(page.databytecounts):
        raise DataError(f"a broken TIFF: {len(page.dataoffsets)} parts, and lengths of {len(page.databytecounts)}")
    segments = [*zip(page.dataoffsets, page.databytecounts, strict=True)]
    size = stream.seek(0, 2)
    # tifffile has zeros where values are not there. An offset of 0 says that a tile has none, by GDAL's convention.
    if len(segments) < math.prod(page.chunked) or any(start + length > size for start, length in segments):
        raise DataError("cut short: some of its values are not there")
    if page.compression in _DEFLATE:
        check_inflated((_part(stream, start, length) for start, length in segments), _segment_size(page))
    try:
        with _quiet():
            values: Array = page.asarray()
    except (KeyError, ValueError) as error:
        if "imagecodecs" not in str(error):
            raise
        raise DataError(f"{error.args[0]}; run: pip install imagecodecs, or save it without compression") from None
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


def _pillow_values(stream: BinaryIO, name: str, *, inverted: bool) -> Array:
    """Return the values of a compression or a predictor that tifffile leaves to a large package, and Pillow has."""
    import numpy as np

    values: Array = decode(stream, ("TIFF",), np.array)
    if name == "uint32":
        values = values.view(np.uint32)  # Pillow has the same bits as int32
    if inverted and name == "uint8":
        values = 255 - values
    return values.astype(name)


def _part(stream: BinaryIO, start: int, length: int) -> bytes:
    stream.seek(start)
    return stream.read(length)


def _segment_size(page: Any) -> int:
    """Return the bytes of one strip or tile of a page."""
    rows, columns = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    return min(rows, page.imagelength if not page.is_tiled else rows) * columns * int(page.dtype.itemsize)


def _georeference(page: Any) -> dict[int, Any]:
    """Return the tags of a page that place it on the earth, but for those that do not keep the standard."""
    found = {}
    for code in _GEOREFERENCE:
        value = getattr(page.tags.get(code), "value", None)
        lengths = {_PIXEL_SCALE: 3, _TRANSFORM: 16}
        if code == _GEO_TEXTS:
            sound = isinstance(value, str)
        else:
            value = value if isinstance(value, tuple) else (value,)
            sound = all(isinstance(each, int if code == _GEO_KEYS else int | float) for each in value)
            sound &= len(value) == lengths.get(code, len(value)) and not (code == _TIEPOINT and len(value) % 6)
        if sound:
            found[code] = value
    return found


def _nodata(page: Any) -> float | None:
    tag = page.tags.get(_NODATA)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def _counts_from_centre(tags: Mapping[int, Any]) -> bool:
    keys = tags.get(_GEO_KEYS, ())
    entries = [keys[i : i + 4] for i in range(4, len(keys) - 3, 4)]
    return any(key == _RASTER_TYPE and value == _POINT for key, _, _, value in entries)
