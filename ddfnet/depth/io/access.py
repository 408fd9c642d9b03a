"""Depth map files, read safely and written atomically."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from ddfnet.depth.io.claims import map_shape
from ddfnet.depth.io.registry import FORMATS, DepthFormat, DepthMap, NamedFormat, check_holds, format_of
from ddfnet.errors import DataError
from ddfnet.files import atomic_open

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

_Read = TypeVar("_Read")

_SIGNATURES = {b"\x89PNG": ".png", b"II*\0": ".tif", b"MM\0*": ".tif"}  # the two are taken for each other


def read(path: str | Path, *, channel: str | None = None) -> DepthMap:
    """Read a depth map; no value is changed.

    Args:
        path: a file whose suffix is in `FORMATS`. A TIFF that is called .png is read too, and the other way round.
        channel: name of the channel, key or data set, in a file of several. None: the only one that can be meant.

    Returns:
        The values (h, w), in the file's dtype and unit, the format, and what else the file says.

    Raises:
        DataError: the file is missing, empty, broken, huge, of another kind, or not of one channel.

    Example:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write(f"{folder}/a.png", np.full((3, 4), 1500, np.uint16))
        ...     found = read(f"{folder}/a.png")
        >>> found.values.shape, str(found.values.dtype), found.format
        ((3, 4), 'uint16', 'PNG')
    """
    return _read_map(Path(path), channel, mask=False)


def read_mask(path: str | Path, *, least: float | None = None) -> Array:
    """Read a mask or a map of confidences from any format of a depth map, or a bilevel PNG or TIFF.

    Args:
        path: a file whose suffix is in `FORMATS`.
        least: smallest confidence that counts, such as 2 of a device whose values are 0, 1 and 2.

    Returns:
        (h, w), True where the file is at least ``least``, or without it is not 0.

    Raises:
        DataError: as `read`.
    """
    values = _read_map(Path(path), None, mask=True).values
    mask: Array = values != 0 if least is None else values >= least
    return mask


def write(
    path: str | Path,
    values: Array,
    *,
    source: DepthMap | None = None,
    ratio: Sequence[float] = (1.0, 1.0),
    offset: Sequence[float] = (0.0, 0.0),
) -> None:
    """Write a depth map (h, w) atomically, in the format of the file name.

    Args:
        path: a file there is replaced in one step, once everything is on the disk.
        values: (h, w), of a dtype that the format holds: none is converted.
        source: map that the values were made from. What its file said besides its values is written again, if both
            files are of one format.
        ratio: pixels of ``values`` per sample of the source, (y, x).
        offset: pixel of ``values`` on which the source's first sample lies, (y, x).

    Raises:
        DataError: the format does not hold the dtype, or the file cannot be written.
    """
    path = Path(path)
    check_holds(path, values.dtype)
    format = format_of(path)
    try:
        with atomic_open(path) as stream:
            if source is not None and source.format == format.name:
                format.write_like(stream, values, format.enlarge(source, ratio, offset))
            else:
                format.write(stream, values)
    except OSError as error:
        raise DataError(str(error)) from None


def read_file(path: Path, decode: Callable[[BinaryIO], _Read]) -> _Read:
    """Decode a file, with its name before the reason of a failure."""
    with _open_file(path) as stream:
        try:
            return decode(stream)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except MemoryError:  # says nothing of the file
            raise
        except Exception as error:  # decoders raise more kinds for broken files than they document
            raise DataError(f"{path}: a broken or oversized file: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """Return the text of an error in one line of at most 200 characters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _read_map(path: Path, channel: str | None, *, mask: bool) -> DepthMap:
    named = format_of(path)

    def decode(stream: BinaryIO) -> DepthMap:
        format = _true_format(stream, named)
        format.check_installed()
        if isinstance(format, NamedFormat):
            found = format.read(stream, channel)
        elif channel is not None:
            raise DataError(f"there is no --channel {channel}: {format.name} has one channel, without a name")
        else:
            found = format.read_mask(stream) if mask else format.read(stream)
        found = found if isinstance(found, DepthMap) else DepthMap(found)
        values = found.values.reshape(map_shape(found.values.shape))
        if values.dtype.kind not in ("biuf" if mask else "iuf"):
            kind = "bool, as a mask is" if values.dtype.kind == "b" else values.dtype
            raise DataError(f"a depth map must be of numbers, this one is of {kind}")
        return dataclasses.replace(found, values=values, format=format.name)

    return read_file(path, decode)


def _true_format(stream: BinaryIO, named: DepthFormat) -> DepthFormat:
    """Return the format of a file by its content where its name is that of PNG or TIFF, otherwise by its name."""
    suffix = _SIGNATURES.get(stream.read(4))
    stream.seek(0)
    return FORMATS[suffix] if suffix and set(named.suffixes) & set(_SIGNATURES.values()) else named


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: a file is required, this is {'a folder' if path.is_dir() else 'a device'}")
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                raise DataError(f"{path}: the file is empty")
            yield stream
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
