"""Reader of NYU, on a small file of the same layout."""

import hashlib
import pickle

import numpy as np
import pytest

from ddfnet.data.depth import nyu
from ddfnet.errors import DataError

h5py = pytest.importorskip("h5py")
COUNT, HEIGHT, WIDTH = nyu.TRAIN + 3, 4, 6


@pytest.fixture
def file(tmp_path):
    """Write a file as MATLAB does: every array with its axes in reverse order."""
    path = tmp_path / "small.mat"
    number = np.arange(COUNT, dtype=np.float32)[:, None, None]
    with h5py.File(path, "w") as archive:
        ramp = np.arange(1, HEIGHT * WIDTH + 1, dtype=np.float32).reshape(HEIGHT, WIDTH)
        archive["depths"] = (number * 100 + ramp).transpose(0, 2, 1)
        image = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint8).reshape(HEIGHT, WIDTH, 3)
        archive["images"] = np.broadcast_to(image.transpose(2, 1, 0), (COUNT, 3, WIDTH, HEIGHT))
    return path


def test_the_first_thousand_train_the_others_test(file):
    train, test = (nyu.load(file, split, verify=False) for split in ("train", "test"))
    assert (len(train), len(test)) == (1000, 3)
    assert test[0].name == "nyu 1001"
    assert [scene.depth[0, 0].item() for scene in test] == [100001, 100101, 100201]
    assert train[-1].depth[0, 0] == 99901
    assert "test split" in test[0].origin
    assert "training split" in train[0].origin


def test_axes(file):
    scene = nyu.load(file, "train", verify=False)[0]
    assert scene.size == (HEIGHT, WIDTH)
    assert scene.depth[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert scene.guide[:, 0, 1].tolist() == [3, 4, 5]  # one pixel's red, green and blue
    assert scene.guide[0, 1, 0] == 3 * WIDTH
    assert scene.unit == "m"


def test_is_a_sequence_that_travels(file):
    test = nyu.load(file, verify=False)
    assert [scene.name for scene in test[1:]] == ["nyu 1002", "nyu 1003"]
    assert pickle.loads(pickle.dumps(test))[-1].name == "nyu 1003"
    with pytest.raises(IndexError):
        test[3]


def test_another_file_by_its_md5(file):
    with pytest.raises(DataError, match=f"small.mat: MD5 {nyu.MD5} is required, got .*download it again"):
        nyu.load(file)


def test_the_right_file_is_hashed_once(file, monkeypatch):
    monkeypatch.setattr(nyu, "MD5", hashlib.md5(file.read_bytes()).hexdigest())
    hashed = []
    md5 = hashlib.md5
    monkeypatch.setattr(hashlib, "md5", lambda *args, **options: hashed.append(1) or md5(*args, **options))
    nyu.load(file)
    nyu.load(file, "train")
    assert len(hashed) == 1
    with file.open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(DataError, match="MD5"):
        nyu.load(file)
    assert len(hashed) == 2


def test_files_that_are_not_it(tmp_path):
    missing, wrong, other = tmp_path / "missing.mat", tmp_path / "wrong.mat", tmp_path / "other.mat"
    wrong.write_bytes(b"MATLAB 5.0 MAT-file")
    with h5py.File(other, "w") as archive:
        archive["depths"] = np.zeros((2, 3, 4), np.float32)
        archive["images"] = np.zeros((2, 4, 3, 3), np.uint8)
    for verify in (True, False):
        with pytest.raises(DataError, match=r"missing.mat: nyu_depth_v2_labeled.mat is required"):
            nyu.load(missing, verify=verify)
    with pytest.raises(DataError, match=r"wrong.mat: .*which HDF5 can open"):
        nyu.load(wrong, verify=False)
    with pytest.raises(DataError, match=r"other.mat: images \(N, 3, W, H\).*got \(2, 4, 3, 3\) and \(2, 3, 4\)"):
        nyu.load(other, verify=False)


def test_a_split_that_there_is_not(file):
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'val'"):
        nyu.load(file, "val", verify=False)


def test_a_file_without_a_test_part(tmp_path):
    path = tmp_path / "few.mat"
    with h5py.File(path, "w") as archive:
        archive["depths"] = np.ones((2, 3, 4), np.float32)
        archive["images"] = np.zeros((2, 3, 3, 4), np.uint8)
    assert len(nyu.load(path, "train", verify=False)) == 2
    with pytest.raises(DataError, match="few.mat: more than 1000 images are required for a test part, got 2"):
        nyu.load(path, verify=False)
