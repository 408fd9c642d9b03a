"""Classification: cross-entropy, AdamW with one cycle of the learning rate, and the share that is right."""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

from ddfnet.data import Splits

Batch = tuple[Tensor, Tensor]


class ClassificationData(lightning.LightningDataModule):
    """Batches of normalised pictures, in an order that the seed alone decides.

    In training each picture is moved by up to an eighth of its size, and mirrored where the splits allow it.

    Args:
        splits: the pictures, (N, C, H, W), uint8.
        batch_size: pictures a training batch.
        seed: of the order.

    Returns:
        Batches of pictures (N, C, H, W), float32, each channel of mean 0 and deviation 1 over the training part, and
        labels (N,).
    """

    def __init__(self, splits: Splits, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.splits, self.batch_size, self.seed = splits, batch_size, seed
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(*splits.normalisation())])
        move = v2.RandomCrop(splits.size, padding=max(1, min(splits.size) // 8))
        self.augment = v2.Compose([move, v2.RandomHorizontalFlip(0.5 if splits.flip else 0.0)])

    def train_dataloader(self) -> DataLoader[Any]:
        part = self.splits.train
        order = torch.Generator().manual_seed(self.seed)
        return DataLoader(TensorDataset(part.images, part.labels), self.batch_size, shuffle=True, generator=order)

    def test_dataloader(self) -> DataLoader[Any]:
        part = self.splits.test
        return DataLoader(TensorDataset(part.images, part.labels), 4 * self.batch_size)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            images = torch.stack([self.augment(image) for image in images])
        return self.normalise(images), labels


class Classifier(lightning.LightningModule):
    """Trains a network to name pictures.

    Args:
        network: (N, C, H, W) -> logits (N, classes).
        classes: how many.
        learning_rate: of AdamW, at its peak; OneCycleLR leads there and back to nearly nothing.
        weight_decay: of AdamW.

    Returns:
        From ``forward(images)``: the logits. ``trainer.test`` gives ``test_accuracy``, from 0 to 1.
    """

    def __init__(
        self, network: nn.Module, classes: int, learning_rate: float = 1e-2, weight_decay: float = 0.02
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: Batch, batch_index: int) -> None:
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("test_accuracy", self.accuracy, on_epoch=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
