"""Fashion-MNIST: 70000 images of clothes, 28x28 pixels, from the idx files of torchvision or of Debian."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from ddfnet.data.classification.splits import Split, Splits
from ddfnet.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
_TORCHVISION = Path("FashionMNIST/raw")
_LARGEST = 1 << 28  # bytes; the largest file has 47 million
_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def load(root: Path, *, download: bool = False) -> Splits:
    """Load Fashion-MNIST with its own test split.

    Args:
        root: the folder with the four idx files, plain or gzipped; or torchvision's root with ``FashionMNIST/raw``.
            Debian's folder is searched too.
        download: let torchvision fetch missing files into ``root``.

    Returns:
        60000 and 10000 images (1, 28, 28) in ten classes.

    Raises:
        DataError: a file is missing or damaged.
    """
    if download:
        _download(root)
    folders = (root, root / _TORCHVISION, DEBIAN)
    folder = next((folder for folder in folders if _find(folder, "train-images-idx3-ubyte")), None)
    if folder is None:
        raise DataError(
            f"fashion-mnist: no train-images-idx3-ubyte(.gz) in {', '.join(map(str, folders))}; install Debian's "
            f"dataset-fashion-mnist, give the folder with --root, or add --download"
        )
    return Splits(
        name="fashion-mnist",
        train=_part(folder, "train"),
        test=_part(folder, "t10k"),
        classes=_CLASSES,
        origin="Fashion-MNIST, 28x28 pixels, with its own test part.",
        flip=True,
    )


def _part(folder: Path, part: str) -> Split:
    images, labels = _read(folder, f"{part}-images-idx3-ubyte"), _read(folder, f"{part}-labels-idx1-ubyte")
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise DataError(f"{folder}: {part} has images {tuple(images.shape)} and labels {tuple(labels.shape)}")
    if len(labels) and labels.max() >= len(_CLASSES):
        raise DataError(f"{folder}: the labels of {part} must be below {len(_CLASSES)}, got {labels.max()}")
    return Split(images.unsqueeze(1), labels.long())


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str) -> Tensor:
    """Read an idx file: 0, 0, 8 (unsigned byte), the number of dimensions, each as a big-endian int32, the data."""
    path = _find(folder, name)
    if path is None:
        raise DataError(f"{folder / name}(.gz) is missing")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if content[:3] != b"\0\0\x08" or len(content) < 4 or len(content) > _LARGEST:
        raise DataError(f"{path} is no idx file of bytes")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise DataError(f"{path} says {shape} and holds {len(content) - start} bytes: it is cut short or damaged")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def _download(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(root, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"fashion-mnist: the download to {root} failed: {error}") from None
