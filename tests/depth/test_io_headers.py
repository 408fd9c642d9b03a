"""PGM, Sintel's .dpt and COLMAP's .bin, byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("netpbmfile")

from ddfnet.depth import io
from tests.upsampling import depth_map, message

VALUES = depth_map(dtype="float32")


# --- PGM ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maxval", [65535, 10000, 256, 255, 200])
@pytest.mark.parametrize("comment", [b"", b"# camera 2\n"])
def test_pgm_is_not_scaled_by_its_largest_value(tmp_path: Path, maxval: int, comment: bytes) -> None:
    """Pillow scales to 255 or 65535; OpenCV does not."""
    values = depth_map(dtype="uint16" if maxval > 255 else "uint8")
    stored = values.astype(">u2" if maxval > 255 else "u1").tobytes()  # the high byte first
    (tmp_path / "a.pgm").write_bytes(b"P5\n" + comment + b"8 6\n%d\n" % maxval + stored)
    (tmp_path / "b.pgm").write_text(f"P2 8 6 {maxval}\n" + " ".join(map(str, values.ravel())) + "\n")
    for name in ("a.pgm", "b.pgm"):
        found = io.read(tmp_path / name)
        assert found.values.dtype == values.dtype and np.array_equal(found.values, values)
    io.write(tmp_path / "c.pgm", values, source=found)
    assert (tmp_path / "c.pgm").read_bytes() == b"P5\n8 6\n%d\n" % maxval + stored


def test_pgm_of_a_larger_type_than_its_source(tmp_path: Path) -> None:
    source = io.DepthMap(depth_map(dtype="uint8"), "PGM", extras={"maxval": 200})
    io.write(tmp_path / "a.pgm", depth_map() * 200, source=source)
    assert np.array_equal(io.read(tmp_path / "a.pgm").values, depth_map() * 200)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"P6\n1 1\n255\n123", "not a PGM file"),
        (b"P5\n99999 99999\n255\n", "more than the limit"),
        (b"P5\n9 9\n65535\n12", "a broken or"),
        (b"P5\n1 1\n255\n12", "the file has 2"),
        (b"P5 what", "a broken or"),
    ],
)
def test_broken_pgm(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.pgm").write_bytes(content)
    assert said in message(tmp_path / "a.pgm")


# --- PFM and PNG keep what they say ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_pfm_keeps_its_scale_and_is_not_multiplied(tmp_path: Path, order: str) -> None:
    scale = b"-0.25" if order == "<" else b"0.25"
    (tmp_path / "a.pfm").write_bytes(b"Pf\n8 6\n" + scale + b"\n" + VALUES[::-1].astype(f"{order}f4").tobytes())
    found = io.read(tmp_path / "a.pfm")
    assert np.array_equal(found.values, VALUES)
    io.write(tmp_path / "b.pfm", VALUES, source=found)
    assert (tmp_path / "b.pfm").read_bytes() == b"Pf\n8 6\n-0.25\n" + VALUES[::-1].astype("<f4").tobytes()


def test_png_keeps_its_texts(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", "sensor 1.2")
    info.add_itxt("scale", "0.001 m, Größe")
    Image.fromarray(depth_map()).save(tmp_path / "a.png", pnginfo=info)
    io.write(tmp_path / "b.png", depth_map(), source=io.read(tmp_path / "a.png"))
    with Image.open(tmp_path / "b.png") as image:
        assert image.text == {"Software": "sensor 1.2", "scale": "0.001 m, Größe"}
    assert np.array_equal(io.read(tmp_path / "b.png").values, depth_map())


# --- Sintel and COLMAP ----------------------------------------------------------------------------------------------


def test_sintel_as_its_own_reader_has_it(tmp_path: Path) -> None:
    io.write(tmp_path / "a.dpt", VALUES)
    content = (tmp_path / "a.dpt").read_bytes()
    assert content[:4] == b"PIEH" and struct.unpack("<ii", content[4:12]) == (8, 6)
    assert np.array_equal(np.frombuffer(content[12:], "<f4").reshape(6, 8), VALUES)


def test_colmap_as_its_own_reader_has_it(tmp_path: Path) -> None:
    io.write(tmp_path / "a.jpg.geometric.bin", VALUES)
    content = (tmp_path / "a.jpg.geometric.bin").read_bytes()
    assert content.startswith(b"8&6&1&")
    columns = np.frombuffer(content[6:], "<f4").reshape((8, 6, 1), order="F")  # as COLMAP's script reads it
    assert np.array_equal(np.transpose(columns, (1, 0, 2)).squeeze(), VALUES)
    assert np.array_equal(io.read(tmp_path / "a.jpg.geometric.bin").values, VALUES)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.dpt", b"PIEH", "not a .dpt file"),
        ("a.dpt", struct.pack("<fii", 1.0, 8, 6), "not a .dpt file"),
        ("a.dpt", struct.pack("<fii", 202021.25, 1 << 30, 1 << 30), "more than the limit"),
        ("a.dpt", struct.pack("<fii", 202021.25, -8, -6), "must be an array"),
        ("a.dpt", struct.pack("<fii", 202021.25, 8, 6) + bytes(99), "192 bytes of values are required, there are 99"),
        ("a.geometric.bin", b"8&6&1", "not a depth map of COLMAP"),
        ("a.geometric.bin", b"8&6&3&" + bytes(576), "this one has 3, as normal maps have"),
        ("a.geometric.bin", b"99999&99999&1&", "more than the limit"),
        ("a.photometric.bin", b"8&6&1&" + bytes(191), "192 bytes of values are required, there are 191"),
        ("a.bin", b"8&6&1&" + bytes(192), "must end in"),
    ],
)
def test_broken_headers(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in message(tmp_path / name)
