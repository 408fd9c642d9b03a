"""Data sets of pictures with boxes, for PyTorch's loaders: once through, and over and over for training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ddfnet.data.classification.images import check_on_bad
from ddfnet.data.classification.images import read as read_picture
from ddfnet.data.detection.annotations import BoxedPictures
from ddfnet.data.seeding import reseed
from ddfnet.errors import DataError

Item = tuple[Tensor, dict[str, Tensor]]
_log = logging.getLogger(__name__)


def read(file: Path, height: int, width: int) -> tv_tensors.Image:
    """A picture, (3, H, W), uint8, decoded to its last row.

    Args:
        file: of any format that Pillow reads.
        height: that it must have, for its boxes to lie where they should.
        width: likewise.

    Raises:
        DataError: it is missing, broken, truncated, or of another size.
    """
    image = tv_tensors.Image(functional.pil_to_tensor(read_picture(file, file)))
    if image.shape[1:] != (height, width):
        raise DataError(
            f"{file} must be {width}x{height}, as its annotation says, got {image.shape[2]}x{image.shape[1]}"
        )
    return image


class BoxPictures(Dataset["Item | None"]):
    """Each picture once, as it is.

    Args:
        pictures: from `ddfnet.data.detection.annotations.load`.
        on_bad_image: what becomes of a picture that cannot be read: ``"stop"`` ends the work, ``"skip"`` goes on
            without it, and says so in a warning of the logger ``ddfnet.data.detection.dataset``.

    Returns:
        Of each picture: (3, H, W), float32, from 0 to 1, and ``boxes`` (n, 4), ``labels`` (n,) from 1 on, ``iscrowd``
        (n,) and ``area`` (n,). None for one that was skipped.

    Raises:
        DataError: when a picture is asked for, see `read`.
    """

    def __init__(self, pictures: BoxedPictures, on_bad_image: str = "stop") -> None:
        check_on_bad("on_bad_image", on_bad_image)
        self.pictures, self.skip = pictures, on_bad_image == "skip"

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Item | None:
        item = self._item(index)
        return None if item is None else (functional.to_dtype(item[0], torch.float32, scale=True), item[1])

    def _item(self, index: int) -> Item | None:
        height, width = self.pictures.sizes[index].tolist()
        try:
            image = read(self.pictures.files[index], height, width)
        except DataError as error:
            if not self.skip:
                raise
            _log.warning("%s; skipped", error)
            return None
        corners, labels, crowd, area = self.pictures.of(index)
        boxes: Any = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=(height, width))  # type: ignore[call-overload]
        return image, {"boxes": boxes, "labels": labels + 1, "iscrowd": crowd.long(), "area": area}


class RepeatedPictures(BoxPictures):
    """The pictures with objects over and over, each time in another order and with other changes, without crowds.

    An item is the same whenever and on whatever worker it is made, so that a run that was broken off goes on as if
    nothing had been.

    Args:
        pictures: from `ddfnet.data.detection.annotations.load`.
        length: how many items in all.
        transform: from torchvision's v2, applied to the picture, uint8, and its boxes.
        on_bad_image: as in `BoxPictures`; the next picture takes the place of one that is skipped.
        seed: of the orders and the transform.

    Raises:
        DataError: no picture has an object; when a picture is asked for, see `read`.
    """

    def __init__(
        self,
        pictures: BoxedPictures,
        length: int,
        transform: Callable[..., Any],
        on_bad_image: str = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__(pictures, on_bad_image)
        self.chosen = pictures.with_objects()
        if not self.chosen:
            raise DataError(f"{pictures.name}: a picture with an object is required to train with, got none")
        self.length, self.seed = length, seed
        self.transform = v2.Compose([transform, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])
        self._epoch, self._order = -1, list[int]()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        epoch, place = divmod(index, len(self.chosen))
        order = self._order_of(epoch)
        for attempt in range(len(order)):
            item = self._item(order[(place + attempt) % len(order)])
            if item is not None:
                break
        else:
            raise DataError(f"{self.pictures.name}: none of its pictures can be read")
        image, target = item
        ours = target["iscrowd"] == 0
        target = {"boxes": target["boxes"][ours], "labels": target["labels"][ours]}
        target["boxes"] = tv_tensors.wrap(target["boxes"], like=item[1]["boxes"])
        with torch.random.fork_rng(devices=()):
            reseed(self.seed, index)
            changed: Item = self.transform(image, target)
        return changed

    def _order_of(self, epoch: int) -> list[int]:
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.chosen))
            self._epoch, self._order = epoch, [self.chosen[i] for i in order]
        return self._order
