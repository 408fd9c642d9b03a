"""Folders of images: both layouts, and messages about bad ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchvision")

import numpy as np
from PIL import Image

from ddfnet.data.classification import folder
from ddfnet.data.classification.images import FolderImages
from ddfnet.errors import DataError

COLOURS = {"blue": (10, 20, 200), "green": (20, 150, 10), "red": (220, 30, 40)}


def write(root: Path, count: int, size: tuple[int, int] = (40, 24)) -> Path:
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", size, colour).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test(tmp_path: Path, test: str) -> None:
    write(tmp_path / "train", 4)
    write(tmp_path / test, 2)
    splits = folder.load(tmp_path, size=16)
    assert splits.classes == ("blue", "green", "red")
    assert splits.train.images.shape == (12, 3, 16, 16) and splits.test.images.shape == (6, 3, 16, 16)
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    for image, label in zip(splits.train.images, splits.train.labels, strict=True):
        expected = torch.tensor(COLOURS[splits.classes[label]], dtype=torch.uint8)[:, None, None]
        assert torch.equal(image, expected.expand(3, 16, 16))
    assert f"own test part ({test})" in splits.origin


def test_a_single_folder_is_split_the_same_way_each_time_with_each_class_in_proportion(tmp_path: Path) -> None:
    write(tmp_path, 10)
    first, second = folder.load(tmp_path, size=8), folder.load(tmp_path, size=8)
    assert first.train.labels.bincount().tolist() == [8, 8, 8]
    assert first.test.labels.bincount().tolist() == [2, 2, 2]
    assert torch.equal(first.train.labels, second.train.labels)
    assert "20% were set aside at random" in first.origin


def test_images_are_scaled_and_cut_not_squeezed(tmp_path: Path) -> None:
    write(tmp_path, 5)
    image = Image.new("RGB", (64, 32))
    image.paste((255, 255, 255), (16, 0, 48, 32))  # the middle square is white
    image.save(tmp_path / "blue" / "0.png")
    splits = folder.load(tmp_path, size=16)
    everything = torch.cat([splits.train.images, splits.test.images])
    [found] = [image for image in everything if image.float().mean() > 200]
    assert (found[:, :, 1:-1] > 250).all()  # a column of the black beside it is mixed in at each edge


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    write(tmp_path, 5)
    Image.new("L", (20, 20), 77).save(tmp_path / "blue" / "0.png")
    assert folder.load(tmp_path, size=8).channels == 3


@pytest.mark.parametrize("damage", [b"", b"no image", None])
def test_a_broken_image_is_named(tmp_path: Path, damage: bytes | None) -> None:
    write(tmp_path, 5)
    broken = tmp_path / "green" / "3.png"
    if damage is None:  # cut short
        Image.effect_noise((64, 64), 90).save(broken)
        damage = broken.read_bytes()[:1000]
    broken.write_bytes(damage)
    with pytest.raises(DataError) as raised:
        folder.load(tmp_path)
    said = {b"": ": the file is empty", b"no image": ": not a JPEG, PNG"}.get(damage, " is a broken image: ")
    assert str(raised.value).startswith(f"{broken}{said}")
    assert "\n" not in str(raised.value)


def test_images_of_16_bits_and_turned_ones_are_read_as_viewers_show_them(tmp_path: Path) -> None:
    grey = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (40, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    for name, image, options in (
        ("eight", Image.fromarray(grey), {}),
        ("sixteen", Image.fromarray(grey.astype(np.uint16) * 257), {}),
        ("turned", Image.fromarray(np.rot90(grey).copy()), {"exif": exif}),
    ):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.png", **options)
    images = FolderImages(tmp_path)
    eight, sixteen, turned = (np.asarray(images[label][0]).astype(int) for label in range(3))
    assert np.array_equal(eight, turned) and np.abs(eight - sixteen).max() <= 1 and eight.min() == 0


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        folder.load(tmp_path / "nowhere")


def test_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty; it must have a folder of images for each class"):
        folder.load(tmp_path)
    (tmp_path / "a_class").mkdir()
    with pytest.raises(
        DataError, match="no images of the class a_class; put some in, or remove its folder, "
    ) as raised:
        folder.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_train_without_test(tmp_path: Path) -> None:
    write(tmp_path / "train", 2)
    with pytest.raises(DataError, match="has train, but neither test nor val"):
        folder.load(tmp_path)


def test_a_class_without_test_images_keeps_its_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "train", 2)
    write(tmp_path / "test", 2)
    shutil.rmtree(tmp_path / "test" / "green")
    splits = folder.load(tmp_path, size=8)
    assert splits.classes == ("blue", "green", "red")
    assert splits.test.labels.tolist() == [0, 0, 2, 2]
    assert caplog.messages == [f"{tmp_path / 'test'}: no images of the class green, which is not measured"]


def test_a_class_without_training_images(tmp_path: Path) -> None:
    write(tmp_path / "train", 2)
    write(tmp_path / "test", 2)
    shutil.rmtree(tmp_path / "train" / "green")
    with pytest.raises(DataError) as raised:
        folder.load(tmp_path)
    train, test = tmp_path / "train", tmp_path / "test"
    assert str(raised.value) == (
        f"the class green is in {test}, and not in {train}; put its images for training there, or remove it from {test}"
    )


def test_a_test_part_without_images(tmp_path: Path) -> None:
    write(tmp_path / "train", 2)
    write(tmp_path / "test", 0)
    with pytest.raises(DataError) as raised:
        folder.load(tmp_path)
    train, test = tmp_path / "train", tmp_path / "test"
    assert str(raised.value) == f"{test}: images of the classes of {train} are required, got none"


@pytest.mark.parametrize("part", ["train", "test", "."])
def test_what_systems_leave_behind_is_no_data(tmp_path: Path, part: str) -> None:
    if part == ".":
        write(tmp_path, 5)
    else:
        write(tmp_path / "train", 2)
        write(tmp_path / "test", 2)
    clean = folder.load(tmp_path, size=8)
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "blue/.ipynb_checkpoints", "blue/@eaDir"):
        (tmp_path / part / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / part / name / "0.png")
    (tmp_path / part / "blue" / "._0.png").write_bytes(b"Mac OS X")
    (tmp_path / part / "._blue").write_bytes(b"Mac OS X")
    found = folder.load(tmp_path, size=8)
    assert found.classes == clean.classes
    assert torch.equal(found.train.images, clean.train.images) and torch.equal(found.test.images, clean.test.images)


def test_too_few_to_split(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(DataError, match="too few images for a test part: "):
        folder.load(tmp_path)
