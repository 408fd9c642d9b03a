"""Scenes of arrays, and the two inside other packages."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ddfnet.data.depth import middlebury
from ddfnet.data.depth.scenes import from_arrays
from ddfnet.errors import DataError


def test_invalid_pixels_are_marked_and_zero():
    depth = np.array([[1.5, 0.0, np.nan], [np.inf, -np.inf, 2.5]])
    guide = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    scene = from_arrays("corner", guide, depth, "m", "A corner.")
    assert scene.valid.tolist() == [[True, False, False], [False, False, True]]
    assert scene.depth.tolist() == [[1.5, 0, 0], [0, 0, 2.5]]
    assert scene.depth.dtype == torch.float32
    assert torch.equal(scene.guide, torch.tensor(guide).permute(2, 0, 1))
    assert scene.size == (2, 3)


@pytest.mark.parametrize(
    ("guide", "depth", "message"),
    [
        ((4, 4, 3), (4, 5), r"wall: .* of one size are required, got \(4, 4, 3\) and \(4, 5\)"),
        ((4, 4), (4, 4), r"wall: an image \(H, W, 3\)"),
        ((4, 4, 3), (4, 4, 3), r"wall: .*, got \(4, 4, 3\) and \(4, 4, 3\)"),
    ],
)
def test_sizes_that_do_not_fit(guide, depth, message):
    with pytest.raises(DataError, match=message):
        from_arrays("wall", np.zeros(guide, np.uint8), np.ones(depth), "m", "")


def test_nothing_valid():
    with pytest.raises(DataError, match="wall: a depth map with a valid pixel is required"):
        from_arrays("wall", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2)), "m", "")


def test_motorcycle():
    scene = middlebury.motorcycle()
    assert scene.guide.shape == (3, 500, 741)
    assert scene.depth.shape == scene.valid.shape == (500, 741)
    assert scene.valid.float().mean().item() == pytest.approx(1 - 0.0735, abs=1e-4)  # the rest is inf in the file
    known = scene.depth[scene.valid]
    assert 7 < known.min() < known.max() < 60
    assert (scene.depth[~scene.valid] == 0).all()
    assert scene.unit == "px"


@pytest.mark.skipif(not Path(middlebury.OPENCV_SAMPLES, "aloeGT.png").exists(), reason="Debian's opencv-doc is absent")
def test_aloe():
    scene = middlebury.aloe()
    assert scene.guide.shape == (3, 1110, 1282)
    assert scene.valid.float().mean().item() == pytest.approx(1 - 0.0345, abs=1e-4)
    assert scene.depth.max() == 211


def test_aloe_from_a_folder_of_your_own(tmp_path):
    from PIL import Image

    Image.new("RGB", (3, 2), (1, 2, 3)).save(tmp_path / "aloeL.jpg")
    Image.fromarray(np.array([[0, 1, 2], [3, 4, 5]], dtype=np.uint8)).save(tmp_path / "aloeGT.png")
    scene = middlebury.aloe(tmp_path)
    assert scene.depth.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert scene.valid.sum() == 5


def test_aloe_is_not_there(tmp_path):
    with pytest.raises(DataError, match="aloeL.jpg.*install Debian's opencv-doc"):
        middlebury.aloe(tmp_path)


def test_what_is_missing_can_be_told():
    guide, depth = np.zeros((1, 3, 3), np.uint8), np.array([[0, 255, 7]], np.uint8)
    assert from_arrays("a", guide, depth, "", "", missing=()).valid.all()
    told = from_arrays("a", guide, depth, "", "", missing=(0, 255), limits=(0, 255))
    assert told.valid.tolist() == [[False, False, True]]
    assert told.depth.tolist() == [[0, 0, 7]]
    assert told.limits == (0, 255)
