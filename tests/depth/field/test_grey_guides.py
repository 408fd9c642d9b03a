"""Grey guides: white where a viewer has it, and one hot pixel does not make the others dark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tifffile")

import tifffile

from ddfnet.depth import io
from ddfnet.errors import DataError

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_8_and_16_bits_are_seen_alike(tmp_path: Path, photometric: str) -> None:
    for name, values in (("8.tif", RAMP), ("16.tif", RAMP.astype(np.uint16) * 257)):
        tifffile.imwrite(tmp_path / name, values, photometric=photometric)
    eight, sixteen = (io.read_guide(tmp_path / name) for name in ("8.tif", "16.tif"))
    seen = RAMP if photometric == "minisblack" else 255 - RAMP
    assert np.array_equal(eight[:, :, 0], seen) and np.abs(sixteen[:, :, 0].astype(int) - seen).max() <= 1


@pytest.mark.parametrize("hot", [0, 1, 15])
def test_hot_pixels_leave_the_others_as_bright(tmp_path: Path, hot: int) -> None:
    grey = np.tile(np.arange(64, dtype=np.uint16) * 10, (48, 1))  # ten bits in 16
    grey.ravel()[100 : 100 + hot] = 65535  # 15 of 3072 are less than 0.5 %
    Image.fromarray(grey).save(tmp_path / "a.png")
    found = io.read_guide(tmp_path / "a.png")[:, :, 1]
    cold = grey < 65535
    assert np.abs(found[cold].astype(float) - grey[cold] * (255 / 630)).max() <= 5 and (found[~cold] == 255).all()


def test_what_is_bright_everywhere_has_contrast(tmp_path: Path) -> None:
    """A thermal camera's hundredths of a kelvin."""
    grey = (29000 + np.tile(np.arange(64), (48, 1))).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    found = io.read_guide(tmp_path / "a.png")
    assert found.min() == 0 and found.max() == 255


def test_an_even_image(tmp_path: Path) -> None:
    for value in (0, 500, 65535):
        Image.fromarray(np.full((48, 64), value, np.uint16)).save(tmp_path / "a.png")
        assert (io.read_guide(tmp_path / "a.png") == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_a_depth_map_of_floats_or_signs_is_no_guide(tmp_path: Path, dtype: str) -> None:
    io.write(tmp_path / "a.tif", RAMP.astype(dtype))
    with pytest.raises(DataError, match="an image of 8 or 16 bits is required"):
        io.read_guide(tmp_path / "a.tif")
