"""Reader of nyu8.tar, on an archive of the same layout."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ddfnet.data.depth import nyu8
from ddfnet.errors import DataError
from tests.depth_archives import encoded, nyu, write_tar


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tar(tmp_path_factory.mktemp("nyu") / "nyu8.tar", nyu())


def test_the_first_thousand_train_the_others_test(file):
    train, test = (nyu8.load(file, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1000, 449)
    assert [scenes[n].name for scenes in (train, test) for n in (0, -1)] == [
        "nyu8 0",
        "nyu8 999",
        "nyu8 1000",
        "nyu8 1448",
    ]
    assert "nyu_depths/1000.png, of the test split" in test[0].origin
    assert "of the training split" in train[-1].origin


def test_a_depth_is_the_middle_of_its_step(file):
    scene = nyu8.load(file)[48]  # number 1048: 68, and 78 in the right half
    assert scene.size == (480, 640)
    assert scene.depth[0, [0, 319, 320]].tolist() == pytest.approx([68.5 / 25.5, 68.5 / 25.5, 78.5 / 25.5])
    assert scene.valid.all()
    assert (scene.unit, scene.limits) == ("m", None)
    assert scene.guide.shape == (3, 480, 640) and scene.guide.dtype == torch.uint8
    assert scene.guide[0, 0, 0] < 20 and scene.guide[0, 0, -1] > 230 and scene.guide[1].max() < 20


def test_a_value_of_0_is_a_depth(tmp_path):
    files = nyu(range(1000, 1449)) | {"nyu8/nyu_depths/1000.png": encoded(np.zeros((480, 640), np.uint8))}
    scene = nyu8.load(write_tar(tmp_path / "a.tar", files))[0]
    assert scene.valid.all()
    assert scene.depth.unique().tolist() == pytest.approx([0.0196], abs=1e-4)


def test_is_a_sequence_that_travels(file):
    test = nyu8.load(file)
    assert [scene.name for scene in test[1:3]] == ["nyu8 1001", "nyu8 1002"]
    assert pickle.loads(pickle.dumps(test))[-1].name == "nyu8 1448"
    with pytest.raises(IndexError):
        test[449]


def test_workers_read_it(file):
    scenes = nyu8.load(file)[:6]
    loader = DataLoader(scenes, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    read = list(loader)
    assert [scene.name for scene in read] == [f"nyu8 {number}" for number in range(1000, 1006)]
    assert all(torch.equal(a.depth, b.depth) for a, b in zip(read, scenes, strict=True))


def test_an_archive_of_one_part(tmp_path):
    file = write_tar(tmp_path / "a.tar", nyu(range(1000, 1449)))
    assert len(nyu8.load(file)) == 449
    with pytest.raises(
        DataError, match=r"a.tar: nyu_images/0.jpg is required in the archive, there is none \(nor 1999"
    ):
        nyu8.load(file, "train")


def test_a_split_that_there_is_not(file):
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        nyu8.load(file, "val")


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("nyu_images/1000.jpg", "small image", "nyu_images/1000.jpg must have 640x480 pixels, got 6x4"),
        ("nyu_depths/1000.png", "small depth", "nyu_depths/1000.png must have 640x480 pixels, got 6x4"),
        ("nyu_depths/1000.png", "16 bits", "nyu_depths/1000.png must have 8 bits, got uint16"),
        ("nyu_depths/1000.png", "small image", "nyu_depths/1000.png: "),
        ("nyu_images/1000.jpg", "nothing", "nyu_images/1000.jpg: "),
        ("nyu_depths/1000.png", "nothing", "nyu_depths/1000.png: "),
        ("nyu_depths/1000.png", "words", "nyu_depths/1000.png: not a PNG file"),
        ("nyu_images/1000.jpg", "words", "nyu_images/1000.jpg: not a JPEG"),
    ],
)
def test_an_image_that_is_not_as_it_must_be(tmp_path, member, content, message):
    contents = {
        "small image": encoded(np.zeros((4, 6, 3), np.uint8)),
        "small depth": encoded(np.zeros((4, 6), np.uint8)),
        "16 bits": encoded(np.full((480, 640), 900, np.uint16)),
        "nothing": b"",
        "words": b"no image",
    }
    files = nyu(range(1000, 1449)) | {f"nyu8/{member}": contents[content]}
    scenes = nyu8.load(write_tar(tmp_path / "a.tar", files))
    assert scenes[1].name == "nyu8 1001"  # the others can be read
    with pytest.raises(DataError) as raised:
        scenes[0]
    assert str(raised.value).startswith(f"{tmp_path / 'a.tar'}/{message}")
