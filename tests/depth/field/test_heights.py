"""Heights as GeoTIFF: nodata is missing, 0 and negative heights are not, and the result lies where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tifffile")

import tifffile

from ddfnet.depth import io
from tests.upsampling import Run

NODATA = -32768
HEIGHTS = np.arange(48, dtype=np.int16).reshape(6, 8) - 20  # from below the sea to above, as SRTM has it
HEIGHTS[5, 7] = NODATA
SCALE, CORNER = (30.0, 20.0), (5e5, 4e6)


@pytest.fixture
def heights(tmp_path: Path) -> tuple[Path, Path]:
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
    tags = [
        (33550, "d", 3, (*SCALE, 0.0), True),
        (33922, "d", 6, (0.0, 0.0, 0.0, *CORNER, 0.0), True),
        (34735, "H", len(keys), keys, True),
        (42113, "s", 0, str(NODATA), True),
    ]
    tifffile.imwrite(tmp_path / "heights.tif", HEIGHTS, metadata=None, extratags=tags)
    Image.effect_noise((32, 24), 60).convert("RGB").save(tmp_path / "satellite.jpg")
    return tmp_path / "heights.tif", tmp_path / "satellite.jpg"


def test_nodata_alone_is_missing(tmp_path: Path, heights: tuple[Path, Path], calls: list, run: Run) -> None:
    done = run(heights[0], "--guide", heights[1], "-o", tmp_path / "a.tif")
    assert (done.status, done.err) == (0, "") and "2.1% missing" in done.out
    assert np.array_equal(calls[0]["valid"], HEIGHTS != NODATA)
    assert run(heights[0], "--guide", heights[1], "-o", tmp_path / "b.tif", "--zero", "missing").status == 0
    assert np.array_equal(calls[1]["valid"], (HEIGHTS != NODATA) & (HEIGHTS != 0))


@pytest.mark.parametrize(("dtype", "written"), [(None, "float32"), ("same", "int16")])
def test_the_result_is_a_geotiff(
    tmp_path: Path, heights: tuple[Path, Path], calls: list, run: Run, dtype: str | None, written: str
) -> None:
    options = ("--dtype", dtype) if dtype else ()
    assert run(heights[0], "--guide", heights[1], "-o", tmp_path / "a.tif", *options).status == 0
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(tmp_path / "a.tif") as file:
        values, mask = file.read(1), file.read_masks(1)
        assert (file.nodata, file.crs.to_epsg(), file.dtypes[0]) == (NODATA, 32633, written)
        assert file.transform[:6] == (SCALE[0] / 4, 0, CORNER[0], 0, -SCALE[1] / 4, CORNER[1])
    assert np.array_equal(values, np.kron(HEIGHTS, np.ones((4, 4), np.int16)))  # 0 and negative ones stay
    assert np.array_equal(mask > 0, values != NODATA)


def test_where_the_first_pixel_of_a_block_is_the_sample(
    tmp_path: Path, heights: tuple[Path, Path], calls: list, run: Run
) -> None:
    assert run(heights[0], "--guide", heights[1], "-o", tmp_path / "a.tif", "--offset", 0).status == 0
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(heights[0]) as before, rasterio.open(tmp_path / "a.tif") as after:
        for row, column in ((0, 0), (3, 5)):
            assert after.xy(4 * row, 4 * column) == pytest.approx(before.xy(row, column))


def test_a_note_where_the_georeference_is_lost(
    tmp_path: Path, heights: tuple[Path, Path], calls: list, run: Run
) -> None:
    done = run(heights[0], "--guide", heights[1], "-o", tmp_path / "a.npy")
    assert "the georeference is not written; name the result .tif for it" in done.err
    assert np.isnan(io.read(tmp_path / "a.npy").values[20:, 28:]).all()


def test_heights_are_rounded_to_0(
    tmp_path: Path, heights: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a height like any other, even where the source has none."""
    values = np.where(HEIGHTS == 0, 1, HEIGHTS)
    with tifffile.TiffFile(heights[0]) as file:
        tags = [(tag.code, "s", 0, tag.value, True) for tag in file.pages[0].tags if tag.code == 42113]
    tifffile.imwrite(heights[0], values, metadata=None, extratags=tags)
    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", lambda *_, **__: np.full((24, 32), -0.25))
    assert run(heights[0], "--guide", heights[1], "-o", tmp_path / "a.tif", "--dtype", "same").status == 0
    assert (io.read(tmp_path / "a.tif").values == 0).all()


def test_nodata_that_the_result_cannot_hold(tmp_path: Path, calls: list, run: Run) -> None:
    values = np.arange(48, dtype=np.float32).reshape(6, 8) + 1000
    values[0, 0] = -9999
    tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, extratags=[(42113, "s", 0, "-9999", True)])
    Image.effect_noise((32, 24), 60).convert("RGB").save(tmp_path / "a.jpg")
    done = run(tmp_path / "a.tif", "--guide", tmp_path / "a.jpg", "-o", tmp_path / "b.tif", "--dtype", "uint16")
    assert done.status == 0
    found = io.read(tmp_path / "b.tif")
    assert found.missing is None and (found.values[:4, :4] == 0).all() and found.values[0, 4] == 1001
