"""Depth maps and their photographs as files: PNG, TIFF, NPY and PFM, read safely and written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ddfnet.errors import DataError
from ddfnet.files import atomic_open

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Array = np.ndarray[Any, np.dtype[Any]]

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".npy": "NPY", ".pfm": "PFM"}
GUIDES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".ppm")

_HELD = {"PNG": ("uint8", "uint16"), "TIFF": ("uint8", "uint16", "float32"), "PFM": ("float32",)}  # NPY: every one
_MODES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "F": "float32"}  # Pillow's, of one channel
_PILLOW = {"PNG": ("PNG", "TIFF"), "TIFF": ("TIFF", "PNG"), "PFM": ("PPM",)}  # a PNG that is called .tif is read
_PHOTOGRAPHS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM")  # no other: some of Pillow's start programs


@dataclass(frozen=True)
class DepthMap:
    """A depth map (h, w) as its file has it, the dtype included, and the file's format: PNG, TIFF, NPY or PFM."""

    values: Array
    format: str


def read(path: str | Path) -> DepthMap:
    """Read a depth map; no value is changed.

    Args:
        path: 8- or 16-bit PNG; TIFF of 8 or 16 bits or float32; PFM; or NPY of (h, w), integers or floats.

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
    kind = format_of(path)
    values = _values(path, kind)
    if values.dtype.kind == "b":
        raise DataError(f"{path}: a depth map must be of numbers, this one is of bool, as a mask is")
    return DepthMap(values, kind)


def read_mask(path: str | Path) -> Array:
    """Read a mask from any format of a depth map, or a black and white PNG: (h, w), True where the file is not 0.

    Raises:
        DataError: as `read`.
    """
    path = Path(path)
    return _values(path, format_of(path), bilevel=True) != 0


def read_guide(path: str | Path) -> Array:
    """Read a photograph as it is meant to be seen: turned as its EXIF data says, without transparency.

    Args:
        path: JPEG, PNG, TIFF, WebP, BMP or PPM, colour or grey. 16-bit grey is scaled so that its maximum is white.

    Returns:
        (H, W, 3), uint8.

    Raises:
        DataError: the file is missing, empty, broken, huge, or of another kind.
    """
    path = Path(path)
    return _with_pillow(path, _PHOTOGRAPHS, lambda image: _colours(path, image))


def format_of(path: str | Path) -> str:
    """The format that this name's ending stands for: PNG, TIFF, NPY or PFM; a `DataError` for another ending."""
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        ending = Path(path).suffix or "no ending"
        raise DataError(f"{path}: a depth map's name must end in {', '.join(FORMATS)}, got {ending}")
    return kind


def check_holds(path: str | Path, dtype: Any) -> None:
    """Refuse, before any work, a name whose format cannot hold this dtype.

    Raises:
        DataError: it cannot, and which formats can.

    Example:
        >>> check_holds("a.png", "float32")
        Traceback (most recent call last):
        ...
        ddfnet.data.classification.splits.DataError: a.png: PNG holds uint8 or uint16, the depth map is float32; use .tif, .pfm or .npy
    """
    kind, name = format_of(path), str(dtype)
    if kind != "NPY" and name not in _HELD[kind]:
        endings = {"PNG": ".png", "TIFF": ".tif", "PFM": ".pfm"}
        able = [ending for other, ending in endings.items() if name in _HELD[other]]
        *others, last = [*able, ".npy"]
        mend = f"{', '.join(others)} or {last}" if others else last
        raise DataError(f"{path}: {kind} holds {' or '.join(_HELD[kind])}, the depth map is {name}; use {mend}")


def write(path: str | Path, values: Array) -> None:
    """Write a depth map (h, w), in the format that the name ends in, whole or not at all.

    Args:
        path: what is there is replaced in one step, once everything is on the disk.
        values: (h, w), of a dtype that the format holds: none is converted.

    Raises:
        DataError: the format cannot hold the dtype, or the file cannot be written.
    """
    path = Path(path)
    check_holds(path, values.dtype)
    kind = format_of(path)
    try:
        with atomic_open(path) as stream:
            if kind == "NPY":
                from numpy.lib import format

                format.write_array(stream, values, allow_pickle=False)
            else:
                from PIL import Image

                Image.fromarray(values).save(stream, "PPM" if kind == "PFM" else kind)
    except OSError as error:
        raise DataError(str(error)) from None


