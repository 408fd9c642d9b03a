"""Pictures with boxes: what every source of them gives, and the checks that none of it passes by."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ddfnet.data.classification.images import check_on_bad
from ddfnet.errors import DataError

_log = logging.getLogger(__name__)
_SLACK = 1.0  # pixels that a box may lie outside, for what is rounded or counted from 1


class Box(NamedTuple):
    """One object, as its source has it: x0, y0, x1, y1 in pixels, from the picture's left upper corner."""

    corners: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None  # of the object itself, where it is known; else the box's


class Boxes(NamedTuple):
    """The objects of one picture: corners (n, 4), labels (n,) from 0 on, crowds (n,), areas (n,) in pixels."""

    corners: Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor


@dataclass(frozen=True)
class BoxedPictures:
    """Pictures, which are read when they are asked for, and their boxes, all in a few tensors.

    Args:
        name: what they are called in results.
        files: of the pictures.
        sizes: (N, 2), height and width in pixels.
        first: (N + 1,), where the boxes of each picture begin in the rest.
        boxes: the objects of all the pictures.
        classes: the name of each label.
        origin: where they come from, as a sentence for whoever reads a result.
        left_out: boxes that were bad and left out, or cut to the picture.
    """

    name: str
    files: tuple[Path, ...]
    sizes: Tensor
    first: Tensor
    boxes: Boxes
    classes: tuple[str, ...]
    origin: str
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.files)

    def of(self, index: int) -> Boxes:
        """The objects of a picture."""
        begin, end = self.first[index : index + 2].tolist()
        return Boxes(*(each[begin:end] for each in self.boxes))

    def with_objects(self) -> list[int]:
        """The pictures with at least one object that is no crowd: those that training uses."""
        owners = torch.repeat_interleave(torch.arange(len(self)), self.first.diff())
        indices: list[int] = owners[~self.boxes.crowd].unique().tolist()
        return indices


class Collector:
    """Gathers pictures and their boxes, and judges each box.

    Args:
        classes: the name of each label.
        on_bad_box: what becomes of a box that has no area, or lies outside its picture by more than a pixel: ``"stop"``
            refuses the whole set, ``"skip"`` leaves the box out, or cuts it to the picture if part of it is inside.

    Raises:
        ValueError: another ``on_bad_box``.
    """

    def __init__(self, classes: Sequence[str], on_bad_box: str = "stop") -> None:
        check_on_bad("on_bad_box", on_bad_box)
        self.classes, self.skip = tuple(classes), on_bad_box == "skip"
        self.files: list[Path] = []
        self.sizes: list[tuple[int, int]] = []
        self.first = [0]
        self.corners: list[tuple[float, ...]] = []
        self.others: list[tuple[int, bool, float]] = []
        self.left_out = 0

    def add(self, file: Path, height: int, width: int, boxes: Sequence[Box], source: str) -> None:
        """Take a picture and its boxes; ``source`` says in messages where they are written.

        Raises:
            DataError: the picture has no size, or a box is bad and ``on_bad_box`` is ``"stop"``.
        """
        if height < 1 or width < 1:
            raise DataError(f"{source}: {file.name} must have a size, got {width}x{height}")
        for box in boxes:
            corners = self._judge(box, height, width, file, source)
            if corners is not None:
                x0, y0, x1, y1 = corners
                self.corners.append(corners)
                self.others.append((box.label, box.crowd, (x1 - x0) * (y1 - y0) if box.area is None else box.area))
        self.files.append(file)
        self.sizes.append((height, width))
        self.first.append(len(self.corners))

    def _judge(self, box: Box, height: int, width: int, file: Path, source: str) -> tuple[float, ...] | None:
        """The box within the picture, or nothing."""
        x0, y0, x1, y1 = box.corners
        inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        flaw = None
        if not (x0 < x1 and y0 < y1):  # nan too
            flaw = "has no area"
        elif max(abs(a - b) for a, b in zip(box.corners, inside, strict=True)) > _SLACK:
            flaw = "lies outside the picture"
        empty = not (inside[0] < inside[2] and inside[1] < inside[3])
        if flaw is None and not empty:
            return inside
        flaw = flaw or "lies outside the picture"
        if not self.skip:
            numbers = ", ".join(f"{value:g}" for value in box.corners)
            raise DataError(
                f"{source}: a box of {self.classes[box.label]} in {file.name} ({width}x{height}) {flaw}: {numbers}; "
                "mend it, or let on_bad_box be skip"
            )
        self.left_out += 1
        return None if empty or flaw == "has no area" else inside

    def done(self, name: str, origin: str) -> BoxedPictures:
        """All of it; a warning of the logger ``ddfnet.data.detection.annotations`` says how many boxes were bad.

        Raises:
            DataError: there is no picture.
        """
        if not self.files:
            raise DataError(f"{name}: one picture or more is required, got none")
        if self.left_out:
            _log.warning("%s: bad boxes that are left out, or cut to their picture: %d", name, self.left_out)
        labels, crowd, area = zip(*self.others, strict=True) if self.others else ((), (), ())
        return BoxedPictures(
            name=name,
            files=tuple(self.files),
            sizes=torch.tensor(self.sizes),
            first=torch.tensor(self.first),
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


def load(
    root: str | Path, part: str, classes: Sequence[str] | None = None, *, on_bad_box: str = "stop"
) -> BoxedPictures:
    """A part of a folder of pictures with boxes, in the layout of Pascal VOC or of COCO, whichever the folder has.

    Args:
        root: with ``Annotations``, ``JPEGImages`` and ``ImageSets/Main/PART.txt``, see `ddfnet.data.detection.voc.load`; or with
            ``annotations/instances_PART.json`` or ``PART/_annotations.coco.json``, see `ddfnet.data.detection.coco.load_part`.
        part: such as ``"train"`` or ``"val2017"``.
        classes: the names that the labels stand for, in their order; None for those of the data.
        on_bad_box: see `Collector`.

    Returns:
        The pictures and their boxes.

    Raises:
        DataError: what is missing, broken, or has a class that is not among ``classes``.
    """
    from ddfnet.data.detection import coco, voc

    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if not any(root.iterdir()):
        raise DataError(f"{root}: pictures with boxes are required in it, got an empty folder")
    if (root / "Annotations").is_dir():
        return voc.load(root, part, classes, on_bad_box=on_bad_box)
    return coco.load_part(root, part, classes, on_bad_box=on_bad_box)


def label_of(name: str, classes: Sequence[str], source: str) -> int:
    """The label of a class name, from 0 on.

    Raises:
        DataError: it is none of the classes.
    """
    if name not in classes:
        shown = ", ".join(classes[:4]) + (f" and {len(classes) - 4} more" if len(classes) > 4 else "")
        raise DataError(f"{source}: the class {name!r} is none of {shown}; mend it, or name it among the classes")
    return classes.index(name)
