"""Damaged files of depth maps, masks and images: one line that names the file, or what the undamaged file holds."""

from __future__ import annotations

import io
import resource
import struct
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

pytest.importorskip("tifffile")
pytest.importorskip("netpbmfile")

import tifffile

from ddfnet.depth.io import FORMATS, read, read_mask
from ddfnet.errors import DataError
from ddfnet.images import read_image
from tests.fuzzing import Cases

Array = np.ndarray
Rng = np.random.Generator
SECONDS = 5  # for one file
MEMORY = 300 << 20  # bytes above what the process has taken before
PIXELS = 1 << 20  # limit of Pillow, so that a claim within it is read in a moment

# --- files --------------------------------------------------------------------------------------------------


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def npy(values: Array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, allow_pickle=False)
    return stream.getvalue()


def npz(values: Array, compression: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in (("depth", values), ("K", np.eye(3))):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy(array), compression)
    return stream.getvalue()


def tiff(values: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, metadata=None, **options)
    return stream.getvalue()


def hdf5(values: Array, **options: Any) -> bytes:
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_dataset("camera/depth", data=values, **options)
    return stream.getvalue()


def package_writer(suffix: str) -> Callable[[Array], bytes]:
    """Return what makes a file as the package itself writes it."""

    def make(values: Array) -> bytes:
        stream = io.BytesIO()
        FORMATS[suffix].write(stream, values)
        return stream.getvalue()

    return make


def exr(folder: Path, values: Array, compression: str) -> bytes:
    import OpenEXR

    header = {"compression": getattr(OpenEXR, compression), "type": OpenEXR.scanlineimage}
    with OpenEXR.File(header, {"Z": values}) as file:
        file.write(str(folder / "made.exr"))
    return (folder / "made.exr").read_bytes()


def maps(folder: Path) -> Iterator[tuple[str, str, Callable[[Array], bytes]]]:
    """Yield ending, dtype and maker of depth maps in every form that is read."""
    for suffix, format in FORMATS.items():
        if suffix != ".exr" and (format.package is None or format.package[0] != "h5py"):  # those follow
            yield suffix, format.dtypes[-1], package_writer(suffix)
    for bits in (2, 4):
        yield ".png", "uint8", lambda values, bits=bits: save(Image.fromarray(values), "PNG", bits=bits)
    for name, dtype in (("uint8", "uint8"), ("uint16", "uint16")):
        yield ".png", name, lambda values: save(Image.fromarray(values), "PNG")
        yield (
            ".pgm",
            dtype,
            lambda values: b"P2 9 7 %d " % values.max() + b" ".join(b"%d" % each for each in values.flat),
        )
    for options in ({}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">", "bigtiff": 1}):
        for dtype in ("uint8", "int16", "float32"):
            yield ".tif", dtype, lambda values, options=options: tiff(values, **options)
    for dtype, compression, predictor in (
        ("uint16", "tiff_lzw", 1),
        ("uint16", "packbits", 1),
        ("uint16", "tiff_adobe_deflate", 2),
        ("float32", "tiff_adobe_deflate", 3),
    ):
        options = {"compression": compression, "tiffinfo": {317: predictor}}
        yield ".tif", dtype, lambda values, options=options: save(Image.fromarray(values), "TIFF", **options)
    for code in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        yield ".npz", "float32", lambda values, code=code: npz(values, code)
    if not FORMATS[".h5"].package or _has("h5py"):
        chunked = {"chunks": (4, 4), "maxshape": (None, None)}
        for options in ({}, {**chunked, "compression": "gzip", "shuffle": True}, {**chunked, "fletcher32": True}):
            yield ".h5", "float32", lambda values, options=options: hdf5(values, **options)
    if _has("OpenEXR"):
        for name in ("NO_COMPRESSION", "RLE_COMPRESSION", "ZIPS_COMPRESSION", "ZIP_COMPRESSION", "PIZ_COMPRESSION"):
            yield ".exr", "float32", lambda values, name=name: exr(folder, values, name)


def images() -> Iterator[tuple[str, str, Callable[[Array], bytes]]]:
    """Yield ending, kind and maker of images in every form that is read."""
    for format in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "GIF", "JPEG2000", "AVIF"):
        if format == "AVIF" and not features.check("avif"):
            continue
        yield f".{format.lower()}", "RGB", lambda values, format=format: save(Image.fromarray(values), format)
    yield ".webp", "RGB", lambda values: save(Image.fromarray(values), "WEBP", lossless=True)
    yield ".png", "RGB", lambda values: save(Image.fromarray(values).convert("P"), "PNG")
    yield ".jpg", "RGB", lambda values: save(Image.fromarray(values), "JPEG", progressive=True, exif=_exif(6))
    yield ".tif", "RGB", lambda values: save(Image.fromarray(values), "TIFF", compression="jpeg")
    for format in ("PNG", "TIFF", "PPM"):
        yield f".{format.lower()}", "L16", lambda values, format=format: save(Image.fromarray(values), format)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _has(module: str) -> bool:
    try:
        __import__(module)
    except ImportError:
        return False
    return True


