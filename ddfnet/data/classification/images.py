"""Labelled images, read one by one: from folders, from torchvision's data sets, or from tensors."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ddfnet.data.classification.splits import Split
from ddfnet.data.hidden import is_hidden
from ddfnet.errors import DataError
from ddfnet.images import read_image, to_colour
from ddfnet.reading import reading

_TRAINING = ("train", "trainval")  # split names in data sets; the first that exists is taken
_VALIDATION = ("val", "test")

_log = logging.getLogger(__name__)


class LabelledImages(Protocol):
    """A sequence of images with labels; access to one that cannot be read raises a DataError with its name."""

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


class FolderImages:
    """Images of ``folder/CLASS``, sorted by name; other files are ignored, and hidden files and folders too.

    Args:
        folder: the folder.
        classes: the classes in the order of their labels, such as those of the training folder; None for the folder's
            own, sorted. Of a class that is named here there need not be an image.

    Raises:
        DataError: the folder is missing, has no classes, or has a class without images.
    """

    def __init__(self, folder: Path, classes: Sequence[str] | None = None) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        own = class_names(folder)
        if not own:
            raise DataError(f"{folder} is empty; it must have a folder of images for each class")
        self.classes: Sequence[str] = own if classes is None else classes
        self.samples = _listed(folder, self.classes)
        filled = {self.classes[label] for _, label in self.samples}
        if classes is None and (empty := [name for name in own if name not in filled]):
            raise DataError(
                f"{folder}: no images of the class {_some(empty)}; put some in, or remove its folder, from the parts "
                "for validation too"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.samples[index]
        return read_image(file), label


def class_names(folder: Path) -> list[str]:
    """Return the names of a folder's sub-folders, sorted, without hidden ones.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(Path(path.name)))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None


def _listed(folder: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Return the image files of the classes, with their labels."""
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    def is_image(file: str) -> bool:
        return file.lower().endswith(IMG_EXTENSIONS) and not is_hidden(Path(file).relative_to(folder))

    labels = {name: label for label, name in enumerate(classes)}
    samples: list[tuple[str, int]] = make_dataset(folder, labels, is_valid_file=is_image, allow_empty=True)
    return samples


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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


class RelabelledImages:
    """Images whose labels are those of other classes, by the same names.

    Args:
        images: images whose classes are among these.
        classes: the classes in the order of their labels.
    """

    def __init__(self, images: LabelledImages, classes: Sequence[str]) -> None:
        self.images, self.classes = images, classes
        self.labels = [classes.index(name) for name in images.classes]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.images[index]
        return image, self.labels[label]


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
        self.classes: Sequence[str] = [_joined(each) for each in getattr(self.dataset, "classes", ())]
        self._check_kind()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        with reading(f"image {index} of {self.name}", broken=" is a broken image"):
            image, label = self.dataset[index]
            return to_colour(image), int(label)

    def _check_kind(self) -> None:
        """Refuse a set of videos, of several images, or without one label per image."""
        if not len(self):
            raise DataError(f"{self.name}: labelled images are required, got none")
        try:
            first = self.dataset[0]
        except Exception:  # a broken image, which access reports
            return
        image, label = first if isinstance(first, tuple) and len(first) == 2 else (None, None)
        if not isinstance(image, Image.Image) or not isinstance(label, Integral):
            kinds = ", ".join(type(each).__name__ for each in first) if isinstance(first, tuple) else type(first)
            raise DataError(f"{self.name}: pairs of an image and the number of its class are required, got {kinds}")


def open_folder(path: Path, part: str | None, training: bool) -> FolderImages:
    """Open the images of ``path/train``; for validation those of ``path/val`` or ``path/test``, or of the named part.

    The labels are those of the training folder, if there is one: a class without images for validation keeps its label.

    Raises:
        DataError: there is no such folder, or images are missing; a class of the part is not in the training folder.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    names = (part,) if part is not None else ("train",) if training else _VALIDATION
    found = next((path / name for name in names if (path / name).is_dir()), None)
    if found is None:
        raise DataError(f"{path} has no folder {' or '.join(names)}")
    if training:
        return FolderImages(found)
    trained = path / "train" if (path / "train").is_dir() else found
    classes = class_names(trained)
    if unknown := [name for name in class_names(found) if name not in classes]:
        raise DataError(
            f"the class {_some(unknown)} is in {found}, and not in {trained}; put its images for training there, or "
            f"remove it from {found}"
        )
    images = FolderImages(found, classes)
    measured = {classes[label] for _, label in images.samples}
    if not measured:
        raise DataError(f"{found}: images of the classes of {trained} are required, got none")
    if missing := [name for name in classes if name not in measured]:
        _log.warning("%s: no images of the class %s, which is not measured", found, _some(missing))
    return images


def _joined(name: Any) -> str:
    """Return a class name as text; ImageNet has tuples of synonyms."""
    return name if isinstance(name, str) else ", ".join(map(str, name))


def has_torchvision(name: str) -> bool:
    """Return True for a class of ``torchvision.datasets`` in splits that a root alone opens."""
    from torchvision import datasets

    if name not in datasets.__all__:
        return False
    _, _, *others = inspect.signature(getattr(datasets, name).__init__).parameters.values()
    ready = all(
        each.default is not each.empty or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in others
    )
    return ready and bool({"train", "split"} & {each.name for each in others})


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
        except Exception as missing:  # files, or a package that reads them: the errors are of any type
            reason = " ".join(str(missing).split()) or type(missing).__name__
            raise DataError(f"{name}: {reason} ({root} is the root)") from None
    raise DataError(f"{name}: {' '.join(str(error).split())}")
