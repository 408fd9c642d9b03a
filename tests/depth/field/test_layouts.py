"""Files of other programs, as folders of them lie about: Hypersim, Sintel, COLMAP, NYU's raw ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfnet.depth import io
from tests.upsampling import Run, depth_map, pair


def test_colmaps_names_pair_with_their_images(tmp_path: Path, calls: list, run: Run) -> None:
    for name in ("a", "b"):
        pair(tmp_path, name)
        (tmp_path / "depth" / f"{name}.png").unlink()
        io.write(tmp_path / "depth" / f"{name}.jpg.geometric.bin", depth_map(dtype="float32"))
    done = run(tmp_path / "depth", "--guide", tmp_path / "rgb", "-o", tmp_path / "out")
    assert done.status == 0 and "2 of 2 written" in done.out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.jpg.geometric.bin", "b.jpg.geometric.bin"}
    assert io.read(tmp_path / "out" / "a.jpg.geometric.bin").values.shape == (24, 32)


@pytest.mark.parametrize("ending", [".npz", ".h5", ".exr"])
def test_the_array_that_was_read_is_written(tmp_path: Path, calls: list, run: Run, ending: str) -> None:
    if package := io.format_of(f"a{ending}").package:
        pytest.importorskip(package[0])
    values = depth_map(dtype="float32")
    depth, guide = pair(tmp_path, ending=ending, depth=values)
    (tmp_path / "depth" / f"a{ending}").unlink()
    io.write(depth, values, source=io.DepthMap(values, io.format_of(depth).name, channel="left"))
    assert run(depth, "--guide", guide, "-o", tmp_path / f"out{ending}", "--channel", "left").status == 0
    found = io.read(tmp_path / f"out{ending}")
    assert found.channel == "left" and np.array_equal(found.values, np.kron(values, np.ones((4, 4), np.float32)))
    done = run(depth, "--guide", guide, "-o", tmp_path / f"b{ending}", "--channel", "right")
    assert done.status == 1 and "there is no --channel right; it has left" in done.err


def test_swapped_bytes_are_said(tmp_path: Path, calls: list, run: Run) -> None:
    """NYU Depth V2's raw files have the low byte first, against the format."""
    pytest.importorskip("netpbmfile")
    values = depth_map() + 500
    _, guide = pair(tmp_path)
    for name, stored in (("a.pgm", values), ("b.pgm", values.byteswap())):
        io.write(tmp_path / name, stored)
        assert np.array_equal(io.read(tmp_path / name).values, stored)
        done = run(tmp_path / name, "--guide", guide, "-o", tmp_path / f"out-{name}")
        assert done.status == 0 and ("bytes of its values seem to be swapped" in done.err) == (name == "b.pgm")


def test_a_whole_folder_of_kinds(tmp_path: Path, calls: list, run: Run) -> None:
    (tmp_path / "depth").mkdir(), (tmp_path / "rgb").mkdir()
    endings = [
        suffix for suffix, format in io.FORMATS.items() if not format.package or pytest.importorskip(format.package[0])
    ]
    for number, ending in enumerate(endings):
        dtype = "uint16" if "uint16" in io.FORMATS[ending].dtypes else "float32"
        io.write(tmp_path / "depth" / f"{number:02d}{ending}", depth_map(dtype=dtype))
        Image.effect_noise((32, 24), 60).convert("RGB").save(tmp_path / "rgb" / f"{number:02d}.webp")
    done = run(tmp_path / "depth", "--guide", tmp_path / "rgb", "-o", tmp_path / "out")
    assert done.status == 0 and f"{len(endings)} of {len(endings)} written" in done.out
    for path in (tmp_path / "out").iterdir():
        assert np.array_equal(io.read(path).values, np.kron(depth_map(), np.ones((4, 4), int)))
