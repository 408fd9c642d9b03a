"""CIFAR-10: 60000 photographs in ten classes, 32x32 pixels, from torchvision's files."""

from __future__ import annotations

from pathlib import Path

import torch

from ddfnet.data.splits import DataError, Labelled, Splits


def load(root: Path, *, download: bool = False) -> Splits:
    """CIFAR-10 with its own test part.

    Args:
        root: torchvision's root, which holds ``cifar-10-batches-py``.
        download: let torchvision fetch into ``root`` what is not there.

    Returns:
        Splits of pictures (N, 3, 32, 32), 50000 and 10000 of them, in ten classes.

    Raises:
        DataError: not found, damaged, or the download failed.
    """
    from torchvision.datasets import CIFAR10

    try:
        parts = [CIFAR10(root, train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError) as error:
        if download:
            raise DataError(f"cifar10: the download to {root} failed: {error}") from None
        raise DataError(
            f"cifar10: no intact cifar-10-batches-py in {root}; give torchvision's root with --root, or add --download"
        ) from None
    train, test = (
        Labelled(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
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
