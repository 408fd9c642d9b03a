"""Images with annotated boxes, whatever their source, and the checks of every box."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddfnet.arguments import check_choice
from ddfnet.errors import DataError

_log = logging.getLogger(__name__)
_LARGEST = 2**31 - 1  # pixels per side
_SLACK = 1.0  # pixels that a box may lie outside the image: annotations are rounded, or counted from 1


class Box(NamedTuple):
    """One annotated object: x0, y0, x1, y1 in pixels, from the top-left corner of the image."""

    corners: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None  # area of the object's mask, where it is known; else of the box


class Boxes(NamedTuple):
    """Objects of one image: corners (n, 4), labels (n,) from 0 on, crowds (n,), areas (n,) in pixels."""

    corners: Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor


@dataclass(frozen=True)
class DetectionAnnotations:
    """Image files and their boxes, in a few tensors.

    Args:
        name: name of the data in results.
        files: image files.
        sizes: (N, 2), height and width in pixels.
        offsets: (N + 1,), the first box of each image within ``boxes``.
        boxes: the objects of all images.
        classes: the name of each label.
        origin: source of the data, as a sentence for readers of a result.
        left_out: number of bad boxes that were left out, or clipped to the image.
    """

    name: str
    files: tuple[Path, ...]
    sizes: Tensor
    offsets: Tensor
    boxes: Boxes
    classes: tuple[str, ...]
    origin: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def objects(self, index: int) -> Boxes:
        """Return the objects of an image."""
        begin, end = self.offsets[index : index + 2].tolist()
        return Boxes(*(each[begin:end] for each in self.boxes))

    def with_objects(self) -> list[int]:
        """Return the indices of the images for training: those with at least one object that is no crowd."""
        owners = torch.repeat_interleave(torch.arange(len(self)), self.offsets.diff())
        indices: list[int] = owners[~self.boxes.crowd].unique().tolist()
        return indices


class AnnotationBuilder:
    """Builder of `DetectionAnnotations` that checks each box.

    Args:
        classes: the name of each label.
        on_bad_box: at a box without area, or outside its image by more than a pixel: ``"stop"`` refuses the whole set,
            ``"skip"`` leaves the box out, or clips it to the image if part of it is inside.

    Raises:
        ValueError: another ``on_bad_box``.
    """

    def __init__(self, classes: Sequence[str], on_bad_box: str = "stop") -> None:
        check_choice("on_bad_box", on_bad_box, ("stop", "skip"))
        self.classes, self.skip = tuple(classes), on_bad_box == "skip"
        self.files: list[Path] = []
        self.sizes: list[tuple[int, int]] = []
        self.offsets = [0]
        self.corners: list[tuple[float, ...]] = []
        self.others: list[tuple[int, bool, float]] = []
        self.left_out = 0

    def add(self, file: Path, height: int, width: int, boxes: Sequence[Box], source: str) -> None:
        """Add an image and its boxes; ``source`` names their file in messages.

        Raises:
            DataError: the image has no size, or a box is bad and ``on_bad_box`` is ``"stop"``.
        """
        if not (1 <= height <= _LARGEST and 1 <= width <= _LARGEST):
            raise DataError(f"{source}: {file.name} must have 1 to {_LARGEST} pixels per side, got {width}x{height}")
        for box in boxes:
            corners = self._check(box, height, width, file, source)
            if corners is not None:
                x0, y0, x1, y1 = corners
                self.corners.append(corners)
                self.others.append((box.label, box.crowd, (x1 - x0) * (y1 - y0) if box.area is None else box.area))
        self.files.append(file)
        self.sizes.append((height, width))
        self.offsets.append(len(self.corners))

    def _check(self, box: Box, height: int, width: int, file: Path, source: str) -> tuple[float, ...] | None:
        """Return the box clipped to the image, or None."""
        x0, y0, x1, y1 = box.corners
        inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        flaw = None
        if not (x0 < x1 and y0 < y1):  # so is nan
            flaw = "has no area"
        elif max(abs(a - b) for a, b in zip(box.corners, inside, strict=True)) > _SLACK:
            flaw = "lies outside the image"
        empty = not (inside[0] < inside[2] and inside[1] < inside[3])
        if flaw is None and not empty:
            return inside
        flaw = flaw or "lies outside the image"
        if not self.skip:
            numbers = ", ".join(f"{value:g}" for value in box.corners)
            raise DataError(
                f"{source}: a box of {self.classes[box.label]} in {file.name} ({width}x{height}) {flaw}: {numbers}; "
                "mend it, or let on_bad_box be skip"
            )
        self.left_out += 1
        return None if empty or flaw == "has no area" else inside

    def build(self, name: str, origin: str) -> DetectionAnnotations:
        """Return all images and boxes; the logger ``ddfnet.data.detection.annotations`` warns of bad boxes.

        Raises:
            DataError: there is no image.
        """
        if not self.files:
            raise DataError(f"{name}: one image or more is required, got none")
        if self.left_out:
            _log.warning("%s: bad boxes that are left out, or clipped to their image: %d", name, self.left_out)
        labels, crowd, area = zip(*self.others, strict=True) if self.others else ((), (), ())
        return DetectionAnnotations(
            name=name,
            files=tuple(self.files),
            sizes=torch.tensor(self.sizes),
            offsets=torch.tensor(self.offsets),
            boxes=Boxes(
                torch.tensor(self.corners, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(labels, dtype=torch.int64),
                torch.tensor(crowd, dtype=torch.bool),
                torch.tensor(area, dtype=torch.float32),
            ),
            classes=self.classes,
            origin=origin,
            left_out=self.left_out,
        )


def label_index(name: str, classes: Sequence[str], source: str) -> int:
    """Return the label of a class name, from 0 on.

    Raises:
        DataError: it is none of the classes.
    """
    if name not in classes:
        shown = ", ".join(classes[:4]) + (f" and {len(classes) - 4} more" if len(classes) > 4 else "")
        raise DataError(f"{source}: the class {name!r} is none of {shown}; mend it, or name it among the classes")
    return classes.index(name)
