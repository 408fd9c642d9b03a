"""Boxes of images: what is judged of them, and which reader a folder gets."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("defusedxml")

import torch

from ddfnet.data.detection import layouts
from ddfnet.data.detection.annotations import AnnotationBuilder, Box, DetectionAnnotations
from ddfnet.errors import DataError
from tests import detection_folders

CORNERS = (1.0, 2.0, 5.0, 8.0)


def collected(*each: Box, on_bad_box: str = "stop") -> DetectionAnnotations:
    builder = AnnotationBuilder(("cat", "dog"), on_bad_box)
    builder.add(Path("a.jpg"), 10, 20, each, "a.xml")
    return builder.build("set", "Made up.")


def test_each_image_has_its_own() -> None:
    builder = AnnotationBuilder(("cat", "dog"))
    builder.add(Path("a.jpg"), 10, 20, [Box(CORNERS, 1), Box((0, 0, 20, 10), 0, True, 55.0)], "a.xml")
    builder.add(Path("b.jpg"), 30, 40, [], "b.xml")
    builder.add(Path("c.jpg"), 50, 60, [Box(CORNERS, 0)], "c.xml")
    images = builder.build("set", "Made up.")
    assert len(images) == 3 and images.sizes.tolist() == [[10, 20], [30, 40], [50, 60]]
    first, second, third = (images.objects(index) for index in range(3))
    assert first.corners.tolist() == [list(CORNERS), [0, 0, 20, 10]]
    assert (first.labels.tolist(), first.crowd.tolist(), first.area.tolist()) == ([1, 0], [False, True], [24.0, 55.0])
    assert second.corners.shape == (0, 4) and second.labels.dtype == torch.int64
    assert third.labels.tolist() == [0]
    assert images.with_objects() == [0, 2]
    assert images.left_out == 0


def test_crowds_alone_are_no_objects() -> None:
    assert collected(Box(CORNERS, 0, True)).with_objects() == []


@pytest.mark.parametrize(
    ("corners", "flaw"),
    [
        ((5.0, 2.0, 5.0, 8.0), "has no area: 5, 2, 5, 8"),
        ((1.0, 8.0, 5.0, 2.0), "has no area: 1, 8, 5, 2"),
        ((float("nan"), 2.0, 5.0, 8.0), "has no area: nan, 2, 5, 8"),
        ((-3.0, 2.0, 5.0, 8.0), "lies outside the image: -3, 2, 5, 8"),
        ((1.0, 2.0, 22.5, 8.0), "lies outside the image: 1, 2, 22.5, 8"),
        ((30.0, 2.0, 35.0, 8.0), "lies outside the image: 30, 2, 35, 8"),
        ((20.0, 2.0, 20.5, 8.0), "lies outside the image: 20, 2, 20.5, 8"),
    ],
)
def test_a_bad_box_stops_or_is_left_out(corners: tuple[float, float, float, float], flaw: str) -> None:
    with pytest.raises(DataError) as caught:
        collected(Box(CORNERS, 0), Box(corners, 1))
    assert str(caught.value) == (f"a.xml: a box of dog in a.jpg (20x10) {flaw}; mend it, or let on_bad_box be skip")
    images = collected(Box(CORNERS, 0), Box(corners, 1), on_bad_box="skip")
    kept = images.objects(0).corners.tolist()
    assert images.left_out == 1 and kept[0] == list(CORNERS)
    inside = {(-3.0, 2.0, 5.0, 8.0): [0, 2, 5, 8], (1.0, 2.0, 22.5, 8.0): [1, 2, 20, 8]}.get(corners)
    assert kept[1:] == ([inside] if inside else [])


def test_what_is_rounded_is_cut_in_silence() -> None:
    images = collected(Box((-1.0, -0.5, 20.75, 11.0), 0))
    assert images.objects(0).corners.tolist() == [[0, 0, 20, 10]]
    assert images.left_out == 0


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="on_bad_box must be 'stop' or 'skip', got 'perhaps'"):
        AnnotationBuilder(("cat",), "perhaps")
    with pytest.raises(DataError, match="set: one image or more is required, got none"):
        AnnotationBuilder(("cat",)).build("set", "")
    with pytest.raises(DataError, match=r"a.xml: a.jpg must have 1 to 2147483647 pixels per side, got 0x10"):
        AnnotationBuilder(("cat",)).add(Path("a.jpg"), 10, 0, [], "a.xml")


def test_either_layout(tmp_path: Path) -> None:
    voc = layouts.load(detection_folders.voc(tmp_path / "voc", {"val": 2}), "val")
    coco = layouts.load(detection_folders.coco(tmp_path / "coco", {"val": 2}), "val", detection_folders.CLASSES)
    assert (voc.classes, coco.classes) == (("blue", "red"), ("red", "blue"))
    assert torch.equal(voc.boxes.corners, coco.boxes.corners), "the same images"
    assert torch.equal(voc.boxes.labels, 1 - coco.boxes.labels)


def test_no_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing: no such folder"):
        layouts.load(tmp_path / "nothing", "val")
    with pytest.raises(DataError, match="images with boxes are required in it, got an empty folder"):
        layouts.load(tmp_path, "val")
    (tmp_path / "some.txt").touch()
    with pytest.raises(DataError) as caught:
        layouts.load(tmp_path, "val")
    assert str(caught.value) == (
        f"{tmp_path}: annotations/instances_val.json or val/_annotations.coco.json is required, got neither"
    )
