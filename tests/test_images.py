"""Reader of images that all tasks share: damaged PNGs, 16 bits, floats, and images that are turned."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfnet.depth.io import read, read_guide, read_mask
from ddfnet.errors import DataError
from ddfnet.images import read_image, read_oriented

NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


def png(values: np.ndarray, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG", **options)
    return stream.getvalue()


def refused(source: Path | io.BytesIO) -> str:
    with pytest.raises(DataError) as raised:
        read_image(source, "it")
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress_level", [0, 6])
@pytest.mark.parametrize(
    ("reader", "values"),
    [
        (lambda path: read(path).values, (NOISE[:, :, 0].astype(np.uint16) * 200)),
        (read_mask, np.where(NOISE[:, :, 0] > 99, 255, 0).astype(np.uint8)),
        (read_guide, NOISE),
        (lambda path: np.asarray(read_image(path)), NOISE),
    ],
    ids=["depth", "mask", "guide", "image"],
)
def test_no_bit_of_a_png_is_flipped_in_silence(tmp_path: Path, reader, values: np.ndarray, compress_level: int) -> None:
    path, intact = tmp_path / "a.png", png(values, compress_level=compress_level)
    path.write_bytes(intact)
    expected = reader(path)
    refused = 0
    for place in np.random.default_rng(1).integers(8, len(intact), 150):
        content = bytearray(intact)
        content[place] ^= 1 << int(place) % 8
        path.write_bytes(content)
        try:
            assert np.array_equal(reader(path), expected)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 140, "each bit is under a checksum, but for those of the checksum of the end"


def chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def test_a_png_without_its_end_or_its_pixels() -> None:
    intact = png(NOISE)
    assert "is a broken image: truncated PNG file" in refused(io.BytesIO(intact[:-12]))
    head = intact[:33]
    assert "it: a broken PNG file: it has no pixels" in refused(io.BytesIO(head + chunk(b"IEND", b"")))
    assert "is a broken image: " in refused(io.BytesIO(head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")))


def test_a_png_without_one_of_its_parts() -> None:
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in NOISE))
    parts = [chunk(b"IDAT", packed[start : start + 700]) for start in range(0, len(packed), 700)]
    head, end = png(NOISE)[:33], chunk(b"IEND", b"")
    assert np.array_equal(np.asarray(read_image(io.BytesIO(b"".join([head, *parts, end])))), NOISE)
    for missing in range(len(parts)):
        content = b"".join([head, *parts[:missing], *parts[missing + 1 :], end])
        assert "is a broken image: " in refused(io.BytesIO(content))


def test_short_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(png(RAMP))

    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", short)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", short)
    for reader in (read, read_mask, read_guide, read_image):
        with pytest.raises(DataError, match=r"a\.png: reading it takes more memory than is free") as raised:
            reader(tmp_path / "a.png")
        assert "broken" not in str(raised.value)


# --- number types -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bits_of_the_same_image_are_read_alike(tmp_path: Path, name: str) -> None:
    """They were white in training, for Pillow clips at 255."""
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / name, "PPM" if name == "a.pgm" else None)
    found = np.asarray(read_image(tmp_path / name))
    assert found.shape == (48, 64, 3) and np.abs(found[:, :, 1].astype(int) - RAMP).max() <= 1
    assert np.array_equal(found, read_guide(tmp_path / name))


def test_16_bits_of_colour_keep_their_high_byte(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    colours = np.random.default_rng(0).integers(0, 65536, (24, 32, 3)).astype(np.uint16)
    for options in ({}, {"compression": "zlib"}, {"planarconfig": "separate", "compression": "zlib"}):
        values = colours.transpose(2, 0, 1) if "planarconfig" in options else colours
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", **options)
        assert np.array_equal(np.asarray(read_image(tmp_path / "a.tif")), colours >> 8)
    tifffile.imwrite(tmp_path / "a.tif", colours.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert "must not be in planes of their own" in refused(tmp_path / "a.tif")  # Pillow reads other colours


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int16", "int32", "uint32", "uint64"])
def test_what_cannot_be_shown_is_no_image(tmp_path: Path, dtype: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", RAMP.astype(dtype))
    assert "8 or 16 bits" in refused(tmp_path / "a.tif")


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "1"])
def test_every_mode_becomes_colour(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (9, 6), (255, 255, 255)).convert(mode).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.mode == "RGB" and (np.asarray(found) == 255).all()


# --- orientation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_viewers_turn_it(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.png", "a.tif"):
        Image.fromarray(NOISE).save(tmp_path / name, exif=exif)
        found, stored = read_oriented(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert np.array_equal(np.asarray(found), np.asarray(ImageOps.exif_transpose(image)))
        assert stored == orientation


def test_broken_exif_data_turn_nothing(tmp_path: Path) -> None:
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    found, stored = read_oriented(tmp_path / "a.png")
    assert np.array_equal(np.asarray(found), NOISE) and stored == 1
