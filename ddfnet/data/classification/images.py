"""Labelled images, read one by one: from folders, from torchvision's data sets, or from tensors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ddfnet.data.classification.splits import Split
from ddfnet.errors import DataError
from ddfnet.images import read_image, to_colour
from ddfnet.reading import reading

_TRAINING = ("train", "trainval")  # split names in data sets; the first that exists is taken
_VALIDATION = ("val", "test")


class LabelledImages(Protocol):
    """A sequence of images with labels; access to one that cannot be read raises a DataError with its name."""

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


class FolderImages:
    """Images of ``folder/CLASS``, sorted by name; other files are ignored.

    Raises:
        DataError: the folder is missing, has no classes, or has a class without images.
    """

    def __init__(self, folder: Path) -> None:
        from torchvision.datasets import ImageFolder

        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        try:
            listing = ImageFolder(str(folder), allow_empty=True)
        except FileNotFoundError:
            raise DataError(f"{folder} is empty; it must have a folder of images for each class") from None
        self.classes: Sequence[str] = listing.classes
        self.samples: list[tuple[str, int]] = listing.samples
        filled = {label for _, label in self.samples}
        if empty := [name for label, name in enumerate(self.classes) if label not in filled]:
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            raise DataError(
                f"{folder}: no images of the class {', '.join(empty[:3])}{more}; put some in, or remove its folder"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.samples[index]
        return read_image(file), label


class TensorImages:
    """Images (N, C, H, W) of a `Split`, grey or in colour."""

    def __init__(self, part: Split, classes: Sequence[str]) -> None:
        self.images = part.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.classes = part.labels.tolist(), classes
        if self.images.shape[3] == 1:
            self.images = self.images[..., 0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), self.labels[index]


class TorchvisionImages:
    """One split of a data set of ``torchvision.datasets``.

    Args:
        name: class name, such as ``"CIFAR100"`` or ``"Flowers102"``.
        root: torchvision's root; nothing is downloaded.
        part: name of the split; None for that of training or validation.
        training: for training, instead of validation.

    Raises:
        DataError: no such data set or split, or it is not in ``root``.
    """

    def __init__(self, name: str, root: Path, part: str | None, training: bool) -> None:
        self.name = name
        self.dataset = _torchvision(name, root, part, training)
        self.classes: Sequence[str] = getattr(self.dataset, "classes", ())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with reading(f"image {index} of {self.name}", broken=" is a broken image"):
            image, label = self.dataset[index]
            image = to_colour(image)
        return image, int(label)


def open_folder(path: Path, part: str | None, training: bool) -> FolderImages:
    """Open the images of ``path/train``; for validation those of ``path/val`` or ``path/test``, or of the named part.

    Raises:
        DataError: there is no such folder, or images are missing.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    names = (part,) if part is not None else ("train",) if training else _VALIDATION
    for name in names:
        if (path / name).is_dir():
            return FolderImages(path / name)
    raise DataError(f"{path} has no folder {' or '.join(names)}")


def has_torchvision(name: str) -> bool:
    """Return True for a class of ``torchvision.datasets`` with labelled images in splits."""
    from torchvision import datasets

    if name not in datasets.__all__:
        return False
    return bool({"train", "split"} & inspect.signature(getattr(datasets, name).__init__).parameters.keys())


def _torchvision(name: str, root: Path, part: str | None, training: bool) -> Any:
    from torchvision import datasets

    if not has_torchvision(name):
        raise DataError(f"a labelled set of torchvision.datasets is required, got {name!r}")
    known = getattr(datasets, name)
    options = inspect.signature(known.__init__).parameters
    reader = {"loader": read_image} if "loader" in options else {}
    if "train" in options:
        choices: list[dict[str, Any]] = [{"train": training}]
    else:
        names = (part,) if part is not None else _TRAINING if training else _VALIDATION
        choices = [{"split": each} for each in names]
    error: Exception | None = None
    for choice in choices:
        try:
            return known(root, **choice, **reader)
        except ValueError as unknown:  # the set has no split of this name
            error = error or unknown
        except (OSError, RuntimeError) as missing:
            raise DataError(f"{name}: {' '.join(str(missing).split())} ({root} is the root)") from None
    raise DataError(f"{name}: {' '.join(str(error).split())}")
