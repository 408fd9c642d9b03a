"""A folder of one's own: a sub-folder of pictures for each class."""

from __future__ import annotations

from pathlib import Path

import torch

from ddfnet.data.classification.images import FolderPictures
from ddfnet.data.classification.splits import Labelled, Splits, split
from ddfnet.errors import DataError

_TEST_SHARE = 0.2


def load(folder: Path, *, size: int = 32) -> Splits:
    """Pictures from ``folder/train/CLASS`` and ``folder/test/CLASS`` (or ``val``), or all from ``folder/CLASS``.

    Every picture is read now, scaled so that its shorter side has ``size`` pixels, and cut to its central square, so
    that a broken one is found before anything is trained.

    Args:
        folder: with ``train`` and ``test`` or ``val``; or with the classes, of which a fifth then is the test part.
        size: pixels a side.

    Returns:
        Splits of colour pictures (N, 3, size, size).

    Raises:
        DataError: the folder is missing or empty, a picture is broken, or the parts have different classes.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    test_folder = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if (folder / "train").is_dir():
        if test_folder is None:
            raise DataError(f"{folder} has train, but neither test nor val")
        train, classes = _read(folder / "train", size)
        test, test_classes = _read(test_folder, size)
        if classes != test_classes:
            raise DataError(
                f"{folder}: train has the classes {_names(classes)}, {test_folder.name} {_names(test_classes)}"
            )
        origin = f"The pictures of {folder.name}, with the folder's own test part ({test_folder.name})"
    else:
        everything, classes = _read(folder, size)
        try:
            train, test = split(everything, _TEST_SHARE)
        except ValueError as error:  # a class with a single picture
            raise DataError(f"{folder}: too few pictures for a test part: {error}") from None
        origin = (
            f"The pictures of {folder.name}, of which {_TEST_SHARE:.0%} were set aside at random, the same in every "
            f"run, as the test part"
        )
    return Splits(
        name=folder.name,
        train=train,
        test=test,
        classes=classes,
        origin=f"{origin}; the shorter side scaled to {size} pixels and the middle cut out.",
        flip=True,
    )


def _names(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:4]) + (f" and {len(classes) - 4} more" if len(classes) > 4 else "")


def _read(folder: Path, size: int) -> tuple[Labelled, tuple[str, ...]]:
    from torchvision.transforms import v2

    pictures = FolderPictures(folder)
    shrink = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size), v2.PILToTensor()])
    images = torch.empty(len(pictures), 3, size, size, dtype=torch.uint8)
    labels = torch.empty(len(pictures), dtype=torch.int64)
    for index in range(len(pictures)):
        picture, labels[index] = pictures[index]
        images[index] = shrink(picture)
    return Labelled(images, labels), tuple(pictures.classes)
