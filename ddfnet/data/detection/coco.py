"""Images with boxes in COCO's format: one JSON file for all images."""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddfnet.data.detection.annotations import AnnotationBuilder, Box, DetectionAnnotations, label_index
from ddfnet.errors import DataError

_LISTS = ("images", "annotations", "categories")


def load(
    file: str | Path, folder: str | Path, classes: Sequence[str] | None = None, *, on_bad_box: str = "stop"
) -> DetectionAnnotations:
    """Load the images and boxes of a COCO file.

    Args:
        file: the JSON, with ``images`` (id, file_name, height, width), ``annotations`` (image_id, category_id, ``bbox``
            as x, y, width, height, and optionally area and iscrowd) and ``categories`` (id, name).
        folder: the folder that ``file_name`` is relative to.
        classes: the class names in the order of their labels; None for those of the file, by their id.
        on_bad_box: ``"stop"`` or ``"skip"``, see `AnnotationBuilder`. COCO itself has a few boxes without area.

    Returns:
        The images, in the file's order, and their boxes.

    Raises:
        DataError: the file is missing or broken; images are missing; an annotation names an unknown image or class; a
            box is bad and ``on_bad_box`` is ``"stop"``.
    """
    file, folder = Path(file), Path(folder)
    content = _read(file)
    if classes is None:
        classes = [str(_get(each, "name", str, file)) for each in sorted(content["categories"], key=_id_of(file))]
    builder = AnnotationBuilder(classes, on_bad_box)
    boxes = _boxes(content, classes, file)
    for number, image in enumerate(content["images"]):
        where = f"{file}: image {number}"
        path = Path(_get(image, "file_name", str, where))
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{where} must have a file_name within the folder of images, got {str(path)!r}")
        height, width = (int(_number(_get(image, key, (int, float), where), where, key)) for key in ("height", "width"))
        builder.add(folder / path, height, width, boxes.pop(image["id"], []), str(file))
    if boxes:
        raise DataError(f"{file}: an annotation is for the image {next(iter(boxes))!r}, which images does not have")
    if missing := [path for path in builder.files if not os.path.isfile(path)]:  # noqa: PTH113 (no error for any name)
        raise DataError(
            f"{file}: {len(missing)} of its {len(builder.files)} images are missing in {folder}, such as "
            f"{missing[0].name}"
        )
    return builder.build(file.stem, f"The images of {file.name}, in COCO's format.")


def load_part(
    root: str | Path, part: str, classes: Sequence[str] | None = None, *, on_bad_box: str = "stop"
) -> DetectionAnnotations:
    """Load a part of a folder in one of two layouts of COCO files.

    Args:
        root: with ``annotations/instances_PART.json`` and images in ``PART`` or ``images/PART``, as COCO has it; or
            with ``PART/_annotations.coco.json`` beside its images.
        part: such as ``"val2017"``.
        classes: see `load`.
        on_bad_box: see `load`.

    Returns:
        As for `load`.

    Raises:
        DataError: the folder has neither layout; as for `load`.
    """
    root = Path(root)
    inside = root / part / "_annotations.coco.json"
    if inside.is_file():
        return load(inside, inside.parent, classes, on_bad_box=on_bad_box)
    file = root / "annotations" / f"instances_{part}.json"
    if not file.is_file():
        raise DataError(f"{root}: {file.relative_to(root)} or {inside.relative_to(root)} is required, got neither")
    folders = (root / part, root / "images" / part)
    folder = next((each for each in folders if each.is_dir()), None)
    if folder is None:
        raise DataError(f"{file}: its images are required in {' or '.join(map(str, folders))}, there is neither")
    return load(file, folder, classes, on_bad_box=on_bad_box)


def _read(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{file}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON, or broken: {error}") from None
    for key in _LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{file}: lists by the names of {', '.join(_LISTS)} are required, {key} is none")
    return content


def _boxes(content: dict[str, list[Any]], classes: Sequence[str], file: Path) -> dict[Any, list[Box]]:
    """Return the boxes by the id of their image, without images that have none."""
    names = {_get(each, "id", int, file): _get(each, "name", str, file) for each in content["categories"]}
    _check_ids(content["images"], file)
    boxes: dict[Any, list[Box]] = defaultdict(list)
    for number, each in enumerate(content["annotations"]):
        where = f"{file}: annotation {number}"
        category = _get(each, "category_id", int, where)
        if category not in names:
            raise DataError(f"{where} is of the category {category}, which categories does not have")
        bbox = _get(each, "bbox", list, where)
        if len(bbox) != 4:
            raise DataError(f"{where} must have x, y, width and height for its bbox, got {len(bbox)} values")
        x, y, width, height = (_number(value, where, "bbox") for value in bbox)
        area, crowd = each.get("area"), each.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise DataError(f"{where} must have 0 or 1 for its iscrowd, got {reprlib.repr(crowd)}")
        boxes[_get(each, "image_id", (int, str), where)].append(
            Box(
                (x, y, x + width, y + height),
                label_index(names[category], classes, where),
                bool(crowd),
                None if area is None else _number(area, where, "area"),
            )
        )
    return boxes


def _check_ids(images: list[Any], file: Path) -> None:
    ids = [_get(each, "id", (int, str), f"{file}: image {number}") for number, each in enumerate(images)]
    if len(set(ids)) != len(ids):
        raise DataError(f"{file}: each image must have an id of its own, some have the same")


def _get(item: Any, key: str, kind: type | tuple[type, ...], where: object) -> Any:
    value = item.get(key) if isinstance(item, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where} must have {key}, got {reprlib.repr(value)}")
    return value


def _number(value: Any, where: str, key: str) -> float:
    """Return a number as a float; Python's JSON has NaN, Infinity, and integers that no float can hold."""
    try:
        number = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DataError(f"{where} must have finite numbers for its {key}, got {reprlib.repr(value)}")
    return number


def _id_of(file: Path) -> Any:
    return lambda category: _get(category, "id", int, file)
