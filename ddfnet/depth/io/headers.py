"""Depth maps of a short header and the values: PGM, Sintel's .dpt and COLMAP's .bin."""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.depth.io.claims import map_shape
from ddfnet.depth.io.registry import DepthFormat, DepthMap, register_format
from ddfnet.depth.io.rows import write_rows
from ddfnet.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_KINECT = 2047  # largest raw value of a Kinect, of 11 bits
_SWAPPED = (
    "the bytes of its values seem to be swapped, as NYU Depth V2's raw files have them; swap them first, by NumPy's "
    "values.byteswap()"
)


@register_format
class Pgm(DepthFormat):
    """Portable grey map, binary or text; its largest allowed value is kept, and scales nothing."""

    name, suffixes, dtypes = "PGM", (".pgm",), ("uint8", "uint16")
    description = "16 or 8 bits"
    package = ("netpbmfile", "upsample")
    programs = dict.fromkeys(("OpenCV", "Pillow", "rasterio"), dtypes)

    def read(self, stream: BinaryIO) -> DepthMap:
        """Return the values as they are stored; Pillow would scale them by the largest allowed one."""
        import numpy as np
        from netpbmfile import NetpbmFile

        if stream.read(2) not in (b"P5", b"P2"):
            raise DataError("not a PGM file (P5 or P2), or a broken one")
        opened = NetpbmFile(stream)
        shape = map_shape((opened.height, opened.width))
        if opened.frames > 1:
            raise DataError(f"one depth map is required, the file has {opened.frames}")
        values = opened.asarray().reshape(shape).astype(np.uint8 if opened.maxval < 256 else np.uint16)
        extras = {"maxval": opened.maxval}
        return DepthMap(values, extras=extras, notes=(_SWAPPED,) if self._is_swapped(values) else ())

    def write(self, stream: BinaryIO, values: Array) -> None:
        self.write_like(stream, values, DepthMap(values))

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        largest = 255 if values.dtype.itemsize == 1 else 65535
        maxval = source.extras.get("maxval", largest)
        if not max(int(values.max()), largest // 256 + 1) <= maxval <= largest:
            maxval = largest
        stream.write(b"P5\n%d %d\n%d\n" % (values.shape[1], values.shape[0], maxval))
        write_rows(stream, values, f">u{values.dtype.itemsize}")

    def _is_swapped(self, values: Array) -> bool:
        """Return whether no value is above the largest of a Kinect's raw ones only if its bytes are swapped."""
        return bool(values.dtype.itemsize == 2 and values.max() > _KINECT and values.byteswap().max() <= _KINECT)


@register_format
class Dpt(DepthFormat):
    """Depth map of MPI Sintel: a tag, width, height and float32, low byte first."""

    name, suffixes, dtypes = "DPT", (".dpt",), ("float32",)
    description = "MPI Sintel"
    _HEADER = struct.Struct("<fii")
    _TAG = 202021.25

    def read(self, stream: BinaryIO) -> Array:
        head = stream.read(self._HEADER.size)
        if len(head) < self._HEADER.size or self._HEADER.unpack(head)[0] != self._TAG:
            raise DataError("not a .dpt file of MPI Sintel, or a broken one")
        _, width, height = self._HEADER.unpack(head)
        return _read_floats(stream, height, width)

    def write(self, stream: BinaryIO, values: Array) -> None:
        stream.write(self._HEADER.pack(self._TAG, values.shape[1], values.shape[0]))
        write_rows(stream, values, "<f4")


@register_format
class Colmap(DepthFormat):
    """Depth map of COLMAP: ``width&height&1&`` and float32, low byte first."""

    name, suffixes, dtypes = "COLMAP", (".geometric.bin", ".photometric.bin"), ("float32",)
    description = "its stereo/depth_maps"

    def read(self, stream: BinaryIO) -> Array:
        head = re.match(rb"(\d{1,9})&(\d{1,9})&(\d{1,9})&", stream.read(33))
        if head is None:
            raise DataError("not a depth map of COLMAP, or a broken one")
        width, height, channels = map(int, head.groups())
        if channels != 1:
            raise DataError(f"a depth map must have one channel, this one has {channels}, as normal maps have")
        stream.seek(head.end())
        return _read_floats(stream, height, width)

    def write(self, stream: BinaryIO, values: Array) -> None:
        stream.write(b"%d&%d&1&" % (values.shape[1], values.shape[0]))
        write_rows(stream, values, "<f4")


def _read_floats(stream: BinaryIO, height: int, width: int) -> Array:
    """Return the float32 values (h, w) from here to the end of a file, which must be as many."""
    import numpy as np

    shape = map_shape((height, width))
    needed, start = 4 * height * width, stream.tell()
    present = stream.seek(0, 2) - start
    if present != needed:
        raise DataError(f"cut short or too long: {needed} bytes of values are required, there are {present}")
    stream.seek(start)
    return np.frombuffer(stream.read(), "<f4").reshape(shape).astype(np.float32)
