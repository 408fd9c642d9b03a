"""Images as viewers show them, for all tasks: decoded by Pillow, in colour, upright, the checksums of PNG compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from ddfnet.errors import DataError, listed
from ddfnet.reading import read_file, reading

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageFile

    Array = np.ndarray[Any, np.dtype[Any]]

_Converted = TypeVar("_Converted")

DECODERS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "AVIF", "GIF", "JPEG2000")
"""Pillow's decoders of images, without others: some of those start programs."""

_SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP"}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION = 0x0112  # EXIF's tag: 1 is upright, 2 to 8 are the other mirrorings and rotations
_TURNS = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _NUMBERS = 258, 259, 262, 284, 339  # tags of TIFF
_WHITE_IS_ZERO, _SIGNED = 0, 2  # values of PhotometricInterpretation and of SampleFormat


def read_image(source: str | Path | BinaryIO, name: str | Path = "an image") -> Image.Image:
    """Read an image as viewers show it: in colour, turned as its EXIF data says, without transparency.

    Args:
        source: a file, or its bytes: JPEG, PNG, TIFF, WebP, BMP, PPM, AVIF, GIF, JPEG 2000 or HEIC, colour or grey. In
            16-bit grey the darkest 0.5 % of the pixels become black, and the brightest white; 16-bit colours keep their
            high byte.
        name: name of bytes for messages; a file has its own.

    Returns:
        Image of mode RGB, decoded to its last row.

    Raises:
        DataError: the image is missing, empty, huge, of another kind, or broken: ``NAME is a broken image: REASON``.
    """
    return read_oriented(source, name)[0]


def read_oriented(source: str | Path | BinaryIO, name: str | Path = "an image") -> tuple[Image.Image, int]:
    """Read an image as `read_image` does, and EXIF's orientation of what its file stores, from 1 to 8."""
    broken = " is a broken image"
    if isinstance(source, str | Path):
        return read_file(Path(source), _decode_upright, broken=broken)
    with reading(name, broken=broken):
        return _decode_upright(source)


def decode(
    stream: BinaryIO, decoders: Sequence[str], convert: Callable[[ImageFile.ImageFile], _Converted]
) -> _Converted:
    """Open an image by some of Pillow's decoders, and return what a function makes of it.

    The checksums of a PNG are compared first: where Pillow decodes, it passes over those of the pixels.

    Raises:
        DataError: none of the decoders knows the file.
    """
    from PIL import Image, UnidentifiedImageError

    stream.seek(0)
    try:
        with Image.open(stream, formats=list(decoders)) as image:
            if image.format != "PNG":
                return convert(image)
            if not image.tile:
                raise DataError("a broken PNG file: it has no pixels")
            image.verify()  # after which it cannot be decoded
        stream.seek(0)
        with Image.open(stream, formats=["PNG"]) as image:
            return convert(image)
    except UnidentifiedImageError:
        raise DataError(_unknown(stream, decoders)) from None


def stored_orientation(image: Image.Image) -> int:
    """Return EXIF's orientation of what a file stores, from 1 to 8, for its image before that is decoded.

    1, which is upright, where the file says none.
    """
    # TIFF is turned when it is decoded, and HEIC when it is opened, after which the EXIF data says that it is upright.
    return image.info.get("original_orientation") or _turn(image)


def to_colour(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB, without transparency and not turned.

    Raises:
        DataError: its values are floats, signed or of 32 bits, as those of depth maps are.
    """
    import numpy as np
    from PIL import Image as pillow

    tags = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    # Pillow has grey of 16 bits in PGM as I, and signed bytes of TIFF as unsigned ones.
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM") or _SIGNED in _all(tags.get(_NUMBERS)):
        got = f"mode {image.mode}" if image.mode in "FI" else "signed numbers"
        raise DataError(f"an image of 8 or 16 bits is required, got {got}, as depth maps are")
    if (
        len(bits := _all(tags.get(_BITS))) > 1
        and max(bits) > 8
        and tags.get(_PLANES) == 2
        and tags.get(_COMPRESSION, 1) == 1
    ):
        # Pillow takes each byte of a plane for a pixel.
        raise DataError("colours of 16 bits in a TIFF must not be in planes of their own; save them pixel by pixel")
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image  # convert() would copy it
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    grey = stretch(np.array(image, dtype=np.float32))
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8 bits itself, and not 16
        grey = 255 - grey
    return pillow.fromarray(grey).convert("RGB")


def stretch(grey: Array) -> Array:
    """Map grey values to uint8: the darkest 0.5 % of the pixels to black, the brightest 0.5 % to white.

    A camera that writes 16 bits rarely uses all of them, and one hot pixel does not make the others dark.

    Args:
        grey: (H, W), float.

    Returns:
        (H, W), uint8; black where all are equal.
    """
    import numpy as np

    low, high = np.percentile(grey, (0.5, 99.5), method="nearest")
    if high <= low:
        low, high = grey.min(), grey.max()  # a few bright pixels on an even ground
    scaled = (grey - low) * (255 / max(high - low, 1))
    found: Array = (scaled.clip(0, 255) + 0.5).astype(np.uint8)
    return found


def _decode_upright(stream: BinaryIO) -> tuple[Image.Image, int]:
    return decode(stream, _decoders(stream), _upright)


def _decoders(stream: BinaryIO) -> Sequence[str]:
    """Return the names of the decoders for a file: `DECODERS`, or that of HEIC, which is registered for it."""
    head = stream.read(12)
    if head[4:8] != b"ftyp" or head[8:] not in _HEIF_BRANDS:
        return DECODERS
    try:
        import pillow_heif
    except ImportError:
        needs = "a HEIC image needs pillow-heif, which is not installed; run: pip install 'ddfnet[formats]'"
        raise DataError(needs) from None
    pillow_heif.register_heif_opener()  # for the whole process, but Pillow opens no file by it that names others
    return ("HEIF",)


def _upright(image: Image.Image) -> tuple[Image.Image, int]:
    from PIL import Image as pillow

    stored, colour = stored_orientation(image), to_colour(image)
    turn = _turn(image)  # after decoding, for some decoders turn it
    return colour if turn == 1 else colour.transpose(pillow.Transpose[_TURNS[turn - 2]]), stored


def _turn(image: Image.Image) -> int:
    if image.format == "PNG":
        image.load()  # where EXIF data may follow the pixels; a second try to decode broken ones would not fail
    try:
        found: int = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # broken EXIF data says nothing of an image that can be decoded
        return 1
    return found if found in range(1, 9) else 1


def _unknown(stream: BinaryIO, decoders: Sequence[str]) -> str:
    """Return what to say of a file that none of the decoders knows."""
    stream.seek(0)
    head = stream.read(4)
    kind = next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), None)
    if kind in decoders:
        return f"a broken {kind} file, or one of pixels that are not read; convert it to 8 or 16 bits"
    kinds = listed(["PFM" if tuple(decoders) == ("PPM",) else name for name in decoders])
    return f"not a {kinds} file that can be read, or a broken one"


def _all(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
