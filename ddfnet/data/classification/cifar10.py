"""CIFAR-10: 60000 photographs of 32x32 pixels in ten classes, from torchvision's files or from an archive of JPEGs."""

from __future__ import annotations

import logging
from io import BytesIO
from pathlib import Path, PurePosixPath

import torch

from ddfnet.data.archives import members
from ddfnet.data.classification.splits import Split, Splits
from ddfnet.errors import DataError
from ddfnet.images import read_image

_SIZE = (32, 32)

_log = logging.getLogger(__name__)


def load(root: Path, *, download: bool = False, skip_broken: bool = False) -> Splits:
    """Load CIFAR-10 with its own test split.

    Args:
        root: torchvision's root with ``cifar-10-batches-py``; or a tar file, compressed or not, of
            ``train/CLASS/NAME.jpg`` and ``test/CLASS/NAME.jpg``.
        download: let torchvision fetch missing files into ``root``.
        skip_broken: leave out broken images of an archive, with a warning; otherwise they raise.

    Returns:
        50000 and 10000 images (3, 32, 32) in ten classes; those of an archive sorted by name.

    Raises:
        DataError: the files are missing or damaged, or the download failed.
    """
    if root.is_file():
        return _archive(root, skip_broken)
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(root, train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        if download:
            raise DataError(f"cifar10: the download to {root} failed: {error}") from None
        raise DataError(
            f"cifar10: no intact cifar-10-batches-py in {root}; give torchvision's root, or an archive of train/CLASS "
            "and test/CLASS; the demo fetches it with --download"
        ) from None
    train, test = (
        Split(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in parts
    )
    return Splits(
        name="cifar10",
        train=train,
        test=test,
        classes=tuple(parts[0].classes),
        origin="CIFAR-10, 32x32 pixels, with its own test part.",
        flip=True,
    )


def _archive(file: Path, skip_broken: bool) -> Splits:
    pixels: dict[tuple[str, str, str], bytes] = {}  # by part, class and name
    try:
        stream = file.open("rb")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    with stream:
        for member, content in members(stream, str(file)):
            match PurePosixPath(member).parts:
                case ("train" | "test" as part, label, name):
                    try:
                        pixels[part, label, name] = _read_pixels(content, f"{file}/{member}")
                    except DataError as error:
                        if not skip_broken:
                            raise
                        _log.warning("%s; skipped", error)
    keys = sorted(pixels)  # the archive's order does not count
    classes = sorted({label for _, label, _ in keys})
    if {part for part, *_ in keys} != {"train", "test"}:
        raise DataError(
            f"{file} is no archive of CIFAR-10: train/CLASS and test/CLASS with images of 32x32 pixels are required"
        )

    def labelled(name: str) -> Split:
        own = [key for key in keys if key[0] == name]
        images = torch.frombuffer(bytearray().join(pixels[key] for key in own), dtype=torch.uint8)
        labels = torch.tensor([classes.index(label) for _, label, _ in own])
        return Split(images.view(-1, *_SIZE, 3).permute(0, 3, 1, 2).contiguous(), labels)

    return Splits(
        name="cifar10",
        train=labelled("train"),
        test=labelled("test"),
        classes=tuple(classes),
        origin=f"CIFAR-10, 32x32 pixels, as JPEGs ({file.name}), with its own test part.",
        flip=True,
    )


def _read_pixels(content: bytes, name: str) -> bytes:
    image = read_image(BytesIO(content), name)
    if image.size != _SIZE:
        raise DataError(f"{name} must have 32x32 pixels, got {image.width}x{image.height}")
    return image.tobytes()
