"""Labelled pictures, one by one: from folders, from torchvision's data sets, or from memory."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from PIL import Image

from ddfnet.data.classification.splits import Labelled
from ddfnet.errors import DataError

_TRAINING = ("train", "trainval")  # what data sets call their parts; the first that there is
_MEASURED = ("val", "test")
_ON_BAD = ("stop", "skip")


class Pictures(Protocol):
    """A sequence of pictures with labels; one that cannot be read is a DataError that names it."""

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


def read(source: Path | IO[bytes], name: str | Path) -> Image.Image:
    """A picture in colour, decoded to its last row.

    Args:
        source: a file, or its bytes.
        name: what it is called if it is broken.

    Raises:
        DataError: ``NAME: no such picture``, or ``NAME is a broken picture: why``.
    """
    try:
        with Image.open(source) as picture:
            return picture.convert("RGB")
    except FileNotFoundError:
        raise DataError(f"{name}: no such picture") from None
    # Pillow raises all of these for broken files, and the last for a header that claims an absurd size.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} is a broken picture: {' '.join(str(error).split())}") from None


def check_on_bad(name: str, value: str) -> None:
    """Refuse another choice than these of what becomes of what is bad."""
    if value not in _ON_BAD:
        raise ValueError(f"{name} must be {' or '.join(map(repr, _ON_BAD))}, got {value!r}")


class FolderPictures:
    """The pictures of ``folder/CLASS``, sorted by their names; files of other kinds are passed over.

    Raises:
        DataError: the folder is missing, has no classes, or has one without pictures.
    """

    def __init__(self, folder: Path) -> None:
        from torchvision.datasets import ImageFolder

        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        try:
            listing = ImageFolder(str(folder), allow_empty=True)
        except FileNotFoundError:
            raise DataError(f"{folder} is empty; it must have a folder of pictures for each class") from None
        self.classes: Sequence[str] = listing.classes
        self.samples: list[tuple[str, int]] = listing.samples
        filled = {label for _, label in self.samples}
        if empty := [name for label, name in enumerate(self.classes) if label not in filled]:
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            raise DataError(
                f"{folder}: no pictures of the class {', '.join(empty[:3])}{more}; put some in, or remove its folder"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        file, label = self.samples[index]
        return read(Path(file), file), label


class MemoryPictures:
    """Pictures (N, C, H, W), grey or in colour, of one part of a `Splits`."""

    def __init__(self, part: Labelled, classes: Sequence[str]) -> None:
        self.images = part.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels, self.classes = part.labels.tolist(), classes
        if self.images.shape[3] == 1:
            self.images = self.images[..., 0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), self.labels[index]


class TorchvisionPictures:
    """One part of a data set of ``torchvision.datasets``.

    Args:
        name: of the class, such as ``"CIFAR100"`` or ``"Flowers102"``.
        root: torchvision's root; nothing is downloaded.
        part: the split's name; None is the one to train on, or to measure on.
        training: which of the two.

    Raises:
        DataError: no such data set or part, or it is not in ``root``.
    """

    def __init__(self, name: str, root: Path, part: str | None, training: bool) -> None:
        self.name = name
        self.dataset = _torchvision(name, root, part, training)
        self.classes: Sequence[str] = getattr(self.dataset, "classes", ())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        try:
            picture, label = self.dataset[index]
            return picture.convert("RGB"), int(label)
        except (OSError, SyntaxError) as error:
            raise DataError(f"picture {index} of {self.name} is a broken picture: {error}") from None


def folder(path: Path, part: str | None, training: bool) -> FolderPictures:
    """The pictures of ``path/train``; or of ``path/val`` or ``path/test``, or of another part that is named.

    Raises:
        DataError: there is no such folder, or its pictures are wanting.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder")
    names = (part,) if part is not None else ("train",) if training else _MEASURED
    for name in names:
        if (path / name).is_dir():
            return FolderPictures(path / name)
    raise DataError(f"{path} has no folder {' or '.join(names)}")


def _torchvision(name: str, root: Path, part: str | None, training: bool) -> Any:
    from torchvision import datasets

    known = getattr(datasets, name, None) if name in datasets.__all__ else None
    parameters = inspect.signature(known.__init__).parameters if known is not None else {}
    if known is None or not {"train", "split"} & parameters.keys():
        raise DataError(
            f"source must be folder, shards, cifar10 or a labelled set of torchvision.datasets, got {name!r}"
        )
    if "train" in parameters:
        choices: list[dict[str, Any]] = [{"train": training}]
    else:
        names = (part,) if part is not None else _TRAINING if training else _MEASURED
        choices = [{"split": each} for each in names]
    error: Exception | None = None
    for choice in choices:
        try:
            return known(root, **choice)
        except ValueError as unknown:  # the set has no part of this name
            error = error or unknown
        except (OSError, RuntimeError) as missing:
            raise DataError(f"{name}: {' '.join(str(missing).split())} ({root} is the root)") from None
    raise DataError(f"{name}: {' '.join(str(error).split())}")
