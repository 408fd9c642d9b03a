"""Data sets of images with boxes: what is read, repeated and changed, and images that are broken."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

pytest.importorskip("torchvision")
pytest.importorskip("defusedxml")

import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ddfnet.data.detection import layouts
from ddfnet.data.detection.annotations import DetectionAnnotations
from ddfnet.data.detection.dataset import DetectionDataset, RepeatedDetectionDataset, read_annotated
from ddfnet.errors import DataError
from tests.detection_folders import CLASSES, truncate, voc, voc_xml

PLAIN = v2.Identity()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return voc(tmp_path / "cells", {"train": 4})


@pytest.fixture
def images(root: Path) -> DetectionAnnotations:
    return layouts.load(root, "train", CLASSES)


def red(image: torch.Tensor) -> tuple[int, ...]:
    """Find the red square: x0, y0, x1, y1."""
    found = (image[0] > 0.7) & (image[2] < 0.3)
    rows, columns = found.any(1).nonzero(), found.any(0).nonzero()
    return (*(int(each.min()) for each in (columns, rows)), *(int(each.max()) + 1 for each in (columns, rows)))


def test_an_image_and_its_objects(images: DetectionAnnotations) -> None:
    items = DetectionDataset(images)
    assert len(items) == 4
    for index in range(4):
        item = items[index]
        assert item is not None
        image, target = item
        assert image.shape == (3, 48, 64) and image.dtype == torch.float32 and 0 <= image.min() < image.max() <= 1
        assert target["labels"].tolist() == [1, 2], "0 is the background"
        assert max(abs(a - b) for a, b in zip(red(image), target["boxes"][0].tolist(), strict=True)) <= 1
        assert target["iscrowd"].tolist() == [0, 0]
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        torch.testing.assert_close(target["area"], sides.prod(1).as_subclass(torch.Tensor))


def test_grey_images_get_three_channels(tmp_path: Path) -> None:
    Image.new("L", (6, 4), 9).save(tmp_path / "grey.png")
    image, _ = read_annotated(tmp_path / "grey.png", 4, 6, torch.empty(0, 4))
    assert image.tolist() == [[[9] * 6] * 4] * 3


def turned(orientation: int, image: Image.Image) -> Image.Image:
    """Return the pixels that a file stores, which EXIF's orientation turns into this image."""
    kinds = Image.Transpose
    back = (None, None, kinds.FLIP_LEFT_RIGHT, kinds.ROTATE_180, kinds.FLIP_TOP_BOTTOM, kinds.TRANSPOSE)
    back += (kinds.ROTATE_90, kinds.TRANSVERSE, kinds.ROTATE_270)
    return image if orientation == 1 else image.transpose(back[orientation])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_on_stored_pixels_are_turned_with_the_image(tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (40, 24), (128, 128, 128))
    upright.paste((220, 30, 30), (5, 2, 21, 10))
    stored, exif = turned(orientation, upright), Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    corners = torch.tensor([red(functional.pil_to_tensor(stored) / 255)], dtype=torch.float32)
    image, boxes = read_annotated(tmp_path / "a.png", stored.height, stored.width, corners)
    assert torch.equal(image, functional.pil_to_tensor(upright)) and boxes.tolist() == [[5, 2, 21, 10]]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_on_the_turned_image_stay(tmp_path: Path, orientation: int) -> None:
    """Some programs annotate what viewers show; the size of the annotation tells."""
    upright, exif = Image.new("RGB", (40, 24)), Image.Exif()
    exif[0x0112] = orientation
    turned(orientation, upright).save(tmp_path / "a.png", exif=exif)
    image, boxes = read_annotated(tmp_path / "a.png", 24, 40, torch.tensor([[5.0, 2, 21, 10]]))
    assert image.shape == (3, 24, 40) and boxes.tolist() == [[5, 2, 21, 10]]
    with pytest.raises(DataError, match="must be 23x40, as its annotation says, got 24x40"):
        read_annotated(tmp_path / "a.png", 40, 23, boxes)


def test_a_turned_image_of_a_data_set(root: Path, images: DetectionAnnotations) -> None:
    before = DetectionDataset(images)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(root / "JPEGImages" / "train0.jpg") as image:
        image.save(root / "JPEGImages" / "train0.jpg", exif=exif, quality=95)
    after = DetectionDataset(images)[0]
    assert before is not None and after is not None
    assert after[0].shape == (3, 64, 48) and after[1]["boxes"].canvas_size == (64, 48)
    corners = after[1]["boxes"][0].tolist()
    assert max(abs(a - b) for a, b in zip(red(after[0]), corners, strict=True)) <= 1
    assert torch.equal(after[1]["area"], before[1]["area"])


