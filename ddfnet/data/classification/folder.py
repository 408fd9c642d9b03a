"""Images in a folder, with a sub-folder for each class, loaded into memory."""

from __future__ import annotations

from pathlib import Path

import torch

from ddfnet.data.classification.images import FolderImages, open_folder
from ddfnet.data.classification.splits import Split, Splits, stratified_split
from ddfnet.errors import DataError

_TEST_SHARE = 0.2


def load(folder: Path, *, size: int = 32) -> Splits:
    """Load the images of ``folder/train/CLASS`` and ``folder/test/CLASS`` (or ``val``), or all of ``folder/CLASS``.

    Every image is read now, scaled so that its shorter side has ``size`` pixels, and cropped to its central square. So
    a broken image is found before any training.

    Args:
        folder: with ``train`` and ``test`` or ``val``; or with the classes, and a fifth of each becomes the test split.
        size: height and width of the images.

    Returns:
        Colour images (N, 3, size, size).

    Raises:
        DataError: the folder is missing or empty, an image is broken, or a class is in the test part alone.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    test_folder = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if (folder / "train").is_dir():
        if test_folder is None:
            raise DataError(f"{folder} has train, but neither test nor val")
        train, classes = _read(open_folder(folder, None, training=True), size)
        test, _ = _read(open_folder(folder, test_folder.name, training=False), size)
        origin = f"The images of {folder.name}, with the folder's own test part ({test_folder.name})"
    else:
        everything, classes = _read(FolderImages(folder), size)
        try:
            train, test = stratified_split(everything, _TEST_SHARE)
        except ValueError as error:  # a class with a single image
            raise DataError(f"{folder}: too few images for a test part: {error}") from None
        origin = (
            f"The images of {folder.name}, of which {_TEST_SHARE:.0%} were set aside at random, the same in every "
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


def _read(source: FolderImages, size: int) -> tuple[Split, tuple[str, ...]]:
    from torchvision.transforms import v2

    shrink = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size), v2.PILToTensor()])
    images = torch.empty(len(source), 3, size, size, dtype=torch.uint8)
    labels = torch.empty(len(source), dtype=torch.int64)
    for index in range(len(source)):
        image, labels[index] = source[index]
        images[index] = shrink(image)
    return Split(images, labels), tuple(source.classes)
