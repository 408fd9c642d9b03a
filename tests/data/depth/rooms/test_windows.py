"""Windows of rendered rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("cv2")

from ddfnet.data.depth.rooms.windows import RoomWindows
from ddfnet.errors import DataError
from tests.depth_archives import middlebury, nyu, write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two scenes of 40 x 30 pixels whose depth, in millimetres, says where a pixel is: 1000 + 100 y + x."""
    y, x = np.mgrid[:30, :40]
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    for name in ("000000", "000001"):
        image = np.stack([x, y, 0 * x], -1).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "rgb" / f"{name}.png")
        Image.fromarray((1000 + 100 * y + x).astype(np.uint16)).save(tmp_path / "depth" / f"{name}.png")
    return tmp_path


def test_a_window_of_image_and_depth_are_the_same(folder: Path) -> None:
    rooms = RoomWindows(folder, 20, 16, disparities=0)
    seen = set()
    for index in range(20):
        window = rooms[index]
        assert window["guide"].shape == (3, 16, 16) and window["guide"].dtype == torch.uint8
        expected = (1000 + 100 * window["guide"][1].float() + window["guide"][0].float()) / 1000
        torch.testing.assert_close(window["depth"][0], expected)
        assert torch.equal(window["measured"], window["depth"])
        assert window["valid"].all() and window["valid"].shape == (1, 16, 16)
        seen.add((*window["guide"][:2, 0, 0].tolist(), int(window["guide"][0, 0, 1]) - int(window["guide"][0, 0, 0])))
    assert len(seen) > 10
    assert {step for *_, step in seen} == {1, -1}  # mirrored, and not


def test_some_windows_have_disparities(folder: Path) -> None:
    far, near = (RoomWindows(folder, 5, 16, disparities=share) for share in (0, 1))
    for index in range(5):
        torch.testing.assert_close(1 / far[index]["depth"], near[index]["depth"])


def test_windows_depend_on_seed_and_number_alone(folder: Path) -> None:
    first, second, other = (RoomWindows(folder, 30, 16, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[9]["guide"], second[9]["guide"])
    assert any(not torch.equal(first[i]["guide"], other[i]["guide"]) for i in range(5))


def test_flaws_of_the_measurement(folder: Path) -> None:
    window = RoomWindows(folder, 5, 30, noise=0.1, holes=0.3, misalignment=2.0)[3]
    assert not torch.equal(window["measured"], window["depth"])
    assert 0.5 < window["valid"].float().mean() < 1


def test_windows_of_nyu8_are_of_its_training_part_in_metres(tmp_path: Path) -> None:
    """Map N of the archive has the values 20 + N % 50, and 10 more on the right."""
    rooms = RoomWindows(write_tar(tmp_path / "nyu8.tar", nyu()), 40, 64, disparities=0)
    assert len(rooms.scenes) == 1000
    for index in range(10):
        depth = rooms[index]["depth"]
        assert depth.min() >= 20.5 / 25.5 - 1e-6 and depth.max() <= 79.5 / 25.5 + 1e-6


def test_windows_of_middlebury_are_of_all_pairs_but_aloe_and_above_0(tmp_path: Path) -> None:
    rooms = RoomWindows(write_tar(tmp_path / "middlebury15.tar", middlebury()), 20, 16, disparities=0)
    assert [scene.name for scene in rooms.scenes] == [f"middlebury {number:02}" for number in range(3, 30, 2)]
    for index in range(20):
        levels = rooms[index]["depth"] * 256 - 1
        assert torch.equal(levels, levels.round()) and levels.min() >= 0


def test_descriptions_say_where_the_scenes_come_from(folder: Path) -> None:
    assert RoomWindows(folder, 1, 16).description == f"the scenes of the folder {folder.name}"
    (folder / "scenes.json").write_text("{}")
    assert RoomWindows(folder, 1, 16).description.startswith("rooms rendered of furniture models")


def test_what_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="disparities must be a share from 0 to 1, got 2"):
        RoomWindows(folder, 5, 16, disparities=2)
    with pytest.raises(ValueError, match="length must be at least 1 and size at least 1"):
        RoomWindows(folder, 0, 16)
    with pytest.raises(TypeError, match="must be whole numbers"):
        RoomWindows(folder, 5, 16.0)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="A window of 64 pixels is required, got 40 x 30"):
        RoomWindows(folder, 5, 64)[0]
    with pytest.raises(IndexError, match="window 5 of 5"):
        RoomWindows(folder, 5, 16)[5]
    with pytest.raises(DataError, match="this folder is required"):
        RoomWindows(folder / "none", 5, 16)


def test_depth_that_is_missing_is_refused(folder: Path) -> None:
    for name in ("000000", "000001"):
        depth = np.full((30, 40), 1000, np.uint16)
        depth[10:20, 10:30] = 0
        Image.fromarray(depth).save(folder / "depth" / f"{name}.png")
    with pytest.raises(DataError, match="A depth that is valid everywhere is required, got 0 in it"):
        RoomWindows(folder, 5, 30)[0]
