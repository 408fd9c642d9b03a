"""What a network is given of labelled pictures: transformed, each with its label and its place in the run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ddfnet.data.classification.images import Pictures
from ddfnet.data.seeding import derived_seed, reseed
from ddfnet.errors import DataError

Item = dict[str, Any]  # picture (C, H, W), uint8; label; position
Opener = Callable[[], tuple[Image.Image, int]]
Transform = Callable[[Image.Image], Tensor]

NO_LABEL = -1  # of what does not count: a picture that could not be read, or one that fills up a batch

_log = logging.getLogger(__name__)


class Reader:
    """Opens and transforms pictures.

    Args:
        transform: a PIL picture -> (C, H, W), uint8.
        classes: how many there are; a label must be below it.
        skip: leave a broken picture out, and say so, where its error is raised otherwise.
    """

    def __init__(self, transform: Transform, classes: int, skip: bool) -> None:
        self.transform, self.classes, self.skip = transform, classes, skip

    def __call__(self, opener: Opener, position: int) -> Item | None:
        try:
            picture, label = opener()
        except DataError as error:
            if not self.skip:
                raise
            _log.warning("%s; skipped", error)
            return None
        if not 0 <= label < self.classes:
            raise DataError(f"a label is {label}, but the network has {self.classes} classes; see --model.num_classes")
        return {"picture": self.transform(picture), "label": label, "position": position}


class Shuffled:
    """Pictures by their position in a run: every epoch has them in an order of its own.

    Args:
        pictures: all.
        epoch: how many of them an epoch has; the last of its order are left out.
        seed: of the order.
    """

    def __init__(self, pictures: Pictures, epoch: int, seed: int) -> None:
        self.pictures, self.epoch, self.seed = pictures, epoch, seed
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __call__(self, positions: Sequence[int]) -> list[Opener]:
        return [self._opener(*divmod(position, self.epoch)) for position in positions]

    def _opener(self, epoch: int, place: int) -> Opener:
        if self.order[0] != epoch:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, epoch))
            self.order = epoch, torch.randperm(len(self.pictures), generator=generator)
        index = int(self.order[1][place])
        return lambda: self.pictures[index]


class TrainingItems(Dataset[Item]):
    """Augmented pictures by their position in a run. Each has random numbers of its own, by the seed and its position.

    Args:
        batch: the positions of a batch -> what opens its pictures; `Shuffled` or `ddfnet.data.classification.webdataset.ShardBatches`.
        reader: of the pictures. Where it leaves one out, another of the batch takes its place.
        seed: of the augmentation.
    """

    def __init__(self, batch: Callable[[Sequence[int]], Sequence[Opener]], reader: Reader, seed: int) -> None:
        self.batch, self.reader, self.seed = batch, reader, seed

    def __getitems__(self, positions: list[int]) -> list[Item]:
        items = []
        for opener, position in zip(self.batch(positions), positions, strict=True):
            reseed(self.seed, position)
            items.append(self.reader(opener, position))
        good = [item for item in items if item is not None]
        if not good:
            raise DataError("no picture of a batch can be read")
        return [good[index % len(good)] if item is None else item for index, item in enumerate(items)]

    def __getitem__(self, position: int) -> Item:
        [item] = self.__getitems__([position])
        return item


class MeasuredItems(Dataset[Item]):
    """Every picture once, by its position; positions beyond the last fill up batches, and have no label.

    Args:
        pictures: all.
        reader: of the pictures; one that it leaves out has no label.
    """

    def __init__(self, pictures: Pictures, reader: Reader) -> None:
        self.pictures, self.reader = pictures, reader

    def __getitem__(self, position: int) -> Item:
        count = len(self.pictures)
        for index in chain(
            [position % count], range(count)
        ):  # for a picture that cannot be read, one of the right shape
            item = self.reader(lambda index=index: self.pictures[index], position)  # type: ignore[misc]
            if item is not None:
                return item if index == position else item | {"label": NO_LABEL}
        raise DataError("none of the pictures can be read")


class StreamedItems(IterableDataset[list[Item]]):
    """Every picture of a stream once, in batches of one size; the last is filled up with pictures without a label.

    Args:
        stream: what opens the pictures, `ddfnet.data.classification.webdataset.EveryShard`.
        reader: of the pictures; one that it leaves out is not in a batch.
        size: pictures a batch.
    """

    def __init__(self, stream: Iterable[Opener], reader: Reader, size: int) -> None:
        self.stream, self.reader, self.size = stream, reader, size

    def __iter__(self) -> Iterator[list[Item]]:
        items = (item for item in (self.reader(opener, 0) for opener in self.stream) if item is not None)
        while batch := list(islice(items, self.size)):
            yield batch + [batch[0] | {"label": NO_LABEL}] * (self.size - len(batch))