def test_boxes_follow_their_images(images: DetectionAnnotations) -> None:
    flips = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()])
    items = RepeatedDetectionDataset(images, 16, flips)
    sides = set()
    for index in range(16):
        image, target = items[index]
        assert type(target["boxes"]) is torch.Tensor and target.keys() == {"boxes", "labels"}
        corners = target["boxes"][target["labels"] == 1][0].tolist()
        assert max(abs(a - b) for a, b in zip(red(image), corners, strict=True)) <= 1
        sides.add(corners[0] > 32)
    assert sides == {True, False}, "some are mirrored"


def test_each_epoch_has_each_image_in_another_order(images: DetectionAnnotations) -> None:
    items = RepeatedDetectionDataset(images, 40, PLAIN)
    firsts = [tuple(items[index][1]["boxes"][0].tolist()) for index in range(40)]
    epochs = [firsts[begin : begin + 4] for begin in range(0, 40, 4)]
    assert all(len(set(epoch)) == 4 and set(epoch) == set(epochs[0]) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 3


def test_an_item_is_the_same_whenever_it_is_made(images: DetectionAnnotations) -> None:
    flips = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.5)])
    forward, backward = (RepeatedDetectionDataset(images, 12, flips, seed=3) for _ in range(2))
    made = {index: forward[index] for index in range(12)}
    torch.rand(5)
    state = torch.get_rng_state()
    for index in reversed(range(12)):
        image, target = backward[index]
        assert torch.equal(image, made[index][0]) and torch.equal(target["boxes"], made[index][1]["boxes"])
    assert torch.equal(torch.get_rng_state(), state), "nobody else's random numbers are used"
    other = RepeatedDetectionDataset(images, 12, flips, seed=4)
    assert any(not torch.equal(other[index][0], made[index][0]) for index in range(12))


def test_crowds_and_images_without_objects_are_not_trained_with(root: Path) -> None:
    (root / "Annotations" / "train0.xml").write_text(voc_xml("train0", []))
    crowd = (root / "Annotations" / "train1.xml").read_text().replace("<difficult>0", "<difficult>1", 1)
    (root / "Annotations" / "train1.xml").write_text(crowd)
    items = RepeatedDetectionDataset(layouts.load(root, "train", CLASSES), 3, PLAIN)
    assert sorted(len(items[index][1]["labels"]) for index in range(3)) == [1, 2, 2]


def test_nothing_to_train_with(root: Path) -> None:
    for file in (root / "Annotations").iterdir():
        file.write_text(voc_xml(file.stem, []))
    with pytest.raises(DataError, match="cells: an image with an object is required for training, got none"):
        RepeatedDetectionDataset(layouts.load(root, "train", CLASSES), 3, PLAIN)


# --- broken images ----------------------------------------------------------------------------------------------


def test_a_truncated_image_stops(root: Path, images: DetectionAnnotations) -> None:
    file = truncate(root / "JPEGImages" / "train2.jpg")
    with pytest.raises(DataError) as caught:
        DetectionDataset(images)[2]
    assert str(caught.value).startswith(f"{file} is a broken image: ") and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="train2.jpg is a broken image"):
        [RepeatedDetectionDataset(images, 4, PLAIN)[index] for index in range(4)]


def test_a_truncated_image_is_skipped(
    root: Path, images: DetectionAnnotations, caplog: pytest.LogCaptureFixture
) -> None:
    file = truncate(root / "JPEGImages" / "train2.jpg")
    with caplog.at_level(logging.WARNING):
        items = DetectionDataset(images, "skip")
        assert [items[index] is None for index in range(4)] == [False, False, True, False]
    [line] = caplog.messages
    assert line.startswith(f"{file} is a broken image: ") and line.endswith("; skipped")
    repeated = RepeatedDetectionDataset(images, 8, PLAIN, "skip")
    assert len({repeated[index][0].sum().item() for index in range(8)}) == 3


def test_all_images_are_broken(root: Path, images: DetectionAnnotations) -> None:
    for file in (root / "JPEGImages").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="cells: none of its images can be read"):
        RepeatedDetectionDataset(images, 4, PLAIN, "skip")[0]


def test_an_image_that_went_missing_or_has_another_size(root: Path, images: DetectionAnnotations) -> None:
    file = root / "JPEGImages" / "train0.jpg"
    Image.new("RGB", (32, 48)).save(file)
    with pytest.raises(DataError, match="train0.jpg must be 64x48, as its annotation says, got 32x48"):
        DetectionDataset(images)[0]
    file.unlink()
    with pytest.raises(DataError, match="train0.jpg: cannot be read: No such file"):
        DetectionDataset(images)[0]


def test_wrong_use(images: DetectionAnnotations) -> None:
    with pytest.raises(ValueError, match="on_bad_image must be 'stop' or 'skip', got 'perhaps'"):
        DetectionDataset(images, "perhaps")
