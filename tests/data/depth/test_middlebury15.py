"""Reader of middlebury15.tar, on an archive of the same layout."""

import pickle

import numpy as np
import pytest
import torch

from ddfnet.data.depth import middlebury15
from ddfnet.errors import DataError
from tests.depth_archives import disparity, encoded, middlebury, write_tar


@pytest.fixture
def file(tmp_path):
    return write_tar(tmp_path / "middlebury15.tar", middlebury())


def test_the_fifteen_in_order(file):
    scenes = middlebury15.load(file)
    assert [scene.name for scene in scenes] == [f"middlebury {number:02}" for number in range(1, 30, 2)]
    for scene, name in zip(scenes, middlebury15.NAMES, strict=True):
        assert scene.depth.dtype == torch.float32
        assert np.array_equal(scene.depth.numpy(), disparity(name))
        assert torch.equal(scene.guide[0], scene.depth.byte())
        assert torch.equal(scene.guide[2], 255 - scene.depth.byte())
        assert (scene.unit, scene.limits) == ("levels", (0, 255))
        assert name in scene.origin


def test_a_value_of_0_counts(file):
    scene = middlebury15.load(file)[0]
    assert scene.depth[0, 0] == 0
    assert scene.valid.all()


def test_is_a_sequence_that_travels(file):
    scenes = middlebury15.load(file)
    assert [scene.name for scene in scenes[-2:]] == ["middlebury 27", "middlebury 29"]
    assert pickle.loads(pickle.dumps(scenes))[1].name == "middlebury 03"
    with pytest.raises(IndexError):
        scenes[15]


def test_folders_around_it_do_not_matter(tmp_path):
    for start in ("", "./", "a/b/"):
        files = {start + name.removeprefix("middlebury15/"): content for name, content in middlebury().items()}
        assert len(middlebury15.load(write_tar(tmp_path / "a.tar", files))) == 15


def test_another_archive_or_one_that_lacks_a_file(tmp_path, file):
    other = write_tar(tmp_path / "other.tar", {"train/a/0.jpg": b"content"})
    line = (
        r"other.tar: RGB/01.png is required in the archive, there is none \(nor 29 other files\); is it the right one"
    )
    with pytest.raises(DataError, match=line):
        middlebury15.load(other)
    files = middlebury()
    del files["middlebury15/Depth/13.png"]
    with pytest.raises(DataError, match="lacks.tar: Depth/13.png is required in the archive, there is none; is it"):
        middlebury15.load(write_tar(tmp_path / "lacks.tar", files))


def test_a_map_that_has_not_its_images_size(tmp_path):
    files = middlebury() | {"middlebury15/Depth/03.png": encoded(np.ones((18, 20), np.uint8))}
    scenes = middlebury15.load(write_tar(tmp_path / "a.tar", files))
    with pytest.raises(DataError, match="a.tar/Depth/03.png must have 21x18 pixels, got 20x18"):
        scenes[1]


def test_a_damaged_map(tmp_path):
    files = middlebury()
    name = "middlebury15/Depth/01.png"
    files[name] = files[name][:60]
    scenes = middlebury15.load(write_tar(tmp_path / "a.tar", files))
    with pytest.raises(DataError, match="a.tar/Depth/01.png is a broken image: "):
        scenes[0]


def test_an_archive_that_went_away(file):
    scenes = middlebury15.load(file)
    file.unlink()
    with pytest.raises(DataError, match="middlebury15.tar: cannot be read: No such file"):
        scenes[0]