def _values(path: Path, kind: str, bilevel: bool = False) -> Array:
    if kind == "NPY":
        return _read_npy(path)
    return _with_pillow(path, _PILLOW[kind], lambda image: _channel(path, image, bilevel))


def _read_npy(path: Path) -> Array:
    import numpy as np
    from numpy.lib import format

    with _opened(path) as stream:
        try:
            version = format.read_magic(stream)  # type: ignore[no-untyped-call]
            # The header is judged before anything is allocated by what it claims.
            read_header = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}[version]
            shape, _, dtype = read_header(stream)  # type: ignore[no-untyped-call]
        except Exception as error:  # NumPy raises many kinds for broken headers
            raise DataError(f"{path}: not a .npy file, or a broken one: {_short(error)}") from None
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise DataError(f"{path}: a depth map must be of integers or floats of at most 64 bits, got {dtype}")
        if len(shape) != 2 or min(shape) < 1:
            raise DataError(f"{path}: a depth map must be an array (height, width), got {shape}")
        if (limit := _pixel_limit()) and shape[0] * shape[1] > limit:
            raise DataError(f"{path}: says that it has {shape[0]} x {shape[1]} pixels, more than the limit of {limit}")
        needed, there = shape[0] * shape[1] * dtype.itemsize, path.stat().st_size - stream.tell()
        if there < needed:
            raise DataError(f"{path}: cut short: {needed} bytes of values are required, there are {there}")
        stream.seek(0)
        values = np.load(stream, allow_pickle=False)
    return np.ascontiguousarray(values, dtype=dtype.newbyteorder("="))


def _pixel_limit() -> int | None:
    """Pillow's limit, which is its user's to change, for the formats that Pillow does not read."""
    from PIL import Image

    return Image.MAX_IMAGE_PIXELS and 2 * Image.MAX_IMAGE_PIXELS


def _with_pillow(path: Path, formats: tuple[str, ...], convert: Callable[[Image.Image], Array]) -> Array:
    from PIL import Image, UnidentifiedImageError

    with _opened(path) as stream:
        try:
            with Image.open(stream, formats=formats) as image:
                return convert(image)
        except DataError:
            raise
        except UnidentifiedImageError:
            if formats == ("PPM",):
                if _starts(stream, b"PF"):
                    raise DataError(f"{path}: a depth map must have one channel, this PFM has three colours") from None
                formats = ("PFM",)
            kinds = ", ".join(formats[:-1]) + f" or {formats[-1]}" if len(formats) > 1 else formats[0]
            raise DataError(f"{path}: not a {kinds} file that can be read, or a broken one") from None
        except Exception as error:  # for broken files Pillow raises more kinds than it documents
            raise DataError(f"{path}: a broken or oversized file: {_short(error)}") from None


def _starts(stream: BinaryIO, magic: bytes) -> bool:
    stream.seek(0)
    return stream.read(len(magic)) == magic


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: a file is required, this is {'a folder' if path.is_dir() else 'a device'}")
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                raise DataError(f"{path}: the file is empty")
            yield stream
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _channel(path: Path, image: Image.Image, bilevel: bool = False) -> Array:
    import numpy as np

    if bilevel and image.mode == "1":
        return np.array(image, dtype=np.uint8)
    if image.mode == "I":
        raise DataError(f"{path}: integers must be unsigned, of 8 or 16 bits, got others; as .npy all can be read")
    if image.mode not in _MODES:
        raise DataError(f"{path}: a depth map must have one channel of numbers, got a picture of kind {image.mode}")
    if getattr(image, "n_frames", 1) > 1:
        raise DataError(f"{path}: one depth map is required, the file has {getattr(image, 'n_frames', 1)}")
    return np.array(image, dtype=_MODES[image.mode])


def _colours(path: Path, image: Image.Image) -> Array:
    import numpy as np
    from PIL import ImageOps

    if image.mode in ("F", "I"):
        raise DataError(f"{path}: a photograph is required, got a picture of kind {image.mode}, as depth maps are")
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        grey = np.array(turned, dtype=np.float32)
        return np.repeat((grey * (255 / max(grey.max(), 1)) + 0.5).astype(np.uint8)[:, :, None], 3, axis=2)
    return np.array(turned.convert("RGB"))


def _short(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
