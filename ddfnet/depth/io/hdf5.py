"""Depth maps as HDF5 data sets."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.depth.io.claims import check_inflated, map_shape, pixel_limit
from ddfnet.depth.io.registry import NUMBERS, DepthMap, NamedFormat, choose, register_format
from ddfnet.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DEFLATE, _SHUFFLE, _FLETCHER = 1, 2, 3  # filters that are part of HDF5; others would load a library
_CHECKSUM = 4  # bytes of Fletcher's


@register_format
class Hdf5(NamedFormat):
    """HDF5; the name of the data set that was read is written again."""

    name, suffixes, dtypes = "HDF5", (".h5", ".hdf5"), NUMBERS
    description = "its only map, `depth`, or --channel"
    package = ("h5py", "formats")
    programs = dict.fromkeys(("h5py", "rasterio"), dtypes)

    def read(self, stream: BinaryIO, channel: str | None = None) -> DepthMap:
        """Return one data set, whose values lie in the file itself: links to other files are not followed."""
        import h5py
        import numpy as np

        if stream.read(len(_SIGNATURE)) != _SIGNATURE:
            raise DataError("not an HDF5 file, or a broken one")
        stream.seek(0)
        with h5py.File(stream, "r") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if _is_map(h5py, item) else None)
            channel = channel.strip("/") if channel is not None else None
            key = choose(names, channel, [[name for name in names if name.rpartition("/")[2].lower() == "depth"]])
            data = file[key]
            if data.external or data.is_virtual:
                raise DataError(f"the values of {key} lie in other files; copy them into one, by h5repack")
            map_shape(data.shape)
            _check_filters(data, key)
            values: Array = data[()]
            return DepthMap(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("=")), channel=key)

    def write(self, stream: BinaryIO, values: Array) -> None:
        self.write_like(stream, values, DepthMap(values))

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        import h5py

        content = io.BytesIO()  # HDF5 reads what it writes, and an atomic file is for writing alone
        with h5py.File(content, "w") as file:
            file.create_dataset(source.channel or "depth", data=values, compression="gzip", shuffle=True)
        stream.write(content.getbuffer())


def _is_map(h5py: Any, item: Any) -> bool:
    """Return whether an item is a data set of numbers with the shape of a map."""
    if not isinstance(item, h5py.Dataset) or item.dtype.kind not in "biuf" or not item.shape:
        return False
    return len([length for length in item.shape if length != 1]) == 2 or len(item.shape) == 2


def _check_filters(data: Any, name: str) -> None:
    """Refuse compressions whose output has no bound, or that load libraries."""
    properties = data.id.get_create_plist()
    filters = [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]
    if foreign := [code for code in filters if code not in (_DEFLATE, _SHUFFLE, _FLETCHER)]:
        raise DataError(f"{name} is compressed by HDF5's filter {foreign[0]}; change that: h5repack -f GZIP=4 OLD NEW")
    if filters.count(_DEFLATE) > 1:
        raise DataError(f"{name} is compressed twice; change that: h5repack -f GZIP=4 OLD NEW")
    if _DEFLATE in filters:
        size = data.dtype.itemsize
        for length in data.chunks:
            size *= length
        if (limit := pixel_limit()) and size > limit * data.dtype.itemsize:
            raise DataError(f"says that a part of it has {size} bytes, more than the limit of {limit} pixels")
        check_inflated(_chunks(data), size + _CHECKSUM)


def _chunks(data: Any) -> Iterator[bytes]:
    for i in range(data.id.get_num_chunks()):
        chunk = data.id.get_chunk_info(i)
        if not chunk.filter_mask:  # otherwise a filter was left out
            yield data.id.read_direct_chunk(chunk.chunk_offset)[1]
