"""Registry of depth file formats: what each reads and writes, by the endings of file names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar

from ddfnet.errors import DataError, listed

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


NUMBERS = (
    *(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)),
    *(f"float{bits}" for bits in (16, 32, 64)),
)
"""NumPy's names of integers and floats of at most 64 bits."""


@dataclass(frozen=True)
class DepthMap:
    """Depth map as its file holds it.

    Attributes:
        values: (h, w), in the file's dtype and unit.
        format: name of the file's format.
        channel: name of the channel, key or data set, in a format that has names.
        missing: value that the file itself declares to mean missing, such as GeoTIFF's nodata.
        extras: further contents that the format writes again, such as a georeference or a PNG's text.
        notes: lines on the file for the user.
    """

    values: Array
    format: str = ""
    channel: str | None = None
    missing: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class DepthFormat(ABC):
    """File format of depth maps.

    Each is one subclass with `register_format`; the command line, its help, the docs and the tests take from the
    registry what they say of it. A subclass knows no paths. It raises `DataError` with a reason, to which the reader
    adds the file's name; any other exception is reported as a broken file.

    Attributes:
        name: for messages.
        suffixes: endings of file names, in lower case, with the dot; the first is the usual one.
        dtypes: NumPy's names of the types that a file holds, which are written as they are.
        description: the files that are read, for ``--help`` and the docs, such as "16 or 8 bits".
        package: module that reads and writes, if it is an optional one, and the extra that installs it.
        programs: libraries that read the results back, value by value, and the types that they read, for the docs.
        declares_missing: a file can say which value means missing.

    Example:
        >>> import numpy as np
        >>> from ddfnet.depth.io import FORMATS, DepthFormat, register_format
        >>> @register_format
        ... class Text(DepthFormat):
        ...     name, suffixes, dtypes, description = "text", (".txt",), ("float64",), "rows of numbers"
        ...
        ...     def read(self, stream):
        ...         return np.loadtxt(stream, ndmin=2)
        ...
        ...     def write(self, stream, values):
        ...         np.savetxt(stream, values)
        >>> FORMATS.pop(".txt").name
        'text'
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    dtypes: ClassVar[tuple[str, ...]]
    description: ClassVar[str]
    package: ClassVar[tuple[str, str] | None] = None
    programs: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    declares_missing: ClassVar[bool] = False

    @abstractmethod
    def read(self, stream: BinaryIO) -> Array | DepthMap:
        """Return the values (h, w) of a file, in its dtype and unit, alone or with what else the file says."""

    @abstractmethod
    def write(self, stream: BinaryIO, values: Array) -> None:
        """Write values (h, w) of one of ``dtypes``."""

    def write_like(self, stream: BinaryIO, values: Array, source: DepthMap) -> None:
        """Write values as `write` does, and what a source of this format says besides its own values."""
        self.write(stream, values)

    def read_mask(self, stream: BinaryIO) -> Array | DepthMap:
        """Return the values (h, w) of a mask; a format that has bilevel images reads them too."""
        return self.read(stream)

    def enlarge(self, source: DepthMap, ratio: Sequence[float], offset: Sequence[float]) -> DepthMap:
        """Return a source of this format with its extras made those of an enlarged map.

        Sample i of the source lies on pixel ``ratio * i + offset`` of the enlarged map, for the axes (y, x).
        """
        return source

    def check_installed(self) -> None:
        """Raise a `DataError` that says what to install if the format's package is missing."""
        if self.package and find_spec(self.package[0]) is None:
            module, extra = self.package
            raise DataError(f"{self.name} needs {module}, which is not installed; run: pip install 'ddfnet[{extra}]'")


class NamedFormat(DepthFormat):
    """Format whose files can hold several arrays, each with a name."""

    @abstractmethod
    def read(self, stream: BinaryIO, channel: str | None = None) -> Array | DepthMap:
        """Return the array of this name, or without one the only array that can be meant."""


_Format = TypeVar("_Format", bound=type[DepthFormat])

FORMATS: dict[str, DepthFormat] = {}
"""All formats by their suffixes; see `register_format`."""


