"""Depth maps as files: what is written is read again to the bit, bad files are named, writing is all or nothing."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from pathlib import Path

import pytest

pytest.importorskip("PIL")

import numpy as np
from PIL import Image

from ddfnet.depth import io
from ddfnet.errors import DataError
from tests.upsampling import message

HELD = [
    *[(name, dtype) for name in ("a.png", "a.tif", "A.TIFF", "a.npy") for dtype in ("uint8", "uint16")],
    *[(name, "float32") for name in ("a.tif", "a.npy", "a.pfm")],
    *[("a.npy", dtype) for dtype in ("int16", "int32", "int64", "uint32", "float16", "float64")],
]


def depth_map(dtype: str = "uint16", size: tuple[int, int] = (7, 5)) -> np.ndarray:
    """Return a map of uneven sizes and values, so that a rotated, mirrored or scaled one differs."""
    return (np.arange(size[0] * size[1]).reshape(size) * (200 / size[0] / size[1])).astype(dtype)


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def npy(header: str, data: bytes = b"12345678") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data


# --- there and back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "dtype"), HELD)
def test_what_is_written_is_read_again(tmp_path: Path, name: str, dtype: str) -> None:
    values = depth_map(dtype)
    io.write(tmp_path / name, values)
    found = io.read(tmp_path / name)
    assert found.values.dtype == values.dtype and np.array_equal(found.values, values)
    assert found.format == io.format_of(name).name
    assert os.listdir(tmp_path) == [name]  # noqa: PTH208


@pytest.mark.parametrize("name", ["a.tif", "a.npy", "a.pfm"])
def test_what_is_not_finite_stays(tmp_path: Path, name: str) -> None:
    values = depth_map("float32")
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
    io.write(tmp_path / name, values)
    assert np.array_equal(io.read(tmp_path / name).values, values, equal_nan=True)


def test_the_whole_range_of_16_bits_and_their_steps(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for name in ("a.png", "a.tif"):
        io.write(tmp_path / name, values)
        assert np.array_equal(io.read(tmp_path / name).values, values)


def test_maps_of_other_programs(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for name, dtype in (("a.png", "uint16"), ("a.tif", "uint16"), ("b.tif", "float32"), ("a.pfm", "float32")):
        values = depth_map(dtype)
        assert cv2.imwrite(str(tmp_path / name), values)
        assert np.array_equal(io.read(tmp_path / name).values, values)
        io.write(tmp_path / f"ours-{name}", values)
        assert np.array_equal(cv2.imread(str(tmp_path / f"ours-{name}"), cv2.IMREAD_UNCHANGED), values)


def test_byte_order_and_layout(tmp_path: Path) -> None:
    values = depth_map("float32")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n5 7\n1.0\n" + values[::-1].astype(">f4").tobytes())
    np.save(tmp_path / "a.npy", np.asfortranarray(values.astype(">f4")))
    for name in ("a.pfm", "a.npy"):
        found = io.read(tmp_path / name).values
        assert np.array_equal(found, values) and found.dtype.isnative and found.flags.c_contiguous


def test_a_mask_is_where_the_file_is_not_zero(tmp_path: Path) -> None:
    mask = depth_map("uint8") % 3 == 0
    Image.fromarray(mask).save(tmp_path / "one-bit.png")
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "eight.png")
    np.save(tmp_path / "bool.npy", mask)
    for name in ("one-bit.png", "eight.png", "bool.npy"):
        found = io.read_mask(tmp_path / name)
        assert found.dtype == bool and np.array_equal(found, mask)
    assert "of bool, as a mask is" in message(tmp_path / "bool.npy")


@pytest.mark.parametrize("bits", [2, 4])
def test_png_of_few_bits_keeps_its_values(tmp_path: Path, bits: int) -> None:
    """Pillow makes 8 bits of them: 0, 85, 170 and 255 of two."""
    values = depth_map() % 2**bits
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    (tmp_path / "a.png").write_bytes(png(5, 7, bits, 0, rows))
    found = io.read(tmp_path / "a.png").values
    assert found.dtype == np.uint8 and np.array_equal(found, values)
    assert np.array_equal(io.read_mask(tmp_path / "a.png", least=2), values >= 2)


def test_a_mask_of_one_bit_is_no_depth_map(tmp_path: Path) -> None:
    Image.fromarray(depth_map() % 2 == 0).save(tmp_path / "a.png")
    assert "got one of single bits, as a mask is" in message(tmp_path / "a.png")


# --- photographs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_photographs_of_every_kind(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (9, 6), (255, 255, 255)).convert(mode).save(path)
    found = io.read_guide(path)
    assert found.shape == (6, 9, 3) and found.dtype == np.uint8 and (found >= 250).all()


def test_a_photograph_is_turned_as_a_viewer_turns_it(tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (32, 16)), Image.Exif()
    image.paste((255, 255, 255), (0, 0, 16, 16))  # white at the left
    exif[0x0112] = 6  # to be turned clockwise: the left side comes to the top
    image.save(tmp_path / "a.jpg", exif=exif)
    found = io.read_guide(tmp_path / "a.jpg")
    assert found.shape == (32, 16, 3) and (found[:12] > 200).all() and (found[20:] < 50).all()


def test_grey_of_16_bits_keeps_its_edges(tmp_path: Path) -> None:
    io.write(tmp_path / "a.png", np.array([[0, 500], [1000, 250]], np.uint16))  # all black in eight bits
    assert io.read_guide(tmp_path / "a.png")[:, :, 1].tolist() == [[0, 128], [255, 64]]


def test_a_photograph_is_no_program(tmp_path: Path) -> None:
    """Pillow runs Ghostscript for this one."""
    Image.new("RGB", (9, 6)).save(tmp_path / "a.png", "EPS")
    assert "not a JPEG, PNG" in message(tmp_path / "a.png", io.read_guide)


def test_a_depth_map_is_no_photograph(tmp_path: Path) -> None:
    io.write(tmp_path / "a.tif", depth_map("float32"))
    assert "an image of 8 or 16 bits is required, got mode F" in message(tmp_path / "a.tif", io.read_guide)


# --- bad files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.pfm"])
def test_missing_empty_foreign_and_truncated(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert "No such file" in message(path)
    path.write_bytes(b"")
    assert message(path) == f"{path}: the file is empty"
    path.write_bytes(b"this is no image" * 9)
    assert "not a" in message(path)
    noise = np.random.default_rng(0).integers(1, 65536, (64, 64)).astype("float32" if name == "a.pfm" else "uint16")
    io.write(path, noise)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        message(path)
    path.unlink()
    path.mkdir()
    assert "this is a folder" in message(path)


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.png", "RGBA"), ("a.png", "P")])
def test_colour(tmp_path: Path, name: str, mode: str) -> None:
    Image.new(mode, (5, 7)).save(tmp_path / name)
    assert f"must have one channel of numbers, got an image of mode {mode}" in message(tmp_path / name)


def test_colour_of_other_formats(tmp_path: Path) -> None:
    (tmp_path / "a.pfm").write_bytes(b"PF\n5 7\n-1.0\n" + bytes(5 * 7 * 12))
    assert "has three colours" in message(tmp_path / "a.pfm")
    np.save(tmp_path / "a.npy", np.zeros((7, 5, 3), np.uint8))
    assert "an array (height, width), got (7, 5, 3)" in message(tmp_path / "a.npy")
    for mode, got in (("RGB", "3 channels"), ("P", "a palette")):
        Image.new(mode, (5, 7)).save(tmp_path / "a.tif")
        assert f"must have one channel of numbers, got {got}" in message(tmp_path / "a.tif")


@pytest.mark.parametrize("array", [np.zeros(5), np.zeros((0, 5)), np.zeros((2, 2), complex), np.array([["a", "b"]])])
def test_arrays_that_are_no_maps(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    assert "must be" in message(tmp_path / "a.npy")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "a.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    assert "integers or floats" in message(tmp_path / "a.npy")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("(99999999999, 99999999999)", "pixels, more than the limit"),
        ("(4294967296, 4294967296)", "pixels, more than the limit"),  # 2**64 pixels, which wraps to none
        ("(-3, 3)", "must be an array"),
        ("(3, 3)", "cut short or too long: 36 bytes"),
        ("(3, 'x')", "not a .npy file"),
        ("(" * 3000, "not a .npy file"),
    ],
)
def test_absurd_headers(tmp_path: Path, shape: str, said: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert said in message(tmp_path / "a.npy")


def test_decompression_bombs(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(60000, 60000, 16, 0, b""))
    (tmp_path / "a.pfm").write_bytes(b"Pf\n60000 60000\n-1.0\n")
    for name in ("a.png", "a.pfm"):
        assert "exceeds limit" in message(tmp_path / name)
    assert "exceeds limit" in message(tmp_path / "a.png", io.read_guide)


def test_pillows_limit_holds_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for name, dtype in (("a.png", "uint16"), ("a.npy", "uint16"), ("a.pfm", "float32")):
        io.write(tmp_path / name, depth_map(dtype))
        assert "limit" in message(tmp_path / name)


def test_a_tiff_of_three_pages(tmp_path: Path) -> None:
    page = Image.fromarray(depth_map("uint16"))
    page.save(tmp_path / "b.tif", save_all=True, append_images=[page, page])
    assert "one depth map is required, the file has 3" in message(tmp_path / "b.tif")


@pytest.mark.parametrize(("name", "said"), [("a.jpg", "got .jpg"), ("a", "got no ending")])
def test_other_endings(tmp_path: Path, name: str, said: str) -> None:
    assert said in message(tmp_path / name)


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype", "mend"),
    [
        ("a.png", "float32", "use .pfm, .tif, .npy, .npz, .dpt, .geometric.bin, .exr or .h5"),
        ("a.png", "float64", "use .tif, .npy, .npz or .h5"),
        ("a.pfm", "uint16", "use .png, .tif, .npy, .npz, .pgm or .h5"),
        ("a.exr", "int32", "use .tif, .npy, .npz or .h5"),
    ],
)
def test_no_dtype_is_converted_in_silence(tmp_path: Path, name: str, dtype: str, mend: str) -> None:
    with pytest.raises(DataError) as raised:
        io.write(tmp_path / name, depth_map(dtype))
    assert str(raised.value).endswith(mend)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_write_that_stops_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException
) -> None:
    path = tmp_path / "a.png"
    io.write(path, depth_map())
    before = path.read_bytes()

    def interrupted(self: Image.Image, stream, *_: object, **__: object) -> None:
        stream.write(before[:50])
        raise stop

    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises((KeyboardInterrupt, DataError)) as raised:
        io.write(path, depth_map() + 1)
    assert str(raised.value) == ("" if stop is KeyboardInterrupt else f"cannot write {path}: No space left on device")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a.npy").symlink_to(tmp_path / "there" / "b.npy")
    io.write(tmp_path / "a.npy", depth_map())
    assert (tmp_path / "a.npy").is_symlink() and (tmp_path / "there" / "b.npy").is_file()


def test_what_cannot_be_written(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "nowhere" / "a.png", "there is no folder"),
        (tmp_path / ("a" * 300 + ".png"), "name too long"),
    ):
        with pytest.raises(DataError, match=said) as raised:
            io.write(path, depth_map())
        assert str(path) in str(raised.value)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(DataError, match="folder.png: it is a folder"):
        io.write(tmp_path / "folder.png", depth_map())


@pytest.mark.skipif(not hasattr(os, "umask"), reason="permissions of Unix")
def test_a_result_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    io.write(tmp_path / "a.png", depth_map())
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode
