"""Folders of small images with boxes, as the tests of detection need them: coloured squares on grey."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("red", "blue")
_COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}
Objects = list[tuple[str, tuple[int, int, int, int]]]


def draw_images(count: int, *, height: int = 48, width: int = 64, seed: int = 0) -> list[tuple[np.ndarray, Objects]]:
    """Draw images (H, W, 3), uint8, each with one square per colour, and return the corners x0, y0, x1, y1."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        image = np.full((height, width, 3), 128, np.uint8)
        objects: Objects = []
        for half, name in enumerate(CLASSES):  # one on each side, so that none is hidden
            side = int(random.integers(10, 18))
            x = int(random.integers(0, width // 2 - side)) + half * width // 2
            y = int(random.integers(0, height - side))
            image[y : y + side, x : x + side] = _COLOURS[name]
            objects.append((name, (x, y, x + side, y + side)))
        made.append((image, objects))
    return made


def voc_xml(name: str, objects: Sequence[Any], *, height: int = 48, width: int = 64, extra: str = "") -> str:
    """Write an annotation; corners are counted from 1 on."""
    items = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><bndbox>"
        f"<xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for label, (x0, y0, x1, y1) in objects
    )
    return (
        f"<annotation><filename>{name}.jpg</filename><size><width>{width}</width><height>{height}</height>"
        f"<depth>3</depth></size>{items}{extra}</annotation>"
    )


def voc(root: Path, parts: dict[str, int]) -> Path:
    """Write a folder in the layout of Pascal VOC, with so many images in each part."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for seed, (part, count) in enumerate(parts.items()):
        names = [f"{part}{index}" for index in range(count)]
        (root / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for name, (image, objects) in zip(names, draw_images(count, seed=seed), strict=True):
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            written = [(label, (x0 + 1, y0 + 1, x1, y1)) for label, (x0, y0, x1, y1) in objects]
            (root / "Annotations" / f"{name}.xml").write_text(voc_xml(name, written))
    return root


def coco_content(count: int, seed: int = 0) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Make the content of a COCO file and its images; category ids begin at 7 and leave one out."""
    made = draw_images(count, seed=seed)
    categories = [{"id": 7, "name": "red"}, {"id": 9, "name": "blue"}]
    ids = {each["name"]: each["id"] for each in categories}
    images, annotations = [], []
    for index, (image, objects) in enumerate(made):
        images.append({"id": 100 + index, "file_name": f"{index}.png", "height": len(image), "width": 64})
        for label, (x0, y0, x1, y1) in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": 100 + index,
                    "category_id": ids[label],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations, "categories": categories}, [image for image, _ in made]


def coco(root: Path, parts: dict[str, int]) -> Path:
    """Write a folder in COCO's layout, with so many images in each part."""
    (root / "annotations").mkdir(parents=True)
    for seed, (part, count) in enumerate(parts.items()):
        content, made = coco_content(count, seed)
        (root / part).mkdir()
        for index, image in enumerate(made):
            Image.fromarray(image).save(root / part / f"{index}.png")
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


def truncate(file: Path) -> Path:
    """Cut off the last third of a file."""
    content = file.read_bytes()
    file.write_bytes(content[: 2 * len(content) // 3])
    return file
