"""Scenes of a folder."""

import numpy as np
import pytest
from PIL import Image

from ddfnet.data.depth import folder as folders
from ddfnet.errors import DataError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "rgb").mkdir()
    (tmp_path / "depth").mkdir()
    for index, (stem, suffix) in enumerate({"b": "png", "a": "npy"}.items()):
        Image.new("RGB", (6, 4), (index, 0, 0)).save(tmp_path / "rgb" / f"{stem}.png")
        depth = np.full((4, 6), 1000 + index, dtype=np.uint16)
        depth[0, 0] = 0
        if suffix == "npy":
            np.save(tmp_path / "depth" / f"{stem}.npy", depth)
        else:
            Image.fromarray(depth).save(tmp_path / "depth" / f"{stem}.png")
    (tmp_path / "rgb" / ".hidden").touch()
    return tmp_path


def test_files_of_one_name_are_a_scene(folder):
    scenes = folders.load(folder, unit="m")
    assert [scene.name for scene in scenes] == ["a", "b"]
    assert [scene.depth[1, 1].item() for scene in scenes] == [1001, 1000]
    assert [scene.guide[0, 0, 0].item() for scene in scenes] == [1, 0]
    assert not scenes[0].valid[0, 0]
    assert scenes[0].unit == "m"
    assert scenes[1:][0].name == "b"


def test_the_type_of_a_map_limits_its_values(folder):
    np.save(folder / "depth" / "a.npy", np.full((4, 6), 1.5, np.float32))
    Image.fromarray(np.full((4, 6), 9, np.uint8)).save(folder / "depth" / "b.png")
    assert [scene.limits for scene in folders.load(folder)] == [None, (0, 255)]
    np.save(folder / "depth" / "a.npy", np.full((4, 6), 15, np.int16))
    assert folders.load(folder)[0].limits == (-(2**15), 2**15 - 1)


@pytest.mark.parametrize(("lonely", "where"), [("rgb/c.png", "depth"), ("depth/c.png", "rgb")])
def test_a_file_without_partner(folder, lonely, where):
    (folder / lonely).touch()
    with pytest.raises(DataError, match=f"{lonely}: a file of the same name is required in .*{where}, there is none"):
        folders.load(folder)
    (folder / lonely).with_name("d.png").touch()
    with pytest.raises(DataError, match=r"nor for 1 others"):
        folders.load(folder)


def test_what_is_no_image_is_passed_over(folder):
    (folder / "rgb" / "Thumbs.db").touch()
    (folder / "depth" / "a.txt").write_text("taken on a Tuesday")
    assert [scene.name for scene in folders.load(folder)] == ["a", "b"]


def test_two_partners(folder):
    (folder / "rgb" / "a.jpg").touch()
    with pytest.raises(DataError, match="a.png: one file per name is required, got a.jpg too"):
        folders.load(folder)


def test_no_folder_and_an_empty_one(tmp_path):
    with pytest.raises(DataError, match=r"rgb: this folder is required beside depth/"):
        folders.load(tmp_path)
    (tmp_path / "rgb").mkdir()
    with pytest.raises(DataError, match=r"rgb: files are required in it \(\.jpg, .*\), got none"):
        folders.load(tmp_path)


def test_sizes_that_differ_name_the_file(folder):
    np.save(folder / "depth" / "a.npy", np.ones((2, 2), np.float32))
    with pytest.raises(DataError, match=r"a.npy: .* of one size are required, got \(4, 6, 3\) and \(2, 2\)"):
        folders.load(folder)[0]


def test_nodata_of_a_file_is_missing(folder):
    tifffile = pytest.importorskip("tifffile")
    depth = np.full((4, 6), 7, np.int16)
    depth[1, 2] = -9999
    tifffile.imwrite(folder / "depth" / "c.tif", depth, metadata=None, extratags=[(42113, "s", 0, "-9999", True)])
    Image.new("RGB", (6, 4)).save(folder / "rgb" / "c.png")
    scene = folders.load(folder)[2]
    assert not scene.valid[1, 2] and scene.valid.sum() == 23 and scene.depth[1, 2] == 0