def register_format(format: _Format) -> _Format:
    """Add a format to `FORMATS`, and so to ``ddfnet upsample``.

    Returns:
        The class, so that this is its decorator.

    Raises:
        ValueError: a suffix is taken, or is not written as ``.abc``.
    """
    for suffix in format.suffixes:
        if suffix in FORMATS:
            raise ValueError(f"the suffix {suffix} is taken by {FORMATS[suffix].name}; choose another")
        if suffix != suffix.lower() or not suffix.startswith("."):
            raise ValueError(f"a suffix must be in lower case, with a dot, got {suffix!r}")
    FORMATS.update(dict.fromkeys(format.suffixes, format()))
    return format


def formats() -> list[DepthFormat]:
    """Return the formats in the order of their registration."""
    return list(dict.fromkeys(FORMATS.values()))


def suffix_of(path: str | Path, suffixes: Iterable[str] | None = None) -> str | None:
    """Return the longest of some suffixes, by default those of `FORMATS`, that a file name ends in, or None.

    Example:
        >>> suffix_of("depth/IMG_1.PNG"), suffix_of("a.jpg.geometric.bin"), suffix_of("a.jpg"), suffix_of(".png")
        ('.png', '.geometric.bin', None, None)
    """
    name = Path(path).name.lower()
    found = [
        suffix
        for suffix in (FORMATS if suffixes is None else suffixes)
        if name.endswith(suffix) and len(name) > len(suffix)
    ]
    return max(found, key=len, default=None)


def stem_of(path: str | Path, suffixes: Iterable[str] | None = None) -> str | None:
    """Return a file name without its suffix, which the name of the other file of a pair has too, or None.

    COLMAP keeps the image's own suffix before its two.

    Example:
        >>> stem_of("depth/a.b.png"), stem_of("a.jpg.geometric.bin"), stem_of("a.jpg")
        ('a.b', 'a', None)
    """
    suffix = suffix_of(path, suffixes)
    if suffix is None:
        return None
    stem = Path(path).name[: -len(suffix)]
    return Path(stem).stem if suffix.count(".") > 1 else stem


def format_of(path: str | Path) -> DepthFormat:
    """Return the format of a file name, by its suffix.

    Raises:
        DataError: no format has this suffix.
    """
    suffix = suffix_of(path)
    if suffix is None:
        ending = Path(path).suffix or "no ending"
        raise DataError(f"{path}: a depth map's name must end in {', '.join(FORMATS)}, got {ending}")
    return FORMATS[suffix]


def check_holds(path: str | Path, dtype: Any) -> None:
    """Refuse, before any work, a file name whose format does not hold this dtype, or lacks its package.

    Raises:
        DataError: it does not; the message names the formats that do.

    Example:
        >>> check_holds("a.dpt", "float64")
        Traceback (most recent call last):
        ...
        ddfnet.errors.DataError: a.dpt: DPT holds float32, the depth map is float64; use .tif, .npy, .npz or .h5
    """
    format, name = format_of(path), str(dtype)
    if name not in format.dtypes:
        able = [other.suffixes[0] for other in formats() if name in other.dtypes]
        mend = f"use {listed(able)}" if able else "convert it"
        raise DataError(f"{path}: {format.name} holds {listed(format.dtypes)}, the depth map is {name}; {mend}")
    try:
        format.check_installed()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def choose(names: Sequence[str], channel: str | None, preferred: Iterable[Sequence[str]] = ()) -> str:
    """Return which of a file's arrays is the depth map.

    Args:
        names: names of the arrays that can be a depth map.
        channel: the name that was asked for, or None.
        preferred: groups of names, in the order of preference; the first group with names decides if it has one.

    Raises:
        DataError: no such array, or several that can be meant.
    """
    if not names:
        raise DataError("there is no depth map in it: no array (height, width) of numbers")
    some = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    if channel is not None:
        if channel not in names:
            raise DataError(f"there is no --channel {channel}; it has {some}")
        return channel
    for group in [*preferred, names]:
        if len(group) == 1:
            return group[0]
        if group:
            break
    raise DataError(f"which array is the depth map? Give --channel with one of {some}")
