"""Data sets of images with boxes for PyTorch's loaders: one pass for validation, many for training."""

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

from ddfnet.arguments import check_choice
from ddfnet.data.detection.annotations import DetectionAnnotations
from ddfnet.data.seeding import reseed
from ddfnet.errors import DataError
from ddfnet.images import read_oriented

DetectionSample = tuple[Tensor, dict[str, Tensor]]
_log = logging.getLogger(__name__)


def read_annotated(file: Path, height: int, width: int, corners: Tensor) -> tuple[tv_tensors.Image, Tensor]:
    """Read an image as `ddfnet.images.read_image` does, and turn its boxes with it.

    Some programs annotate an image as viewers show it, turned as its EXIF data says, others the pixels as they are
    stored. The annotation's size tells which; where both have that size, the boxes are on the stored pixels.

    Args:
        file: image.
        height: height that the annotation says.
        width: width that the annotation says.
        corners: boxes, (n, 4), x0, y0, x1, y1.

    Returns:
        The image, (3, H, W), uint8, and its boxes.

    Raises:
        DataError: the image is missing, broken, truncated, or of another size, for which boxes would be misplaced.
    """
    shown, orientation = read_oriented(file)
    stored = shown.size[::-1] if orientation > 4 else shown.size
    if (width, height) == stored:
        corners = _turned(corners, orientation, *shown.size)
    elif (width, height) != shown.size:
        raise DataError(f"{file} must be {width}x{height}, as its annotation says, got {stored[0]}x{stored[1]}")
    return tv_tensors.Image(functional.pil_to_tensor(shown)), corners


def _turned(corners: Tensor, orientation: int, width: int, height: int) -> Tensor:
    """Turn boxes with the pixels of an image of EXIF's orientation; the size is that of the turned image."""
    x0, y0, x1, y1 = corners.unbind(1)
    if orientation > 4:
        x0, y0, x1, y1 = y0, x0, y1, x1
    if orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    return torch.stack((x0, y0, x1, y1), 1)


class DetectionDataset(Dataset["DetectionSample | None"]):
    """Each image once, as viewers show it.

    Args:
        annotations: from `ddfnet.data.detection.layouts.load`.
        on_bad_image: at an image that cannot be read: ``"stop"`` raises, ``"skip"`` continues without it, with a
            warning of the logger ``ddfnet.data.detection.dataset``.

    Returns:
        For each index the image (3, H, W), float32, 0 to 1, and ``boxes`` (n, 4), ``labels`` (n,) from 1 on,
        ``iscrowd`` (n,) and ``area`` (n,). None for an image that was skipped.

    Raises:
        DataError: at access, see `read_annotated`.
    """

    def __init__(self, annotations: DetectionAnnotations, on_bad_image: str = "stop") -> None:
        check_choice("on_bad_image", on_bad_image, ("stop", "skip"))
        self.annotations, self.skip = annotations, on_bad_image == "skip"

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> DetectionSample | None:
        item = self._item(index)
        return None if item is None else (functional.to_dtype(item[0], torch.float32, scale=True), item[1])

    def _item(self, index: int) -> DetectionSample | None:
        corners, labels, crowd, area = self.annotations.objects(index)
        height, width = self.annotations.sizes[index].tolist()
        try:
            image, corners = read_annotated(self.annotations.files[index], height, width, corners)
        except DataError as error:
            if not self.skip:
                raise
            _log.warning("%s; skipped", error)
            return None
        canvas = image.shape[-2:]
        boxes: Any = tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=canvas)  # type: ignore[call-overload]
        return image, {"boxes": boxes, "labels": labels + 1, "iscrowd": crowd.long(), "area": area}


class RepeatedDetectionDataset(DetectionDataset):
    """Images with objects, repeated in new orders and with new augmentations, without crowds.

    An index gives the same sample on every worker and after every resumption.

    Args:
        annotations: from `ddfnet.data.detection.layouts.load`.
        length: number of samples.
        transform: from torchvision's v2, applied to the image, uint8, and its boxes.
        on_bad_image: as in `DetectionDataset`; the next image takes the place of one that is skipped.
        seed: seed of the orders and the transform.

    Raises:
        DataError: no image has an object; at access, see `read_annotated`.
    """

    def __init__(
        self,
        annotations: DetectionAnnotations,
        length: int,
        transform: Callable[..., Any],
        on_bad_image: str = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__(annotations, on_bad_image)
        self.chosen = annotations.with_objects()
        if not self.chosen:
            raise DataError(f"{annotations.name}: an image with an object is required for training, got none")
        self.length, self.seed = length, seed
        self.transform = v2.Compose([transform, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()])
        self._epoch, self._order = -1, list[int]()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> DetectionSample:
        epoch, place = divmod(index, len(self.chosen))
        order = self._order_of(epoch)
        for attempt in range(len(order)):
            item = self._item(order[(place + attempt) % len(order)])
            if item is not None:
                break
        else:
            raise DataError(f"{self.annotations.name}: none of its images can be read")
        image, target = item
        single = target["iscrowd"] == 0
        target = {"boxes": target["boxes"][single], "labels": target["labels"][single]}
        target["boxes"] = tv_tensors.wrap(target["boxes"], like=item[1]["boxes"])
        with torch.random.fork_rng(devices=()):
            reseed(self.seed, index)
            changed: DetectionSample = self.transform(image, target)
        return changed

    def _order_of(self, epoch: int) -> list[int]:
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.chosen))
            self._epoch, self._order = epoch, [self.chosen[i] for i in order]
        return self._order
