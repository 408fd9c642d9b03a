"""NPY and NPZ: the array that is meant, and no more memory than headers claim."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from ddfnet.depth import io
from ddfnet.errors import DataError
from tests.upsampling import depth_map, message

VALUES = depth_map(dtype="float32")


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (1, 6, 8), (1, 1, 6, 8), (1, 6, 8, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_of_length_1_are_dropped(tmp_path: Path, shape: tuple[int, ...], order: str) -> None:
    np.save(tmp_path / "a.npy", np.asarray(VALUES.reshape(shape), order=order))
    np.savez(tmp_path / "a.npz", VALUES.reshape(shape))
    for name in ("a.npy", "a.npz"):
        assert np.array_equal(io.read(tmp_path / name).values, VALUES)


def test_a_row_of_samples_is_a_map(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES[:1])
    assert io.read(tmp_path / "a.npy").values.shape == (1, 8)


def test_the_only_map_of_an_archive(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", K=np.eye(3)[0], z=VALUES, title=np.array("room"))
    found = io.read(tmp_path / "a.npz")
    assert found.channel == "z" and np.array_equal(found.values, VALUES)
    io.write(tmp_path / "b.npz", VALUES, source=found)
    with np.load(tmp_path / "b.npz") as archive:
        assert archive.files == ["z"] and np.array_equal(archive["z"], VALUES)


def test_which_array_of_an_archive(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", near=VALUES, far=VALUES + 1)
    assert "Give --channel with one of near, far" in message(tmp_path / "a.npz")
    assert "there is no --channel depth; it has near, far" in message(tmp_path / "a.npz", channel="depth")
    assert np.array_equal(io.read(tmp_path / "a.npz", channel="far").values, VALUES + 1)
    np.savez(tmp_path / "b.npz", K=np.eye(3), depth=VALUES)  # intrinsics are an array of two dimensions, too
    assert io.read(tmp_path / "b.npz").channel == "depth"
    np.save(tmp_path / "a.npy", VALUES)
    assert "NPY has one channel, without a name" in message(tmp_path / "a.npy", channel="depth")


def test_keys_that_numpys_writer_would_take_for_options(tmp_path: Path) -> None:
    for key in ("file", "allow_pickle", "args"):
        io.write(tmp_path / "a.npz", VALUES, source=io.DepthMap(VALUES, "NPZ", channel=key))
        assert io.read(tmp_path / "a.npz").channel == key


def test_archives_without_a_map(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.arange(3), b=np.array("x"))
    assert "there is no depth map in it" in message(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", np.zeros((4, 5, 6)))
    assert "must be an array (height, width), got (4, 5, 6)" in message(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"PK" + bytes(90))
    assert "not an .npz file" in message(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", ["(True, 4)", "(4, 2, True)"])
def test_a_shape_is_of_integers(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    content = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(32)
    (tmp_path / "a.npy").write_bytes(content)
    assert f"its shape is {shape}" in message(tmp_path / "a.npy")


def test_more_than_the_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", VALUES)
    with (tmp_path / "a.npy").open("ab") as stream:
        np.save(stream, VALUES + 1)
    assert "cut short or too long: 192 bytes of values are required, there are 512" in message(tmp_path / "a.npy")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_bit_of_an_archive_is_flipped_in_silence(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, depth=VALUES, K=np.eye(3))
    undamaged, refused = path.read_bytes(), 0
    for place in np.random.default_rng(0).integers(0, len(undamaged), 300):
        content = bytearray(undamaged)
        content[place] ^= 1 << int(place) % 8
        path.write_bytes(content)
        try:
            assert np.array_equal(io.read(path).values, VALUES)
        except DataError:
            refused += 1
    assert refused > 100


def test_a_member_that_cannot_be_read_may_be_the_map(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("depth.npy", b"broken")
        archive.writestr("K.npy", npy_of(np.eye(3)))
    assert "depth.npy: not a .npy file, or a broken one" in message(tmp_path / "a.npz")
    assert np.array_equal(io.read(tmp_path / "a.npz", channel="K").values, np.eye(3))


def npy_of(values: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_nothing_of_an_archive_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "a.npz", depth=np.array([[Bomb()]], dtype=object))
    assert "integers or floats" in message(tmp_path / "a.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    ("shape", "said"),
    [("(99999999, 99999999)", "more than the limit"), ("(4000, 4000)", "cut short or too long: 64000000 bytes")],
)
def test_bombs_are_refused_by_what_their_headers_claim(tmp_path: Path, shape: str, said: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("depth.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(1000))
    assert said in message(tmp_path / "a.npz")
