"""Object detection: Faster R-CNN learns from pictures with boxes, and is measured by COCO's average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchmetrics.detection import MeanAveragePrecision
from torchvision.transforms import v2

from ddfnet.data.detection import annotations
from ddfnet.data.detection.dataset import BoxPictures, Item, RepeatedPictures
from ddfnet.data.seeding import reseed
from ddfnet.models.faster_rcnn import Detector
from ddfnet.pretrained import header_of
from ddfnet.training.samplers import Consecutive, own_share
from ddfnet.training.schedules import by_steps

Batch = tuple[Sequence[Tensor], Sequence[dict[str, Tensor]]]
METRICS = {
    "AP": "map",
    "AP50": "map_50",
    "AP75": "map_75",
    "AP_S": "map_small",
    "AP_M": "map_medium",
    "AP_L": "map_large",
}


class Detection(lightning.LightningModule):
    r"""Trains a detector with the four losses of Faster R-CNN.

    .. math::
        L = L_{objectness} + L_{proposal} + L_{class} + L_{box}

    Args:
        network: a `Detector`.
        optimizer: ``"sgd"``, with momentum, or ``"adamw"``.
        learning_rate: at its peak.
        momentum: of SGD.
        weight_decay: of either.
        warmup_steps: over which the learning rate rises.
        milestones: steps at each of which it falls to a tenth; without any it falls to zero along a cosine.
        channels_last: train in that memory format.
        seed: of what torchvision draws at random in a step, the boxes that the losses are of; set anew before each.

    Returns:
        ``trainer.validate`` gives AP, AP50, AP75, and AP_S, AP_M, AP_L where there are objects of that size, 0 to 1.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        network: Detector,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        learning_rate: float = 0.02,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        warmup_steps: int = 500,
        milestones: Sequence[int] = (),
        channels_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("learning_rate", learning_rate),
            ("weight_decay", weight_decay),
            ("warmup_steps", warmup_steps),
        ):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be from 0 to below 1, got {momentum}")
        if list(milestones) != sorted(set(milestones)) or any(step < 1 for step in milestones):
            raise ValueError(f"milestones must be steps from 1 on, each later than the one before, got {milestones}")
        memory = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=memory)  # type: ignore[call-overload]
        self.optimizer, self.learning_rate, self.momentum = optimizer, learning_rate, momentum
        self.weight_decay, self.warmup_steps, self.milestones = weight_decay, warmup_steps, list(milestones)
        self.seed = seed
        # Of each validation picture, and what is there.
        self.found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, targets = batch
        reseed(self.seed, batch_index, self.global_rank, devices=True)
        losses: dict[str, Tensor] = self.network(list(images), list(targets))
        loss = torch.stack(list(losses.values())).sum()
        self.log("loss", loss, prog_bar=True, batch_size=len(images), sync_dist=True)
        self.log_dict(losses, batch_size=len(images), sync_dist=True)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        images, targets = batch
        if images:  # all of a batch may have been skipped
            pairs = zip(self.network(list(images)), targets, strict=True)
            self.found += ((_on_cpu(found), _on_cpu(target)) for found, target in pairs)

    def on_validation_epoch_end(self) -> None:
        metric = precision_metric()
        for found, target in _of_all_processes(self.found):
            metric.update([found], [target])
        self.found.clear()
        metrics = summary(metric)
        self.log_dict(metrics)
        if self.trainer.state.fn == "fit":
            self.print(
                f"step {self.global_step}: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
            )

    def configure_optimizers(self) -> Any:
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(learning, self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        else:
            optimizer = torch.optim.AdamW(learning, self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        return by_steps(optimizer, steps, self.warmup_steps, self.milestones)

    @property
    def recipe(self) -> dict[str, Any]:
        """What an optimizer's state depends on: a run goes on with the same alone."""
        return {"optimizer": self.optimizer}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["header"] = header_of(self.network).as_dict()
        checkpoint["recipe"] = self.recipe


class DetectionData(lightning.LightningDataModule):
    """Pictures with boxes, in the layout of Pascal VOC or of COCO: batch t of a run is the same whenever it is made.

    Args:
        root: the folder, see `ddfnet.data.detection.annotations.load`.
        classes: the names that the labels stand for: the detector's.
        train_part: such as ``"train"`` or ``"train2017"``.
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
        train_part: str = "train",
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
        self.train_pictures, self.val_pictures = (
            annotations.load(root, part, classes, on_bad_box=on_bad_box) for part in (train_part, val_part)
        )
        self.transform = v2.Compose([v2.RandomHorizontalFlip(horizontal_flip), v2.RandomVerticalFlip(vertical_flip)])

    def setup(self, stage: str) -> None:
        trainer = self.trainer
        if trainer is not None and stage == "fit":
            length = Consecutive.of_run(trainer, self.batch_size).items
            self.train_set = RepeatedPictures(self.train_pictures, length, self.transform, self.on_bad_image, self.seed)

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
        pictures = BoxPictures(self.val_pictures, self.on_bad_image)
        own = Subset(pictures, range(rank, len(pictures), ranks))
        return DataLoader(own, size, num_workers=self.workers, collate_fn=collate)


def collate(items: Sequence[Item | None]) -> Batch:
    """Pictures of any size, and their objects, without those that were skipped."""
    read = [item for item in items if item is not None]
    return tuple(image for image, _ in read), tuple(target for _, target in read)


def precision_metric() -> MeanAveragePrecision:
    """COCO's average precision, which is updated with what a `Detector` finds and with targets of `BoxPictures`."""
    return MeanAveragePrecision(
        backend="faster_coco_eval",
        class_metrics=True,
        sync_on_compute=False,
        # COCO's own, in double: those of torchmetrics are rounded to single, and a recall of 7/100 then misses 0.07.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )


def summary(metric: MeanAveragePrecision) -> dict[str, float]:
    """AP, AP50, AP75, AP_S, AP_M, AP_L, from 0 to 1, by these names; without sizes that no object has."""
    values = metric.compute()
    return {name: float(values[own]) for name, own in METRICS.items() if values[own] >= 0}


def _on_cpu(each: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in each.items()}


def _of_all_processes(items: list[Any]) -> list[Any]:
    """The items of each process in turn, on every process; the metric's own way needs as many on each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]
