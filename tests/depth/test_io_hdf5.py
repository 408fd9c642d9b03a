"""HDF5: the data set that is meant, from the file itself, and no more memory than it claims."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")

import h5py

from ddfnet.depth import io
from tests.upsampling import depth_map, message

VALUES = depth_map(dtype="float32")


@pytest.mark.parametrize("dtype", ["float16", ">f4", "float64", "uint16", "int32"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True}, {"chunks": (4, 4)}]
)
def test_a_data_set_as_hypersim_has_it(tmp_path: Path, dtype: str, options: dict) -> None:
    values = VALUES.astype(dtype)
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.create_dataset("dataset", data=values, **options)
    found = io.read(tmp_path / "a.hdf5")
    assert found.channel == "dataset" and found.values.dtype == values.dtype.newbyteorder("=")
    assert np.array_equal(found.values, values)
    io.write(tmp_path / "b.h5", found.values, source=found)
    with h5py.File(tmp_path / "b.h5") as file:
        assert list(file) == ["dataset"] and np.array_equal(file["dataset"][()], values)


def test_which_data_set(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["camera/K"] = np.eye(3)
        file["camera/depth"] = VALUES
        file["image"] = np.zeros((3, 6, 8), np.uint8)
        file["name"] = "room"
    assert io.read(tmp_path / "a.h5").channel == "camera/depth"
    assert np.array_equal(io.read(tmp_path / "a.h5", channel="/camera/K").values, np.eye(3))
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["depth"] = VALUES
    assert "Give --channel with one of camera/K, camera/depth, depth" in message(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["image"] = np.zeros((3, 6, 8), np.uint8)
    assert "there is no depth map in it" in message(tmp_path / "b.h5")


def test_a_mask_of_bools(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["mask"] = VALUES > 110
    assert np.array_equal(io.read_mask(tmp_path / "a.h5"), VALUES > 110)
    assert "of bool, as a mask is" in message(tmp_path / "a.h5")


def test_nothing_is_read_from_other_files(tmp_path: Path) -> None:
    VALUES.tofile(tmp_path / "secret.raw")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["depth"] = VALUES
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["depth"] = h5py.ExternalLink("other.h5", "depth")
    assert "there is no depth map in it" in message(tmp_path / "link.h5")
    assert "there is no depth map in it" in message(tmp_path / "link.h5", channel="depth")
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        whole = (str(tmp_path / "secret.raw"), 0, VALUES.nbytes)
        file.create_dataset("depth", VALUES.shape, "f4", external=[whole])
    layout = h5py.VirtualLayout(VALUES.shape, "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "depth", VALUES.shape)
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("depth", layout)
    for name in ("raw.h5", "virtual.h5"):
        assert "the values of depth lie in other files" in message(tmp_path / name)


def test_no_library_is_loaded_for_a_compression(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("depth", data=VALUES, compression="lzf")
    assert "h5repack -f GZIP=4" in message(tmp_path / "a.h5")


def test_what_is_compressed_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("depth", (6, 8), "f4", chunks=(6, 8), compression="gzip")
        data.id.write_direct_chunk((0, 0), zlib.compress(bytes(30_000_000)))
    assert "of more than the 196 bytes that it claims" in message(tmp_path / "a.h5")


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"this is no image" * 9)
    assert "not an HDF5 file" in message(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["depth"] = np.zeros((64, 64))
    whole = (tmp_path / "a.h5").read_bytes()
    for share in (0.01, 0.5, 0.9):
        (tmp_path / "a.h5").write_bytes(whole[: int(share * len(whole))])
        message(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("depth", (100_000, 100_000), "f8", chunks=(64, 64))  # a file of some kilobytes
    assert "100000 x 100000 pixels, more than the limit" in message(tmp_path / "b.h5")
