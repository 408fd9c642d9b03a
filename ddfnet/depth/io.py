"""Depth map files: a registry of formats, read safely and written atomically; and guide images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, TypeVar

from ddfnet.errors import DataError
from ddfnet.files import atomic_open

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Array = np.ndarray[Any, np.dtype[Any]]

GUIDES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm")

_GUIDE_DECODERS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM")  # no other: some of Pillow's start programs
_MODES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "F": "float32"}  # Pillow's modes of one channel


@dataclass(frozen=True)
class DepthMap:
    """Depth map (h, w) as its file holds it, dtype included, and the name of the file's format."""

    values: Array
    format: str


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

    @abstractmethod
    def read(self, stream: BinaryIO) -> Array:
        """Return the values (h, w) of a file, in its dtype and unit."""

    @abstractmethod
    def write(self, stream: BinaryIO, values: Array) -> None:
        """Write values (h, w) of one of ``dtypes``."""

    def read_mask(self, stream: BinaryIO) -> Array:
        """Return the values (h, w) of a mask; a format that has bilevel images reads them too."""
        return self.read(stream)


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


# --- reading and writing --------------------------------------------------------------------------------------------


def read(path: str | Path) -> DepthMap:
    """Read a depth map; no value is changed.

    Args:
        path: a file whose suffix is in `FORMATS`.

    Returns:
        The values (h, w), in the file's dtype and unit, and the format.

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
    path = Path(path)
    format = format_of(path)
    values = _read(path, format.read)
    if values.ndim != 2 or not values.size:
        raise DataError(f"{path}: a depth map must be an array (height, width), got {values.shape}")
    if values.dtype.kind not in "iuf":
        kind = "bool, as a mask is" if values.dtype.kind == "b" else values.dtype
        raise DataError(f"{path}: a depth map must be of numbers, this one is of {kind}")
    return DepthMap(values, format.name)


def read_mask(path: str | Path) -> Array:
    """Read a mask from any format of a depth map, or a bilevel PNG: (h, w), True where the file is not 0.

    Raises:
        DataError: as `read`.
    """
    path = Path(path)
    mask: Array = _read(path, format_of(path).read_mask) != 0
    return mask


def read_guide(path: str | Path) -> Array:
    """Read a guide image as viewers show it: turned as its EXIF data says, without transparency.

    Args:
        path: JPEG, PNG, TIFF, WebP, BMP or PPM, colour or grey. 16-bit grey is scaled so that its maximum is white.

    Returns:
        (H, W, 3), uint8.

    Raises:
        DataError: the file is missing, empty, broken, huge, or of another kind.
    """
    return _read(Path(path), lambda stream: _decode(stream, _GUIDE_DECODERS, _to_rgb))


def format_of(path: str | Path) -> DepthFormat:
    """Return the format of a file name, by its suffix.

    Raises:
        DataError: no format has this suffix.
    """
    format = FORMATS.get(Path(path).suffix.lower())
    if format is None:
        ending = Path(path).suffix or "no ending"
        raise DataError(f"{path}: a depth map's name must end in {', '.join(FORMATS)}, got {ending}")
    return format


def check_holds(path: str | Path, dtype: Any) -> None:
    """Refuse, before any work, a file name whose format does not hold this dtype.

    Raises:
        DataError: it does not; the message names the formats that do.

    Example:
        >>> check_holds("a.png", "float32")
        Traceback (most recent call last):
        ...
        ddfnet.errors.DataError: a.png: PNG holds uint8 or uint16, the depth map is float32; use .tif, .pfm or .npy
    """
    format, name = format_of(path), str(dtype)
    if name in format.dtypes:
        return
    able = [other.suffixes[0] for other in formats() if name in other.dtypes]
    mend = f"use {_listed(able)}" if able else "convert it"
    raise DataError(f"{path}: {format.name} holds {_listed(format.dtypes)}, the depth map is {name}; {mend}")


def write(path: str | Path, values: Array) -> None:
    """Write a depth map (h, w) atomically, in the format of the file name.

    Args:
        path: a file there is replaced in one step, once everything is on the disk.
        values: (h, w), of a dtype that the format holds: none is converted.

    Raises:
        DataError: the format does not hold the dtype, or the file cannot be written.
    """
    path = Path(path)
    check_holds(path, values.dtype)
    try:
        with atomic_open(path) as stream:
            format_of(path).write(stream, values)
    except OSError as error:
        raise DataError(str(error)) from None


def _read(path: Path, decode: Callable[[BinaryIO], Array]) -> Array:
    """Decode a file, with its name before the reason of a failure."""
    with _open_file(path) as stream:
        try:
            return decode(stream)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        except Exception as error:  # decoders raise more kinds for broken files than they document
            raise DataError(f"{path}: a broken or oversized file: {_one_line(error)}") from None


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


def _listed(words: tuple[str, ...] | list[str]) -> str:
    """Return words as "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


# --- the formats of the package -------------------------------------------------------------------------------------


