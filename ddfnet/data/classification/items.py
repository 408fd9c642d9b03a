"""Transformed images with their labels and positions in a run, as data sets for PyTorch's loaders."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ddfnet.data.classification.images import LabelledImages
from ddfnet.data.seeding import derived_seed, reseed
from ddfnet.errors import DataError

Item = dict[str, Any]  # image (C, H, W), uint8; label; position
Opener = Callable[[], tuple[Image.Image, int]]
Transform = Callable[[Image.Image], Tensor]

NO_LABEL = -1  # does not count: an image that cannot be read, or padding of a batch

_log = logging.getLogger(__name__)


class ItemReader:
    """Opening and transforming of images.

    Args:
        transform: a PIL image -> (C, H, W), uint8.
        num_classes: number of classes; labels must be below it.
        skip_broken: return None for a broken image, with a warning; otherwise it raises.
    """

    def __init__(self, transform: Transform, num_classes: int, skip_broken: bool) -> None:
        self.transform, self.num_classes, self.skip_broken = transform, num_classes, skip_broken

    def __call__(self, opener: Opener, position: int) -> Item | None:
        try:
            image, label = opener()
        except DataError as error:
            if not self.skip_broken:
                raise
            _log.warning("%s; skipped", error)
            return None
        if not 0 <= label < self.num_classes:
            raise DataError(
                f"a label is {label}, but the network has {self.num_classes} classes; see --model.num_classes"
            )
        return {"image": self.transform(image), "label": label, "position": position}


class ShuffledImages:
    """Images by their position in a run, in a new order for each epoch.

    Args:
        images: all images.
        epoch_size: images per epoch; the last ones of its order are left out.
        seed: seed of the order.
    """

    def __init__(self, images: LabelledImages, epoch_size: int, seed: int) -> None:
        self.images, self.epoch_size, self.seed = images, epoch_size, seed
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __call__(self, positions: Sequence[int]) -> list[Opener]:
        return [self._opener(*divmod(position, self.epoch_size)) for position in positions]

    def _opener(self, epoch: int, place: int) -> Opener:
        if self.order[0] != epoch:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
            self.order = epoch, torch.randperm(len(self.images), generator=generator)
        index = int(self.order[1][place])
        return lambda: self.images[index]


class TrainingItems(Dataset[Item]):
    """Augmented images by their position in a run, each with random numbers of its own, from the seed and the position.

    Args:
        batch: the positions of a batch -> openers of its images; `ShuffledImages` or
            `ddfnet.data.classification.webdataset.ShardBatches`.
        reader: reader of the images. Where it returns None, another image of the batch takes the place.
        seed: seed of the augmentation.
    """

    def __init__(self, batch: Callable[[Sequence[int]], Sequence[Opener]], reader: ItemReader, seed: int) -> None:
        self.batch, self.reader, self.seed = batch, reader, seed

    def __getitems__(self, positions: list[int]) -> list[Item]:
        items = []
        for opener, position in zip(self.batch(positions), positions, strict=True):
            reseed(self.seed, position)
            items.append(self.reader(opener, position))
        good = [item for item in items if item is not None]
        if not good:
            raise DataError("no image of a batch can be read")
        return [good[index % len(good)] if item is None else item for index, item in enumerate(items)]

    def __getitem__(self, position: int) -> Item:
        [item] = self.__getitems__([position])
        return item


class EvaluationItems(Dataset[Item]):
    """Every image once, by its position; positions beyond the last pad batches, without a label.

    Args:
        images: all images.
        reader: reader of the images; one that it leaves out has no label.
    """

    def __init__(self, images: LabelledImages, reader: ItemReader) -> None:
        self.images, self.reader = images, reader

    def __getitem__(self, position: int) -> Item:
        count = len(self.images)
        # Another image stands in, for its shape, for one that cannot be read.
        for index in chain([position % count], range(count)):
            item = self.reader(lambda index=index: self.images[index], position)  # type: ignore[misc]
            if item is not None:
                return item if index == position else item | {"label": NO_LABEL}
        raise DataError("none of the images can be read")


class StreamedItems(IterableDataset[list[Item]]):
    """Every image of a stream once, in batches of equal size; the last is padded with images without a label.

    Args:
        stream: openers of the images, `ddfnet.data.classification.webdataset.EveryShard`.
        reader: reader of the images; one that it leaves out is in no batch.
        batch_size: images per batch.
    """

    def __init__(self, stream: Iterable[Opener], reader: ItemReader, batch_size: int) -> None:
        self.stream, self.reader, self.batch_size = stream, reader, batch_size

    def __iter__(self) -> Iterator[list[Item]]:
        items = (item for item in (self.reader(opener, 0) for opener in self.stream) if item is not None)
        while batch := list(islice(items, self.batch_size)):
            yield batch + [batch[0] | {"label": NO_LABEL}] * (self.batch_size - len(batch))
