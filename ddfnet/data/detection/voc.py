"""Images with boxes in the layout of Pascal VOC: one XML file per image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddfnet.data.detection.annotations import AnnotationBuilder, Box, DetectionAnnotations, label_index
from ddfnet.errors import DataError

_EDGES = ("xmin", "ymin", "xmax", "ymax")


class _Annotation(NamedTuple):
    source: Path
    image: Path
    height: int
    width: int
    objects: list[tuple[str, Box]]  # without labels yet


def load(
    root: str | Path, part: str, classes: Sequence[str] | None = None, *, on_bad_box: str = "stop"
) -> DetectionAnnotations:
    """Load a part of a folder in the layout of Pascal VOC.

    The format counts pixels from 1 on and includes the last, so a box is x0 = xmin - 1 to x1 = xmax. A box whose xmax
    is not above its xmin is bad. An object marked difficult counts as a crowd: it is not trained with, and detecting it
    is neither right nor wrong. A file that declares an XML entity is refused.

    Args:
        root: with ``ImageSets/Main/PART.txt``, one name per line, and for each name ``Annotations/NAME.xml`` and
            ``JPEGImages/NAME.jpg``, or the file of JPEGImages that the XML names.
        part: such as ``"train"``.
        classes: the class names in the order of their labels; None for those of the part, sorted.
        on_bad_box: ``"stop"`` or ``"skip"``, see `AnnotationBuilder`.

    Returns:
        The images and their boxes.

    Raises:
        DataError: a folder, a list, an XML file or an image is missing or broken; a class is not among ``classes``; a
            box is bad and ``on_bad_box`` is ``"stop"``.
    """
    root = Path(root)
    annotations = [_read(root, name) for name in _names(root, part)]
    if classes is None:
        classes = sorted({name for each in annotations for name, _ in each.objects})
    builder = AnnotationBuilder(classes, on_bad_box)
    for each in annotations:
        boxes = [box._replace(label=label_index(name, classes, str(each.source))) for name, box in each.objects]
        builder.add(each.image, each.height, each.width, boxes, str(each.source))
    return builder.build(root.name, f"The part {part!r} of {root.name}, in the layout of Pascal VOC.")


def _names(root: Path, part: str) -> list[str]:
    lists = root / "ImageSets" / "Main"
    file = lists / f"{part}.txt"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))[:8]) or "none"
        raise DataError(f"{file}: no such part; the folder has {there}")
    try:
        names = [words[0] for line in file.read_text().splitlines() if (words := line.split())]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    if not names:
        raise DataError(f"{file}: one image name per line is required, got an empty file")
    if outside := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise DataError(f"{file}: names of images within the folder are required, got {outside[0]!r}")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file}: {twice} is named twice; name it once")
    return names


def _read(root: Path, name: str) -> _Annotation:
    from defusedxml import DefusedXmlException, ElementTree

    source = root / "Annotations" / f"{name}.xml"
    try:
        tree = ElementTree.parse(source).getroot()
    except FileNotFoundError:
        raise DataError(f"{source}: no such file, though the list of the part has its name") from None
    except DefusedXmlException:
        raise DataError(f"{source} declares an entity or refers to another file, which is refused") from None
    except (OSError, SyntaxError, LookupError, ValueError) as error:  # a broken file can raise all of these
        raise DataError(f"{source} is no XML, or broken: {error}") from None
    return _Annotation(
        source,
        _image(root / "JPEGImages", tree.findtext("filename"), name, source),
        int(_number(tree, "size/height", source)),
        int(_number(tree, "size/width", source)),
        [_object(each, source) for each in tree.iterfind("object")],
    )


def _image(folder: Path, named: str | None, name: str, source: Path) -> Path:
    # Some tools write a folder into the file name, others a wrong name.
    for candidate in (Path(named or "").name, f"{name}.jpg"):
        if candidate and os.path.isfile(folder / candidate):  # noqa: PTH113 (no error for any name)
            return folder / candidate
    raise DataError(f"{source}: its image {folder / f'{name}.jpg'} is missing")


def _object(element: Any, source: Path) -> tuple[str, Box]:
    name = (element.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{source}: an object has no name")
    x0, y0, x1, y1 = (_number(element, f"bndbox/{edge}", source) for edge in _EDGES)
    crowd = (element.findtext("difficult") or "0").strip() == "1"
    if not (x0 < x1 and y0 < y1):
        return name, Box((x0, y0, x0, y0), 0, crowd)  # no area, although pixels are counted from 1
    return name, Box((x0 - 1, y0 - 1, x1, y1), 0, crowd)


def _number(element: Any, path: str, source: Path) -> float:
    text = element.findtext(path)
    try:
        value = float(text)
        if value != value or abs(value) == float("inf"):
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(f"{source}: {path.replace('/', ' ')} must be a number, got {text!r}") from None
    return value
