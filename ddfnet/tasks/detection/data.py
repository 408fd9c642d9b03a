"""Batches of images with boxes for the training and validation of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from ddfnet.data.detection import annotations
from ddfnet.data.detection.dataset import BoxPictures, Item, RepeatedPictures
from ddfnet.training.samplers import Consecutive, own_share

Batch = tuple[Sequence[Tensor], Sequence[dict[str, Tensor]]]


class DetectionData(lightning.LightningDataModule):
    """Pictures with boxes, in the layout of Pascal VOC or of COCO: batch t of a run is the same whenever it is made.

    Args:
        root: the folder, see `ddfnet.data.detection.annotations.load`.
        classes: the names that the labels stand for: the detector's.
        train_part: such as ``"train"`` or ``"train2017"``; None for validation alone.
        val_part: such as ``"val"``.
        batch_size: pictures a step, over all processes and accumulated batches.
        workers: processes that read pictures; 0 for none but the training one.
        horizontal_flip: how likely a picture is mirrored in training, 0 to 1.
        vertical_flip: how likely it is turned upside down besides.
        on_bad_image: ``"stop"`` or ``"skip"``, see `ddfnet.data.detection.dataset.BoxPictures`.
        on_bad_box: ``"stop"`` or ``"skip"``, see `ddfnet.data.detection.annotations.Collector`.
        seed: of the order, and of what is changed in training.

    Returns:
        Batches of pictures, each (3, H, W), float32, from 0 to 1, and their objects, see `BoxPictures`.

    Raises:
        ValueError: an option out of range.
        DataError: the data are missing or broken; when a run begins: a batch that the processes cannot share.
    """

    def __init__(
        self,
        root: str,
        classes: Sequence[str],
        train_part: str | None = "train",
        val_part: str = "val",
        batch_size: int = 8,
        workers: int = 1,
        horizontal_flip: float = 0.5,
        vertical_flip: float = 0.0,
        on_bad_image: Literal["stop", "skip"] = "stop",
        on_bad_box: Literal["stop", "skip"] = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if workers < 0:
            raise ValueError(f"workers must not be negative, got {workers}")
        for name, value in (("horizontal_flip", horizontal_flip), ("vertical_flip", vertical_flip)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {value}")
        self.batch_size, self.workers, self.seed, self.on_bad_image = batch_size, workers, seed, on_bad_image
        if train_part is not None:
            self.train_images = annotations.load(root, train_part, classes, on_bad_box=on_bad_box)
        self.val_images = annotations.load(root, val_part, classes, on_bad_box=on_bad_box)
        self.transform = v2.Compose([v2.RandomHorizontalFlip(horizontal_flip), v2.RandomVerticalFlip(vertical_flip)])

    def setup(self, stage: str) -> None:
        trainer = self.trainer
        if trainer is not None and stage == "fit":
            length = Consecutive.of_run(trainer, self.batch_size).items
            self.train_set = RepeatedPictures(self.train_images, length, self.transform, self.on_bad_image, self.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        order = Consecutive.of_run(trainer, self.batch_size)
        return DataLoader(self.train_set, batch_sampler=order, num_workers=self.workers, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        rank, ranks, size = 0, 1, self.batch_size
        if trainer is not None:
            rank, ranks, size = trainer.global_rank, trainer.world_size, own_share(trainer, size)
        pictures = BoxPictures(self.val_images, self.on_bad_image)
        own = Subset(pictures, range(rank, len(pictures), ranks))
        return DataLoader(own, size, num_workers=self.workers, collate_fn=collate)


def collate(items: Sequence[Item | None]) -> Batch:
    """Pictures of any size, and their objects, without those that were skipped."""
    read = [item for item in items if item is not None]
    return tuple(image for image, _ in read), tuple(target for _, target in read)
