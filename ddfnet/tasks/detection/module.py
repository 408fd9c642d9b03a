"""Training of Faster R-CNN, and COCO's average precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import lightning
import numpy as np
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from ddfnet.arguments import check_range
from ddfnet.data.seeding import reseed
from ddfnet.models.faster_rcnn import Detector
from ddfnet.pretrained import header_of
from ddfnet.tasks.detection.data import Batch
from ddfnet.training.precision import adam_eps
from ddfnet.training.schedules import schedule_steps

METRICS = {
    "AP": "map",
    "AP50": "map_50",
    "AP75": "map_75",
    "AP_S": "map_small",
    "AP_M": "map_medium",
    "AP_L": "map_large",
}


class Detection(lightning.LightningModule):
    r"""Object detection with the four losses of Faster R-CNN.

    .. math::
        L = L_{objectness} + L_{proposal} + L_{class} + L_{box}

    Args:
        network: a `Detector`.
        optimizer: ``"sgd"``, with momentum, or ``"adamw"``.
        learning_rate: the peak of the schedule.
        momentum: momentum of SGD, from 0 to below 1.
        weight_decay: weight decay of either optimizer.
        warmup_steps: length of the warm-up.
        milestones: steps at each of which the learning rate falls to a tenth; without any it falls to zero along a
            cosine.
        channels_last: train in the channels_last memory format.
        seed: seed of the boxes that torchvision samples for the losses; set again before each step.

    Returns:
        ``trainer.validate`` gives AP, AP50, AP75, and AP_S, AP_M, AP_L where there are objects of that size, 0 to 1.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        network: Detector,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        learning_rate: NonNegativeFloat = 0.02,
        momentum: ClosedUnitInterval = 0.9,
        weight_decay: NonNegativeFloat = 1e-4,
        warmup_steps: NonNegativeInt = 500,
        milestones: Sequence[int] = (),
        channels_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        learning_rate = check_range("learning_rate", learning_rate, 0)
        momentum = check_range("momentum", momentum, 0, 1, open_high=True)
        weight_decay = check_range("weight_decay", weight_decay, 0)
        warmup_steps = check_range("warmup_steps", warmup_steps, 0)
        if list(milestones) != sorted(set(milestones)) or any(step < 1 for step in milestones):
            raise ValueError(f"milestones must be steps from 1 on, each later than the one before, got {milestones}")
        memory = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=memory)  # type: ignore[call-overload]
        self.optimizer, self.learning_rate, self.momentum = optimizer, learning_rate, momentum
        self.weight_decay, self.warmup_steps, self.milestones = weight_decay, warmup_steps, list(milestones)
        self.seed = seed
        self.found: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []  # detections and targets per image
        self.precision: dict[str, float] = {}  # results of the last validation
        self.class_precision: dict[str, float] = {}  # AP by class, likewise

    @property
    def precision_modules(self) -> list[nn.Module]:
        """Modules whose precision `set_precision` changes: not the heads, which compute with corners of boxes."""
        return [self.network.backbone]

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
        if images:  # all images of a batch may have been skipped
            pairs = zip(self.network(list(images)), targets, strict=True)
            self.found += ((_on_cpu(found), _on_cpu(target)) for found, target in pairs)

    def on_validation_epoch_end(self) -> None:
        metric, images = precision_metric(), _gather(self.found)
        for found, target in images:
            metric.update([found], [target])
        self.precision = average_precision(metric) if images else {}  # every image may have been skipped
        self.class_precision = class_precision(metric, self.network.classes) if images else {}
        self.found.clear()
        self.log_dict(self.precision)
        if self.trainer.state.fn == "fit":
            text = ", ".join(f"{name} {value:.3f}" for name, value in self.precision.items())
            self.print(f"step {self.global_step}: {text}")

    def configure_optimizers(self) -> Any:
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "sgd":
            optimizer = torch.optim.SGD(learning, self.learning_rate, self.momentum, weight_decay=self.weight_decay)
        else:
            optimizer = torch.optim.AdamW(
                learning, self.learning_rate, eps=adam_eps(self.network), weight_decay=self.weight_decay
            )
        steps = int(self.trainer.estimated_stepping_batches)
        return schedule_steps(optimizer, steps, self.warmup_steps, self.milestones)

    @property
    def recipe(self) -> dict[str, Any]:
        """Options that the optimizer's state depends on; a run is resumed only with the same."""
        return {"optimizer": self.optimizer}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["header"] = header_of(self.network).as_dict()
        checkpoint["recipe"] = self.recipe


def card(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the task's entries of the model card, see `ddfnet.tasks.Training`."""
    model: Any = trainer.lightning_module
    images = trainer.datamodule.train_images  # type: ignore[attr-defined]
    return {
        "network": model.network.init_args,
        "data": {"images": len(images), "boxes_left_out": images.left_out, "origin": images.origin},
    }


def precision_metric() -> MeanAveragePrecision:
    """Return COCO's average precision, for detections of a `Detector` and targets of a `DetectionDataset`."""
    return MeanAveragePrecision(
        backend="faster_coco_eval",
        class_metrics=True,
        sync_on_compute=False,
        # COCO's own in float64: torchmetrics rounds them to float32, and a recall of 7/100 then misses 0.07.
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )


def average_precision(metric: MeanAveragePrecision) -> dict[str, float]:
    """Return AP, AP50, AP75, AP_S, AP_M, AP_L, 0 to 1, by these names; without sizes that no object has."""
    values = metric.compute()
    return {name: float(values[own]) for name, own in METRICS.items() if values[own] >= 0}


def class_precision(metric: MeanAveragePrecision, classes: Sequence[str]) -> dict[str, float]:
    """Return the average precision of each class, by its name; without classes that no image has."""
    values = metric.compute()
    labels, precision = values["classes"].reshape(-1).tolist(), values["map_per_class"].reshape(-1).tolist()
    return {classes[label - 1]: value for label, value in zip(labels, precision, strict=True) if value >= 0}


def _on_cpu(each: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.cpu() for name, value in each.items()}


def _gather(items: list[Any]) -> list[Any]:
    """Return the items of each process in turn, on every process; the metric's own way needs equally many on each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]
