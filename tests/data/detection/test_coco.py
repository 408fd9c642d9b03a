"""COCO's format: what is read, and every way in which it can be broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddfnet.data.detection import coco
from ddfnet.errors import DataError
from tests.detection_folders import CLASSES, coco_content, draw_images
from tests.detection_folders import coco as make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "coco", {"val": 3})


def file(root: Path) -> Path:
    return root / "annotations" / "instances_val.json"


def fails(root: Path, classes: tuple[str, ...] | None = CLASSES) -> str:
    with pytest.raises(DataError) as caught:
        coco.load_part(root, "val", classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change(root: Path, how: Callable[[dict[str, Any]], Any]) -> None:
    content, _ = coco_content(3)
    how(content)
    file(root).write_text(json.dumps(content))


def test_boxes_and_classes(root: Path) -> None:
    read = coco.load_part(root, "val")
    assert (read.classes, len(read), read.left_out) == (CLASSES, 3, 0)
    for index, (image, objects) in enumerate(draw_images(3)):
        assert read.sizes[index].tolist() == list(image.shape[:2])
        assert read.objects(index).corners.tolist() == [list(corners) for _, corners in objects]
        assert read.objects(index).labels.tolist() == [0, 1]
    assert read.files[0] == root / "val" / "0.png"


def test_the_names_of_the_classes_decide_and_not_their_ids(root: Path) -> None:
    read = coco.load_part(root, "val", ("green", "blue", "red"))
    assert read.objects(0).labels.tolist() == [2, 1]


def test_crowds_and_areas(root: Path) -> None:
    change(root, lambda content: content["annotations"][0].update(iscrowd=1, area=12.5))
    change_of_none = coco.load_part(root, "val").objects(0)
    assert (change_of_none.crowd.tolist(), change_of_none.area[0].item()) == ([True, False], 12.5)


def test_the_other_layouts(root: Path, tmp_path: Path) -> None:
    expected = coco.load_part(root, "val").boxes.corners
    (root / "images").mkdir()
    (root / "val").rename(root / "images" / "val")
    assert coco.load_part(root, "val").boxes.corners.equal(expected)
    (root / "images" / "val").rename(root / "val")
    file(root).rename(root / "val" / "_annotations.coco.json")
    assert coco.load_part(root, "val").boxes.corners.equal(expected)


def test_an_image_without_objects(root: Path) -> None:
    change(root, lambda content: content["annotations"].clear())
    assert coco.load_part(root, "val").with_objects() == []


def test_missing_images(root: Path) -> None:
    (root / "val" / "1.png").unlink()
    (root / "val" / "2.png").unlink()
    assert fails(root) == f"{file(root)}: 2 of its 3 images are missing in {root / 'val'}, such as 1.png"
    for rest in (root / "val").iterdir():
        rest.unlink()
    (root / "val").rmdir()
    assert fails(root) == (
        f"{file(root)}: its images are required in {root / 'val'} or {root / 'images' / 'val'}, there is neither"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\xff", b'{"images": [}', b"[" * 100_000])
def test_broken_json(root: Path, content: bytes) -> None:
    file(root).write_bytes(content)
    assert fails(root).startswith(f"{file(root)} is no JSON, or broken: ")


@pytest.mark.parametrize("content", ["[]", "{}", '{"images": [], "annotations": {}, "categories": []}'])
def test_json_of_something_else(root: Path, content: str) -> None:
    file(root).write_text(content)
    assert f"{file(root)}: lists by the names of images, annotations, categories are required" in fails(root)


def test_no_images(root: Path) -> None:
    file(root).write_text('{"images": [], "annotations": [], "categories": []}')
    assert fails(root) == "instances_val: one image or more is required, got none"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.json: no such file"):
        coco.load(tmp_path / "a.json", tmp_path)


def test_an_unknown_class(root: Path) -> None:
    assert fails(root, ("red",)) == (
        f"{file(root)}: annotation 1: the class 'blue' is none of red; mend it, or name it among the classes"
    )


@pytest.mark.parametrize(
    ("where", "values", "message"),
    [
        (("annotations", 1), {"category_id": 8}, "annotation 1 is of the category 8, which categories does not have"),
        (("annotations", 1), {"image_id": 5}, "an annotation is for the image 5, which images does not have"),
        (
            ("annotations", 1),
            {"bbox": [1, 2, 3]},
            "annotation 1 must have x, y, width and height for its bbox, got 3 values",
        ),
        (("annotations", 1), {"bbox": None}, "annotation 1 must have bbox, got None"),
        (
            ("annotations", 1),
            {"bbox": [1, 2, "3", 4]},
            "annotation 1 must have finite numbers for its bbox, got '3'",
        ),
        *(
            (("annotations", 1), {key: value}, f"annotation 1 must have finite numbers for its {key}, got {shown}")
            for number, shown in (
                (10**400, "1000"),
                (-(10**400), "-100"),
                (float("nan"), "nan"),
                (float("inf"), "inf"),
                (True, "True"),
                ("3", "'3'"),
                ([[1]], "[[1]]"),
            )
            for key, value in (("bbox", [1, 2, number, 4]), ("area", number))
        ),
        (("annotations", 1), {"iscrowd": "0"}, "annotation 1 must have 0 or 1 for its iscrowd, got '0'"),
        (("annotations", 1), {"iscrowd": 10**400}, "annotation 1 must have 0 or 1 for its iscrowd, got 1000"),
        (("annotations", 1), {"category_id": 10**400}, "annotation 1 is of the category 1000"),
        (("images", 2), {"file_name": "a" * 300}, "such as aaaa"),
        (("images", 2), {"file_name": "a\nb"}, "such as a b"),
        (("images", 2), {"height": 10**400}, "image 2 must have finite numbers for its height, got 1000"),
        (("images", 2), {"height": 1e300}, "must have 1 to 2147483647 pixels per side, got 64x1000"),
        (("images", 2), {"height": 0.5}, "must have 1 to 2147483647 pixels per side, got 64x0"),
        (("images", 2), {"height": -5}, "must have 1 to 2147483647 pixels per side, got 64x-5"),
        (("images", 2), {"height": True}, "image 2 must have height, got True"),
        (("images", 2), {"file_name": None}, "image 2 must have file_name, got None"),
        (("images", 2), {"file_name": "../a.png"}, "image 2 must have a file_name within the folder of images"),
        (("images", 2), {"file_name": "/etc/a.png"}, "image 2 must have a file_name within the folder of images"),
        (("images", 2), {"height": float("inf")}, "image 2 must have finite numbers for its "),
        (("images", 2), {"width": float("nan")}, "image 2 must have finite numbers for its "),
        (("images", 2), {"height": "tall"}, "image 2 must have height, got 'tall'"),
        (("images", 2), {"id": 100}, "each image must have an id of its own, some have the same"),
        (("categories", 0), {"name": 3}, " must have name, got 3"),
        (
            ("annotations", 1),
            {"bbox": [5, 6, 0, 9]},
            "a box of blue in 0.png (64x48) has no area: 5, 6, 5, 15; mend it, or let on_bad_box be skip",
        ),
        (
            ("annotations", 1),
            {"bbox": [60, 6, 9, 9]},
            "a box of blue in 0.png (64x48) lies outside the image: 60, 6, 69, 15; mend it, or let on_bad_box",
        ),
    ],
)
def test_something_is_wrong(root: Path, where: tuple[str, int], values: dict[str, Any], message: str) -> None:
    change(root, lambda content: content[where[0]][where[1]].update(values))
    line = fails(root)
    assert line.startswith(str(file(root))) and message in line


def test_items_of_another_kind(root: Path) -> None:
    change(root, lambda content: content["annotations"].insert(0, 5))
    assert fails(root) == f"{file(root)}: annotation 0 must have category_id, got None"