# --- damage -------------------------------------------------------------------------------------------------

EXTREMES = (0, 1, 0x7F, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def flip(rng: Rng, content: bytearray) -> None:
    for _ in range(rng.integers(1, 4)):
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))


def cut(rng: Rng, content: bytearray) -> None:
    del content[rng.integers(1, len(content)) :]


def take_out(rng: Rng, content: bytearray) -> None:
    start = rng.integers(len(content))
    del content[start : start + rng.integers(1, 40)]


def insert(rng: Rng, content: bytearray) -> None:
    start, length = rng.integers(len(content)), int(rng.integers(1, 40))
    content[start:start] = rng.choice([bytes(length), rng.bytes(length), bytes(content[start : start + length])])


def swap(rng: Rng, content: bytearray) -> None:
    length = int(rng.integers(1, max(2, len(content) // 3)))
    first, second = sorted(int(each) for each in rng.integers(0, len(content) - length + 1, 2))
    if first + length <= second:
        one, other = content[first : first + length], content[second : second + length]
        content[first : first + length], content[second : second + length] = other, one


def claim(rng: Rng, content: bytearray) -> None:
    """Write an extreme number into the header, where sizes and offsets are."""
    start = int(rng.integers(0, min(len(content), 400)))
    kind = rng.choice(["<I", ">I", "<H", ">H"])
    number = int(rng.choice(EXTREMES)) & (0xFFFF if "H" in kind else 0xFFFFFFFF)
    part = struct.pack(kind, number)
    content[start : start + len(part)] = part


DAMAGES = (flip, flip, cut, take_out, insert, swap, claim)

# --- what must hold -----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS // 2)


def outcome(path: Path, reader: Callable[[Path], Any]) -> Array | None:
    """Read a file, and return its values, or None for an error that is as documented."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reader(path)
    except DataError as error:
        text = str(error)
        assert str(path) in text and "\n" not in text and len(text) < 600, text
        assert "more memory than is free" not in text
        found = None
    assert time.process_time() - start < SECONDS
    taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert taken < MEMORY, f"{taken >> 20} MiB"
    return None if found is None else np.asarray(found)


def damaged(rng: Rng, intact: bytes) -> bytes:
    content = bytearray(intact)
    DAMAGES[rng.integers(len(DAMAGES))](rng, content)
    return bytes(content)


def is_checked(suffix: str, intact: bytes, content: bytes) -> bool:
    """Return whether a format's checksums are on all that was damaged."""
    if suffix == ".exr":  # zlib's, on the values alone
        start = next((i for i, (a, b) in enumerate(zip(intact, content, strict=False)) if a != b), len(content))
        return len(intact) == len(content) and _exr_compression(intact) == b"\x03" and start >= len(intact) - 50
    return suffix in (".png", ".npz")


def _exr_compression(intact: bytes) -> bytes:
    start = intact.index(b"compression\0compression\0") + len(b"compression\0compression\0") + 4
    return intact[start : start + 1]


def test_depth_maps_and_masks(cases: Cases, tmp_path: Path) -> None:
    kinds = list(maps(tmp_path))
    for rng in cases:
        suffix, dtype, make = kinds[rng.integers(len(kinds))]
        values = rng.integers(1, 4, (7, 9)).astype(dtype)
        intact, path = make(values), tmp_path / f"a{suffix}"
        path.write_bytes(intact)
        assert np.array_equal(read(path).values, values)
        content = damaged(rng, intact)
        path.write_bytes(content)
        found = outcome(path, lambda path: read(path).values)
        if found is not None:
            assert found.ndim == 2 and found.dtype.kind in "iuf"
        mask = outcome(path, read_mask)
        if is_checked(suffix, intact, content):
            assert found is None or np.array_equal(found, values)
            assert mask is None or np.array_equal(mask, values != 0)


def test_images(cases: Cases, tmp_path: Path) -> None:
    kinds = list(images())
    for rng in cases:
        suffix, kind, make = kinds[rng.integers(len(kinds))]
        shape = (24, 32) if kind == "L16" else (24, 32, 3)
        values = rng.integers(0, 256, shape).astype("uint16" if kind == "L16" else "uint8")
        intact, path = make(values), tmp_path / f"a{suffix}"
        path.write_bytes(intact)
        undamaged = np.asarray(read_image(path))
        path.write_bytes(damaged(rng, intact))
        found = outcome(path, read_image)
        if found is not None:
            assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
        if suffix == ".png":
            assert found is None or np.array_equal(found, undamaged)