class PillowFormat(DepthFormat):
    """Format that Pillow reads and writes.

    Attributes:
        encoder: Pillow's name of the format that is written.
        decoders: Pillow's names of those that are read.
    """

    encoder: ClassVar[str]
    decoders: ClassVar[tuple[str, ...]]

    def read(self, stream: BinaryIO) -> Array:
        return _decode(stream, self.decoders, _to_channel)

    def read_mask(self, stream: BinaryIO) -> Array:
        return _decode(stream, self.decoders, _to_mask)

    def write(self, stream: BinaryIO, values: Array) -> None:
        from PIL import Image

        Image.fromarray(values).save(stream, self.encoder)


@register_format
class Png(PillowFormat):
    """PNG of one channel."""

    name, suffixes, dtypes = "PNG", (".png",), ("uint8", "uint16")
    description = "16 or 8 bits, grey"
    encoder, decoders = "PNG", ("PNG", "TIFF")


@register_format
class Tiff(PillowFormat):
    """TIFF of one page and one channel; a PNG that is called .tif is read too."""

    name, suffixes, dtypes = "TIFF", (".tif", ".tiff"), ("uint8", "uint16", "float32")
    description = "16 or 8 bits or float32, one page"
    encoder, decoders = "TIFF", ("TIFF", "PNG")


@register_format
class Pfm(PillowFormat):
    """Portable float map of one channel."""

    name, suffixes, dtypes = "PFM", (".pfm",), ("float32",)
    description = "float32, either byte order"
    encoder, decoders = "PPM", ("PPM",)

    def read(self, stream: BinaryIO) -> Array:
        if stream.read(2) == b"PF":
            raise DataError("a depth map must have one channel, this PFM has three colours")
        stream.seek(0)
        return super().read(stream)


@register_format
class Npy(DepthFormat):
    """NumPy array."""

    name, suffixes = "NPY", (".npy",)
    dtypes = (
        *(f"{sign}int{bits}" for sign in ("u", "") for bits in (8, 16, 32, 64)),
        *(f"float{bits}" for bits in (16, 32, 64)),
    )
    description = "integers or floats of at most 64 bits, (height, width)"

    def read(self, stream: BinaryIO) -> Array:
        """Return the array; its header is judged before anything is allocated by what it claims."""
        import numpy as np
        from numpy.lib import format

        try:
            version = format.read_magic(stream)  # type: ignore[no-untyped-call]
            read_header = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}[version]
            shape, _, dtype = read_header(stream)  # type: ignore[no-untyped-call]
        except Exception as error:  # NumPy raises many kinds for broken headers
            raise DataError(f"not a .npy file, or a broken one: {_one_line(error)}") from None
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise DataError(f"a depth map must be of integers or floats of at most 64 bits, got {dtype}")
        if len(shape) != 2 or min(shape) < 1:
            raise DataError(f"a depth map must be an array (height, width), got {shape}")
        if (limit := _pixel_limit()) and shape[0] * shape[1] > limit:
            raise DataError(f"says that it has {shape[0]} x {shape[1]} pixels, more than the limit of {limit}")
        needed, start = shape[0] * shape[1] * dtype.itemsize, stream.tell()
        if (present := stream.seek(0, 2) - start) < needed:
            raise DataError(f"cut short: {needed} bytes of values are required, there are {present}")
        stream.seek(0)
        values = np.load(stream, allow_pickle=False)
        return np.ascontiguousarray(values, dtype=dtype.newbyteorder("="))

    def write(self, stream: BinaryIO, values: Array) -> None:
        from numpy.lib import format

        format.write_array(stream, values, allow_pickle=False)


def _pixel_limit() -> int | None:
    """Return Pillow's limit, which users of Pillow can change, for the formats that Pillow does not read."""
    from PIL import Image

    return Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS


def _decode(stream: BinaryIO, decoders: tuple[str, ...], convert: Callable[[Image.Image], Array]) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(stream, formats=decoders) as image:
            return convert(image)
    except UnidentifiedImageError:
        kinds = _listed([name if decoders != ("PPM",) else "PFM" for name in decoders])
        raise DataError(f"not a {kinds} file that can be read, or a broken one") from None


def _to_channel(image: Image.Image) -> Array:
    import numpy as np

    if image.mode == "I":
        raise DataError("integers must be unsigned, of 8 or 16 bits, got others; as .npy all can be read")
    if image.mode not in _MODES:
        raise DataError(f"a depth map must have one channel of numbers, got an image of mode {image.mode}")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"one depth map is required, the file has {getattr(image, 'n_frames', 1)}")
    return np.array(image, dtype=_MODES[image.mode])


def _to_mask(image: Image.Image) -> Array:
    import numpy as np

    return np.array(image, dtype=np.uint8) if image.mode == "1" else _to_channel(image)


def _to_rgb(image: Image.Image) -> Array:
    import numpy as np
    from PIL import ImageOps

    if image.mode in ("F", "I"):
        raise DataError(f"a guide image is required, got an image of mode {image.mode}, as depth maps are")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        grey = np.array(upright, dtype=np.float32)
        return np.repeat((grey * (255 / max(grey.max(), 1)) + 0.5).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.array(upright.convert("RGB"))
