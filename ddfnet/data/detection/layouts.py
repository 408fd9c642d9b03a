"""Registry of folder layouts for images with boxes, and loading by whichever layout a folder has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ddfnet.data.detection import coco, voc
from ddfnet.data.detection.annotations import DetectionAnnotations
from ddfnet.errors import DataError


class LayoutLoader(Protocol):
    """A function that loads a part of a folder, see `load`."""

    def __call__(
        self, root: Path, part: str, classes: Sequence[str] | None, *, on_bad_box: str
    ) -> DetectionAnnotations: ...


LAYOUTS: dict[str, tuple[Callable[[Path], bool], LayoutLoader]] = {
    "Pascal VOC": (lambda root: (root / "Annotations").is_dir(), voc.load),
    "COCO": (lambda root: True, coco.load_part),
}
"""Recognition of a folder and its loader, by the name of the layout; COCO, the last, is for every other folder."""


def register_layout(name: str, recognise: Callable[[Path], bool], loader: LayoutLoader) -> None:
    """Add a layout; it is asked before those that are there."""
    others = dict(LAYOUTS)
    LAYOUTS.clear()
    LAYOUTS.update({name: (recognise, loader), **others})


def load(
    root: str | Path, part: str, classes: Sequence[str] | None = None, *, on_bad_box: str = "stop"
) -> DetectionAnnotations:
    """Load a part of a folder of images with boxes, in any of `LAYOUTS`.

    Args:
        root: with ``Annotations``, ``JPEGImages`` and ``ImageSets/Main/PART.txt``, see
            `ddfnet.data.detection.voc.load`; or with ``annotations/instances_PART.json`` or
            ``PART/_annotations.coco.json``, see `ddfnet.data.detection.coco.load_part`.
        part: such as ``"train"`` or ``"val2017"``.
        classes: the class names in the order of their labels; None for those of the data.
        on_bad_box: see `ddfnet.data.detection.annotations.AnnotationBuilder`.

    Returns:
        The images and their boxes.

    Raises:
        DataError: data is missing or broken, or has a class that is not among ``classes``.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if not any(root.iterdir()):
        raise DataError(f"{root}: images with boxes are required in it, got an empty folder")
    loader = next(loader for recognise, loader in LAYOUTS.values() if recognise(root))
    return loader(root, part, classes, on_bad_box=on_bad_box)
