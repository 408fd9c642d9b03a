"""EXR: the channel that is depth, whatever it is called, in its own type."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("OpenEXR")

import OpenEXR

from ddfnet.depth import io
from ddfnet.errors import DataError
from tests.upsampling import depth_map, message

VALUES = depth_map(dtype="float32") + np.float32(0.123)
GREY = np.ones((6, 8), np.float16)


def exr(path: Path, channels: dict[str, Any], **header: Any) -> Path:
    kind = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with OpenEXR.File({**kind, **header}, channels) as file:
        file.write(str(path))
    return path


@pytest.mark.parametrize("name", ["Z", "V", "Y", "R", "depth", "ViewLayer.Depth.Z", "View Layer.Mist.V", "whatever"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "uint32"])
def test_a_single_channel_of_any_name(tmp_path: Path, name: str, dtype: str) -> None:
    values = VALUES.astype(dtype)
    found = io.read(exr(tmp_path / "a.exr", {name: values}))
    assert found.channel == name and found.values.dtype == dtype and np.array_equal(found.values, values)
    io.write(tmp_path / "b.exr", values, source=found)
    with OpenEXR.File(str(tmp_path / "b.exr"), separate_channels=True) as file:
        assert list(file.channels()) == [name] and np.array_equal(file.channels()[name].pixels, values)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        (("R", "G", "B", "A"), "Z"),  # a float beside halves
        (("ViewLayer.Combined.R", "ViewLayer.Combined.G", "ViewLayer.Combined.B"), "ViewLayer.Depth.Z"),
        (("ViewLayer.Combined.R", "ViewLayer.Normal.Z", "ViewLayer.Position.Z"), "ViewLayer.Depth.V"),
        (("R", "G", "B"), "Layer.V"),
        (("N.X", "N.Y"), "N.Z"),
        (("BY", "RY"), "Y"),
    ],
)
def test_the_depth_among_many(tmp_path: Path, others: tuple[str, ...], chosen: str) -> None:
    colours = {name: GREY * number for number, name in enumerate(others)}
    found = io.read(exr(tmp_path / "a.exr", {**colours, chosen: VALUES}))
    assert found.channel == chosen and found.values.dtype == np.float32 and np.array_equal(found.values, VALUES)
    assert np.array_equal(io.read(tmp_path / "a.exr", channel=others[1]).values, GREY)


def test_equal_colours_are_one_channel(tmp_path: Path) -> None:
    holed = VALUES.copy()
    holed[1, 1] = np.nan
    found = io.read(exr(tmp_path / "a.exr", {"R": holed, "G": holed, "B": holed, "A": GREY}))
    assert np.array_equal(found.values, holed, equal_nan=True)


def test_which_channel(tmp_path: Path) -> None:
    exr(tmp_path / "a.exr", {"R": VALUES, "G": VALUES + 1, "B": VALUES})
    assert "which array is the depth map? Give --channel with one of B, G, R" in message(tmp_path / "a.exr")
    assert "there is no --channel Z; it has B, G, R" in message(tmp_path / "a.exr", channel="Z")
    exr(tmp_path / "b.exr", {"left.Depth.Z": VALUES, "right.Depth.Z": VALUES})
    assert "which array is the depth map?" in message(tmp_path / "b.exr")


def test_parts(tmp_path: Path) -> None:
    kinds = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
    parts = [
        OpenEXR.Part({"name": "Combined", **kinds}, {name: GREY * i for i, name in enumerate("RGB")}),
        OpenEXR.Part({"name": "Depth", **kinds}, {"V": VALUES}),
    ]
    with OpenEXR.File(parts) as file:
        file.write(str(tmp_path / "a.exr"))
    found = io.read(tmp_path / "a.exr")
    assert found.channel == "Depth.V" and np.array_equal(found.values, VALUES)


def test_a_part_of_the_image_lies_where_it_is_shown(tmp_path: Path) -> None:
    """Blender renders a border so, and its surroundings have no depth."""
    window = {"dataWindow": ((2, 1), (9, 6)), "displayWindow": ((0, 0), (8, 9))}
    found = io.read(exr(tmp_path / "a.exr", {"Z": VALUES}, **window)).values
    expected = np.full((10, 9), np.nan, np.float32)
    expected[1:7, 2:9] = VALUES[:, :7]
    assert np.array_equal(found, expected, equal_nan=True)
    exr(tmp_path / "b.exr", {"Z": VALUES}, dataWindow=((20, 1), (27, 6)), displayWindow=((0, 0), (8, 9)))
    assert "lie outside" in message(tmp_path / "b.exr")


@pytest.mark.parametrize("kind", ["scanlineimage", "tiledimage"])
@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ"])
def test_what_loses_nothing(tmp_path: Path, kind: str, compression: str) -> None:
    header: dict[str, Any] = {
        "type": getattr(OpenEXR, kind),
        "compression": getattr(OpenEXR, f"{compression}_COMPRESSION"),
    }
    if kind == "tiledimage":
        header["tiles"] = OpenEXR.TileDescription()
    assert np.array_equal(io.read(exr(tmp_path / "a.exr", {"Z": VALUES}, **header)).values, VALUES)


def test_broken_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.exr").write_bytes(b"this is no image" * 9)
    assert "not an EXR file" in message(tmp_path / "a.exr")
    noise = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    whole = exr(tmp_path / "a.exr", {"Z": noise}).read_bytes()
    for share in (0.05, 0.5, 0.9):
        (tmp_path / "a.exr").write_bytes(whole[: int(share * len(whole))])
        message(tmp_path / "a.exr")
    exr(tmp_path / "a.exr", {"Z": VALUES})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "says that it has 6 x 8 pixels, more than the limit" in message(tmp_path / "a.exr")


def test_a_broken_part_is_not_passed_over(tmp_path: Path) -> None:
    kinds = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
    maps = {name: np.tile(np.arange(64, dtype=np.float32), (64, 1)) for name in ("near", "Depth")}
    parts = [OpenEXR.Part({"name": name, **kinds}, {"Y": values}) for name, values in maps.items()]
    with OpenEXR.File(parts) as file:
        file.write(str(tmp_path / "a.exr"))
    content = bytearray((tmp_path / "a.exr").read_bytes())
    content[-200:-100] = b"\xff" * 100
    (tmp_path / "a.exr").write_bytes(content)
    assert "a broken " in message(tmp_path / "a.exr")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """OpenEXR writes to it without an error."""
    (tmp_path / "a.exr").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"cannot write .*a\.exr: it was not written completely; is the disk full"):
        io.write(tmp_path / "a.exr", VALUES)


def test_without_the_package_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exr(tmp_path / "a.exr", {"Z": VALUES})
    monkeypatch.setattr("ddfnet.depth.io.registry.find_spec", lambda name: None)
    said = "EXR needs OpenEXR, which is not installed; run: pip install 'ddfnet[formats]'"
    assert said in message(tmp_path / "a.exr")
    with pytest.raises(DataError, match=re.escape(said)):
        io.write(tmp_path / "b.exr", VALUES)
    assert not (tmp_path / "b.exr").exists()


def test_short_memory_is_no_broken_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenEXR leaves out parts that find no memory, as it does those that are broken."""
    io.write(tmp_path / "a.exr", depth_map(dtype="float32"))

    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", short)
    assert "reading it takes more memory than is free" in message(tmp_path / "a.exr")
