"""TIFF: values as they are stored, nodata, and the georeference of the enlarged map."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tifffile")

import tifffile

from ddfnet.depth import io
from tests.upsampling import depth_map, message

NODATA, SCALE, TIEPOINT, TRANSFORM, KEYS = 42113, 33550, 33922, 34264, 34735
AREA, POINT = (
    (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, kind, 3072, 0, 1, 32633) for kind in (1, 2)
)  # UTM zone 33N; coordinates of corners, or of centres


def geotiff(path: Path, values: np.ndarray, tags: dict[int, Any], **options: Any) -> Path:
    kinds = {NODATA: "s", KEYS: "H"}
    extra = [(code, kinds.get(code, "d"), 0 if code == NODATA else len(value), value) for code, value in tags.items()]
    tifffile.imwrite(path, values, metadata=None, extratags=[(*tag, True) for tag in extra], **options)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": 1}]
)
@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64", "uint8", "uint16"]
)
def test_every_number_as_other_programs_write_it(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    values = np.random.default_rng(0).integers(-120, 120, (40, 33)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    found = io.read(tmp_path / "a.tif").values
    assert found.dtype == values.dtype and found.dtype.isnative and np.array_equal(found, values)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_every_compression(tmp_path: Path, dtype: str, compression: str) -> None:
    values = depth_map((40, 33), dtype)
    try:
        Image.fromarray(values).save(tmp_path / "a.tif", compression=compression)
    except (OSError, SystemError):
        pytest.skip("Pillow's libtiff has it not")
    found = io.read(tmp_path / "a.tif").values
    assert found.dtype == values.dtype and np.array_equal(found, values)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_where_0_is_white_values_are_not_inverted(tmp_path: Path, dtype: str, compression: str | None) -> None:
    values = depth_map(dtype=dtype)
    if compression == "lzw":
        Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={262: 0})
        if dtype == "uint8":
            values = 255 - values  # Pillow inverts when it writes, too
    else:
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", compression=compression)
    assert np.array_equal(io.read(tmp_path / "a.tif").values, values)


def test_a_mask_of_one_bit_is_as_it_is_seen(tmp_path: Path) -> None:
    mask = np.arange(35).reshape(7, 5) % 3 == 0
    Image.fromarray(mask).save(tmp_path / "a.tif")
    Image.fromarray(~mask).save(tmp_path / "b.tif", tiffinfo={262: 0})
    with Image.open(tmp_path / "b.tif") as image:
        shown = np.asarray(image)
    assert np.array_equal(io.read_mask(tmp_path / "a.tif"), mask)
    assert np.array_equal(io.read_mask(tmp_path / "b.tif"), shown)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_mask_of_more_bits_whose_white_is_0_is_refused(tmp_path: Path, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", depth_map(dtype=dtype), photometric="miniswhite")
    assert "a mask whose white is 0 can be meant in two ways" in message(tmp_path / "a.tif", io.read_mask)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [2, 4, 12])
def test_other_numbers_of_bits_are_refused(tmp_path: Path, bits: int, photometric: int) -> None:
    for compression in (1, 5):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            tags = {"BitsPerSample": bits, "Compression": compression, "PhotometricInterpretation": photometric}
            for name, value in tags.items():
                file.pages[0].tags[name].overwrite(value)
        for reader in (io.read, io.read_mask):
            assert f"8, 16, 32 or 64 bits are required, got {bits} bits" in message(tmp_path / "a.tif", reader)


def test_floats_of_predictor_3_are_read(tmp_path: Path) -> None:
    values = depth_map(dtype="float32")
    Image.fromarray(values).save(tmp_path / "a.tif", compression="tiff_adobe_deflate", tiffinfo={317: 3})
    assert np.array_equal(io.read(tmp_path / "a.tif").values, values)


def test_parts_without_lengths_are_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", depth_map(), rowsperstrip=2)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["StripByteCounts"].overwrite([16, 16])
    assert "a broken TIFF: 3 parts, and lengths of 2" in message(tmp_path / "a.tif")


def test_overviews_are_not_the_map(tmp_path: Path) -> None:
    values = depth_map((40, 32), "int16")
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(values, subfiletype=0)
        writer.write(values[::2, ::2], subfiletype=1)
    assert np.array_equal(io.read(tmp_path / "a.tif").values, values)


@pytest.mark.parametrize(("dtype", "text", "value"), [("int16", "-32768", -32768), ("float32", "-9999", -9999.0)])
def test_nodata_is_read_and_written(tmp_path: Path, dtype: str, text: str, value: float) -> None:
    path = geotiff(tmp_path / "a.tif", depth_map(dtype=dtype), {NODATA: text})
    found = io.read(path)
    assert found.missing == value
    io.write(tmp_path / "b.tif", found.values, source=found)
    assert io.read(tmp_path / "b.tif").missing == value
    geotiff(tmp_path / "nan.tif", depth_map(dtype="float32"), {NODATA: "nan"})
    assert np.isnan(io.read(tmp_path / "nan.tif").missing)
    geotiff(tmp_path / "odd.tif", depth_map(dtype="float32"), {NODATA: "none"})
    assert io.read(tmp_path / "odd.tif").missing is None


def location(tags: dict[int, Any], y: float, x: float) -> tuple[float, float]:
    """Return the coordinates of the centre of pixel (y, x), by the GeoTIFF standard."""
    half = 0.0 if tuple(tags[KEYS])[11] == 2 else 0.5
    column, row = x + half, y + half
    if TRANSFORM in tags:
        m = tags[TRANSFORM]
        return m[0] * column + m[1] * row + m[3], m[4] * column + m[5] * row + m[7]
    i, j, _, east, north, _ = tags[TIEPOINT]
    return east + (column - i) * tags[SCALE][0], north - (row - j) * tags[SCALE][1]


@pytest.mark.parametrize("keys", [AREA, POINT])
@pytest.mark.parametrize(
    "georeference",
    [
        {SCALE: (30.0, 20.0, 0.0), TIEPOINT: (2.0, 1.0, 0.0, 5e5, 4e6, 0.0)},
        {TRANSFORM: (30.0, 2.0, 0.0, 5e5, 1.0, -20.0, 0.0, 4e6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)},
    ],
)
@pytest.mark.parametrize(("ratio", "offset"), [((4.0, 4.0), (1.5, 1.5)), ((2.5, 3.0), (0.0, 2.0))])
def test_a_sample_stays_where_it_is_on_earth(
    tmp_path: Path, georeference: dict, keys: tuple[int, ...], ratio: tuple[float, float], offset: tuple[float, float]
) -> None:
    before = {**georeference, KEYS: keys}
    found = io.read(geotiff(tmp_path / "a.tif", depth_map(dtype="float32"), before))
    io.write(tmp_path / "b.tif", depth_map((24, 32), "float32"), source=found, ratio=ratio, offset=offset)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        after = {code: tag.value for code in before if (tag := file.pages[0].tags.get(code)) is not None}
    assert after.keys() == before.keys() and tuple(after[KEYS]) == keys
    for y, x in ((0, 0), (5, 0), (2, 7)):
        enlarged = y * ratio[0] + offset[0], x * ratio[1] + offset[1]
        assert location(after, *enlarged) == pytest.approx(location(before, y, x), abs=1e-6)


def test_a_georeference_that_is_none_is_left_out(tmp_path: Path) -> None:
    tags = {SCALE: (1.0, 2.0), TIEPOINT: (1.0,) * 7, TRANSFORM: (1.0,) * 9, KEYS: AREA}
    found = io.read(geotiff(tmp_path / "a.tif", depth_map(dtype="float32"), tags))
    assert found.extras == {"georeference": {KEYS: AREA}}
    io.write(tmp_path / "b.tif", depth_map((24, 32), "float32"), source=found, ratio=(4, 4), offset=(1.5, 1.5))
    assert io.read(tmp_path / "b.tif").extras == found.extras


def test_what_is_compressed_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3000, 3000), np.uint16), compression="zlib", rowsperstrip=3000)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(8)
    assert "of more than the 128 bytes that it claims" in message(tmp_path / "a.tif")


def test_nothing_but_the_error_is_said_of_a_broken_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", depth_map())
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:12] + bytes(12) + content[24:])
    logger = logging.getLogger("tifffile")
    logger.propagate = False  # pytest has a handler at the root, and so no last resort is used
    try:
        message(tmp_path / "a.tif")
    finally:
        logger.propagate = True
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"rowsperstrip": 8}])
def test_values_that_are_not_there_are_not_zeros(tmp_path: Path, options: dict[str, Any]) -> None:
    values = np.random.default_rng(0).integers(1, 60000, (64, 48)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **options)
    whole = (tmp_path / "a.tif").read_bytes()
    for cut in (20, 500, 3000):
        (tmp_path / "a.tif").write_bytes(whole[:-cut])
        assert "cut short" in message(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(whole)
    if "rowsperstrip" in options:
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            file.pages[0].tags["ImageLength"].overwrite(72)  # one strip more than there is
        assert "cut short" in message(tmp_path / "a.tif")


def test_tiles_that_gdal_left_out_are_missing(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    values = np.zeros((32, 32), np.int16)
    values[:16, :16] = 7
    warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
    profile = {"driver": "GTiff", "width": 32, "height": 32, "count": 1, "dtype": "int16", "nodata": -9999}
    with rasterio.open(
        tmp_path / "a.tif", "w", **profile, tiled=True, blockxsize=16, blockysize=16, sparse_ok=True
    ) as file:
        file.write(values[:16, :16], 1, window=((0, 16), (0, 16)))
    found = io.read(tmp_path / "a.tif")
    assert (found.values[:16, :16] == 7).all() and (found.values[16:] == -9999).all() and found.missing == -9999


def test_a_claim_of_many_pixels_is_refused(tmp_path: Path) -> None:
    for compression in (None, "zlib"):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.float64), compression=compression)
        with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
            for name in ("ImageWidth", "ImageLength"):
                file.pages[0].tags[name].overwrite(60000)
        assert "60000 x 60000 pixels, more than the limit" in message(tmp_path / "a.tif")


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64)), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["Compression"].overwrite(5)
    said = (
        "a broken or"
        if find_spec("imagecodecs")
        else "requires the 'imagecodecs' package; run: pip install imagecodecs"
    )
    assert said in message(tmp_path / "a.tif")


def test_the_number_of_pages_is_bounded(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for _ in range(100):
            writer.write(np.ones((2, 2), np.uint16), contiguous=False)
    with pytest.raises(ValueError, match="one depth map is required, the file has more than 64 pages"):
        io.read(tmp_path / "a.tif")
