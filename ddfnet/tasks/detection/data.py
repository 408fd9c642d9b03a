"""Batches of images with boxes for the training and validation of detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning
from jsonargparse.typing import ClosedUnitInterval, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from ddfnet.arguments import check_range
from ddfnet.data.detection import layouts
from ddfnet.data.detection.dataset import DetectionDataset, DetectionSample, RepeatedDetectionDataset
from ddfnet.training.samplers import ResumableBatchSampler, per_rank_batch_size

Batch = tuple[Sequence[Tensor], Sequence[dict[str, Tensor]]]


class DetectionData(lightning.LightningDataModule):
    """Batches of images with boxes. Batch t of a run is the same on every worker and after every resumption.

    Args:
        root: the folder, see `ddfnet.data.detection.layouts.load`.
        classes: the class names in the order of their labels, those of the detector.
        train_part: such as ``"train"`` or ``"train2017"``; None for validation alone.
        val_part: such as ``"val"``.
        batch_size: images per step, over all processes and accumulated batches.
        workers: processes that read images; 0 for the training process itself.
        horizontal_flip: probability of a mirrored training image.
        vertical_flip: probability of one that is turned upside down.
        on_bad_image: ``"stop"`` or ``"skip"``, see `ddfnet.data.detection.dataset.DetectionDataset`.
        on_bad_box: ``"stop"`` or ``"skip"``, see `ddfnet.data.detection.annotations.AnnotationBuilder`.
        seed: seed of the order and the augmentation.

    Returns:
        Batches of images, each (3, H, W), float32, 0 to 1, and their objects, see `DetectionDataset`.

    Raises:
        ValueError: an option is out of range.
        DataError: data is missing or broken; at the start of a run: a batch cannot be divided among the processes.
    """

    def __init__(
        self,
        root: str,
        classes: Sequence[str],
        train_part: str | None = "train",
        val_part: str = "val",
        batch_size: PositiveInt = 8,
        workers: NonNegativeInt = 1,
        horizontal_flip: ClosedUnitInterval = 0.5,
        vertical_flip: ClosedUnitInterval = 0.0,
        on_bad_image: Literal["stop", "skip"] = "stop",
        on_bad_box: Literal["stop", "skip"] = "stop",
        seed: int = 0,
    ) -> None:
        super().__init__()
        batch_size = check_range("batch_size", batch_size, 1)
        workers = check_range("workers", workers, 0)
        horizontal_flip = check_range("horizontal_flip", horizontal_flip, 0, 1)
        vertical_flip = check_range("vertical_flip", vertical_flip, 0, 1)
        self.batch_size, self.workers, self.seed, self.on_bad_image = batch_size, workers, seed, on_bad_image
        if train_part is not None:
            self.train_images = layouts.load(root, train_part, classes, on_bad_box=on_bad_box)
        self.val_images = layouts.load(root, val_part, classes, on_bad_box=on_bad_box)
        self.transform = v2.Compose([v2.RandomHorizontalFlip(horizontal_flip), v2.RandomVerticalFlip(vertical_flip)])

    def setup(self, stage: str) -> None:
        trainer = self.trainer
        if trainer is not None and stage == "fit":
            length = ResumableBatchSampler.from_trainer(trainer, self.batch_size).num_items
            self.train_set = RepeatedDetectionDataset(
                self.train_images, length, self.transform, self.on_bad_image, self.seed
            )

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        order = ResumableBatchSampler.from_trainer(trainer, self.batch_size)
        return DataLoader(self.train_set, batch_sampler=order, num_workers=self.workers, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        rank, ranks, size = 0, 1, self.batch_size
        if trainer is not None:
            rank, ranks, size = trainer.global_rank, trainer.world_size, per_rank_batch_size(trainer, size)
        images = DetectionDataset(self.val_images, self.on_bad_image)
        own = Subset(images, range(rank, len(images), ranks))
        return DataLoader(own, size, num_workers=self.workers, collate_fn=collate)


def collate(samples: Sequence[DetectionSample | None]) -> Batch:
    """Return the images, of any size, and their objects, without images that were skipped."""
    read = [sample for sample in samples if sample is not None]
    return tuple(image for image, _ in read), tuple(target for _, target in read)
