"""Registry of the sources of labelled images for training and validation."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from ddfnet.data.classification import cifar10
from ddfnet.data.classification.images import (
    LabelledImages,
    TensorImages,
    TorchvisionImages,
    has_torchvision,
    open_folder,
)
from ddfnet.data.classification.splits import Splits
from ddfnet.errors import DataError


class Source(Protocol):
    """A function that opens the images of a path.

    Args:
        path: ``--data.path``.
        part: name of the validation split; None for the usual one.
        training: the images for training, instead of validation.
        skip_broken: leave out images that are broken, with a warning; otherwise raise DataError.
    """

    def __call__(self, path: Path, part: str | None, training: bool, *, skip_broken: bool) -> LabelledImages: ...


SOURCES: dict[str, Source] = {}
"""Sources by the name that ``--data.source`` takes."""


def register_source(name: str) -> Callable[[Source], Source]:
    """Add a source under this name, as a decorator.

    Raises:
        ValueError: the name is taken.

    Example:
        >>> from ddfnet.data.classification import digits
        >>> @register_source("digits-example")
        ... def open_digits(path, part, training, *, skip_broken):
        ...     splits = digits.load()
        ...     return TensorImages(splits.train if training else splits.test, splits.classes)
        >>> len(open_images("digits-example", Path(), None, False))
        450
        >>> del SOURCES["digits-example"]
    """
    if name in SOURCES:
        raise ValueError(f"the source name {name!r} is taken; choose another")

    def register(source: Source) -> Source:
        SOURCES[name] = source
        return source

    return register


def open_images(
    source: str, path: Path, part: str | None, training: bool, *, skip_broken: bool = False
) -> LabelledImages:
    """Open images by the name of their source: one of `SOURCES`, or a class of ``torchvision.datasets``.

    Raises:
        DataError: there is no such source, or its images are missing or broken.
    """
    if source in SOURCES:
        return SOURCES[source](path, part, training, skip_broken=skip_broken)
    if not has_torchvision(source):
        names = ", ".join([*SOURCES, "shards"])
        raise DataError(f"source must be {names} or a labelled set of torchvision.datasets, got {source!r}")
    return TorchvisionImages(source, path, None if training else part, training)


@register_source("folder")
def _folder(path: Path, part: str | None, training: bool, *, skip_broken: bool) -> LabelledImages:
    return open_folder(path, None if training else part, training)


@register_source("cifar10")
def _cifar10(path: Path, part: str | None, training: bool, *, skip_broken: bool) -> LabelledImages:
    if part is not None:
        raise DataError(f"cifar10 has a test part of its own; leave part out, got {part!r}")
    changed = path.stat().st_mtime_ns if path.is_file() else 0
    splits = _load_cifar10(path, changed, skip_broken)
    return TensorImages(splits.train if training else splits.test, splits.classes)


@lru_cache(maxsize=1)
def _load_cifar10(path: Path, changed: int, skip_broken: bool) -> Splits:
    """Load both splits; training and validation ask one after another."""
    return cifar10.load(path, skip_broken=skip_broken)
