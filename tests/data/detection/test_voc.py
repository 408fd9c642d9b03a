"""Pascal VOC's layout: what is read, and every way in which it can be broken."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("defusedxml")

from ddfnet.data.detection import voc
from ddfnet.errors import DataError
from tests.detection_folders import CLASSES, draw_images, voc_xml
from tests.detection_folders import voc as make


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "cells", {"train": 3, "test": 1})


def annotation(root: Path) -> Path:
    return root / "Annotations" / "train1.xml"


def fails(root: Path, part: str = "train", classes: tuple[str, ...] | None = CLASSES) -> str:
    with pytest.raises(DataError) as caught:
        voc.load(root, part, classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pixels_are_counted_from_one_on_and_the_last_is_included(root: Path) -> None:
    read = voc.load(root, "train", CLASSES)
    assert (read.name, len(read), read.classes) == ("cells", 3, CLASSES)
    for index, (image, objects) in enumerate(draw_images(3)):
        assert read.sizes[index].tolist() == list(image.shape[:2])
        assert read.objects(index).corners.tolist() == [list(corners) for _, corners in objects]
        assert read.objects(index).labels.tolist() == [CLASSES.index(name) for name, _ in objects]
        assert read.files[index] == root / "JPEGImages" / f"train{index}.jpg"


def test_the_classes_of_the_data(root: Path) -> None:
    assert voc.load(root, "train").classes == ("blue", "red")


def test_lists_may_have_a_flag_and_empty_lines(root: Path) -> None:
    (root / "ImageSets" / "Main" / "red_train.txt").write_text("train0  1\n\ntrain2 -1\n")
    assert [file.stem for file in voc.load(root, "red_train").files] == ["train0", "train2"]


@pytest.mark.parametrize("name", ["../train0", "/etc/hosts", "a/../../b"])
def test_a_name_outside_the_folder(root: Path, name: str) -> None:
    file = root / "ImageSets" / "Main" / "other.txt"
    file.write_text(f"{name}\n")
    assert fails(root, "other") == f"{file}: names of images within the folder are required, got {name!r}"


def test_a_name_longer_than_a_path_can_be(root: Path) -> None:
    text = annotation(root).read_text()
    annotation(root).write_text(text.replace("train1.jpg", "a" * 300 + ".jpg"))
    assert voc.load(root, "train").files[1] == root / "JPEGImages" / "train1.jpg"


def test_what_is_difficult_is_no_object(root: Path) -> None:
    text = annotation(root).read_text().replace("<difficult>0", "<difficult>1", 1)
    annotation(root).write_text(text)
    assert voc.load(root, "train").objects(1).crowd.tolist() == [True, False]


def test_the_image_is_that_of_the_xml_or_of_its_name(root: Path) -> None:
    (root / "JPEGImages" / "train1.jpg").rename(root / "JPEGImages" / "other.png")
    annotation(root).write_text(annotation(root).read_text().replace("train1.jpg", "some/folder/other.png"))
    assert voc.load(root, "train").files[1].name == "other.png"
    annotation(root).write_text(annotation(root).read_text().replace("some/folder/other.png", "../../secret.jpg"))
    assert fails(root) == (f"{annotation(root)}: its image {root / 'JPEGImages' / 'train1.jpg'} is missing")


def test_no_such_part(root: Path) -> None:
    file = root / "ImageSets" / "Main" / "val.txt"
    assert fails(root, "val") == f"{file}: no such part; the folder has test, train"
    file.write_text("\n")
    assert fails(root, "val") == f"{file}: one image name per line is required, got an empty file"
    file.write_text("train0\ntrain1\ntrain0\n")
    assert fails(root, "val") == f"{file}: train0 is named twice; name it once"


def test_no_annotation(root: Path) -> None:
    annotation(root).unlink()
    assert fails(root) == f"{annotation(root)}: no such file, though the list of the part has its name"


@pytest.mark.parametrize(
    "content", ["", "<annotation>", "no XML", "<a></b>", "<?xml version='1.0' encoding='x-no'?><a/>"]
)
def test_broken_xml(root: Path, content: str) -> None:
    annotation(root).write_text(content)
    assert fails(root).startswith(f"{annotation(root)} is no XML, or broken: ")


LAUGHS = "<!DOCTYPE annotation [<!ENTITY a 'ha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
OUTSIDE = "<!DOCTYPE annotation [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>"


@pytest.mark.parametrize("declaration", [LAUGHS, OUTSIDE])
def test_no_entity_is_expanded(root: Path, declaration: str) -> None:
    content = annotation(root).read_text().replace("<name>red", "<name>&a;")
    annotation(root).write_text(declaration + content)
    assert fails(root) == f"{annotation(root)} declares an entity or refers to another file, which is refused"


def test_an_unknown_class(root: Path) -> None:
    assert fails(root, classes=("red", "green")) == (
        f"{root / 'Annotations' / 'train0.xml'}: the class 'blue' is none of red, green; mend it, or name it among the "
        "classes"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<name>red</name>", "", "an object has no name"),
        ("<xmin>3</xmin>", "<xmin>left</xmin>", "bndbox xmin must be a number, got 'left'"),
        ("<xmin>3</xmin>", "<xmin>nan</xmin>", "bndbox xmin must be a number, got 'nan'"),
        ("<xmin>3</xmin>", "", "bndbox xmin must be a number, got None"),
        ("<width>64</width>", "", "size width must be a number, got None"),
        (
            "<width>64</width>",
            "<width>1e300</width>",
            f"train1.jpg must have 1 to 2147483647 pixels per side, got {int(1e300)}x48",
        ),
    ],
)
def test_something_is_missing(root: Path, old: str, new: str, message: str) -> None:
    text = voc_xml("train1", [("red", (3, 4, 20, 30))])
    annotation(root).write_text(text.replace(old, new))
    assert fails(root) == f"{annotation(root)}: {message}"


@pytest.mark.parametrize(
    ("corners", "flaw"),
    [((8, 9, 8, 9), "has no area: 8, 9, 8, 9"), ((8, 9, 80, 20), "lies outside the image: 7, 8, 80, 20")],
)
def test_a_bad_box_is_named(root: Path, corners: tuple[int, int, int, int], flaw: str) -> None:
    annotation(root).write_text(voc_xml("train1", [("red", corners)]))
    assert fails(root) == (
        f"{annotation(root)}: a box of red in train1.jpg (64x48) {flaw}; mend it, or let on_bad_box be skip"
    )
    assert voc.load(root, "train", CLASSES, on_bad_box="skip").left_out == 1
