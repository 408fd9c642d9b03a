"""Depth maps as NumPy arrays: NPY and NPZ."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.depth.io.claims import map_shape
from ddfnet.depth.io.registry import NUMBERS, DepthFormat, DepthMap, NamedFormat, choose, register_format
from ddfnet.errors import DataError
from ddfnet.reading import one_line

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_LARGEST_HEADER = 10_000  # bytes, as NumPy has it


@register_format
class Npy(DepthFormat):
    """NumPy array."""

    name, suffixes, dtypes = "NPY", (".npy",), NUMBERS
    description = "(h, w), (h, w, 1) or (1, h, w)"
    programs = dict.fromkeys(("NumPy",), dtypes)

    def read(self, stream: BinaryIO) -> Array:
        size = stream.seek(0, 2)
        stream.seek(0)
        return _read_array(stream, size)

    def write(self, stream: BinaryIO, values: Array) -> None:
        from numpy.lib import format

        format.write_array(stream, values, allow_pickle=False)


@register_format
class Npz(NamedFormat):
    """Archive of NumPy arrays; the key that was read is written again."""

    name, suffixes, dtypes = "NPZ", (".npz",), NUMBERS
    description = "its only map, `depth`, or --channel"
    programs = dict.fromkeys(("NumPy",), dtypes)

    def read(self, stream: BinaryIO, channel: str | None = None) -> DepthMap:
        """Return one array, whose checksum is compared; no other is decompressed."""
        try:
            archive = zipfile.ZipFile(stream)
        except zipfile.BadZipFile:
            raise DataError("not an .npz file, or a broken one") from None
        with archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            maps = [name for name, info in members.items() if _is_map(archive, info, strict=channel is None)]
            if channel is None and not maps and len(members) == 1:
                channel, maps = next(iter(members)), [*members]  # its own error says what it is
            key = choose(maps, channel, [[name for name in maps if name.lower() == "depth"]])
            with archive.open(members[key]) as member:
                return DepthMap(_read_array(member, members[key].file_size), channel=key)

    def write(self, stream: BinaryIO, values: Array) -> None:
        self.write_like(stream, values, DepthMap(values))

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        from numpy.lib import format

        # NumPy's own writer takes the names as arguments, so a few of them would be its own options.
        with (
            zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open(f"{source.channel or 'depth'}.npy", "w", force_zip64=True) as member,
        ):
            format.write_array(member, values, allow_pickle=False)


def _is_map(archive: zipfile.ZipFile, info: zipfile.ZipInfo, *, strict: bool) -> bool:
    """Return whether a member's header is that of an array of numbers with the shape of a map.

    Args:
        archive: the archive.
        info: the member.
        strict: refuse a header that cannot be read; it may have been the map's.
    """
    try:
        with archive.open(info) as member:  # compares its two names
            if not info.filename.endswith(".npy"):
                return False
            shape, _, dtype = _parse_header(member)
    except Exception as error:  # zipfile raises many kinds for broken archives
        if strict:
            raise DataError(f"{info.filename}: {one_line(error)}; give --channel for another array") from None
        return False
    try:
        _check_map(shape, dtype)
    except DataError:
        return False
    return True


def _parse_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and dtype of an array's header."""
    from numpy.lib import format

    try:
        version = format.read_magic(stream)  # type: ignore[no-untyped-call]
        read = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}[version]
        shape, columns_first, dtype = read(stream, max_header_size=_LARGEST_HEADER)  # type: ignore[no-untyped-call]
    except Exception as error:  # NumPy raises many kinds for broken headers
        raise DataError(f"not a .npy file, or a broken one: {one_line(error)}") from None
    if any(type(length) is not int for length in shape):  # NumPy lets True pass
        raise DataError(f"not a .npy file, or a broken one: its shape is {shape}")
    return shape, columns_first, dtype


def _check_map(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the size (h, w) of a map; refuse another array."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise DataError(f"a depth map must be of integers or floats of at most 64 bits, got {dtype}")
    return map_shape(shape)


def _read_array(stream: Any, size: int) -> Array:
    """Return the array of a stream of this size; its header is judged before anything is allocated by its claims."""
    import numpy as np

    claimed, columns_first, dtype = _parse_header(stream)
    shape, start = _check_map(claimed, dtype), stream.tell()
    needed = shape[0] * shape[1] * dtype.itemsize
    if size - start != needed:
        raise DataError(f"cut short or too long: {needed} bytes of values are required, there are {size - start}")
    data = stream.read(needed)
    if len(data) < needed or stream.read(1):
        raise DataError(f"cut short or too long: {needed} bytes of values are required, there are others")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if columns_first else "C")
    return np.array(values, dtype=dtype.newbyteorder("="), order="C")  # a copy, for what was read cannot be written to
