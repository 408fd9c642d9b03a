"""Training of a network for so many steps, as the studies of segmentation and restoration do it for all of theirs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from ddfnet.training.schedules import schedule_steps

Loss = Callable[[nn.Module, Any], Tensor]
"""Function of the network and a batch."""


def train(
    network: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    warmup: int,
) -> dict[str, Any]:
    """Train a network by a warm-up and a cosine to zero; return the seconds and the mean loss of each 100 steps."""
    module = _Training(network, loss, optimizer, steps, warmup)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begun = time.perf_counter()
    trainer.fit(module, batches)
    seconds = round(time.perf_counter() - begun)
    return {"seconds": seconds, "loss": [fmean(module.losses[at : at + 100]) for at in range(0, steps, 100)]}


class _Training(lightning.LightningModule):
    def __init__(
        self, network: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, steps: int, warmup: int
    ) -> None:
        super().__init__()
        self.network, self.loss, self.optimizer = network, loss, optimizer
        self.steps, self.warmup = steps, warmup
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = self.loss(self.network, batch)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        return schedule_steps(self.optimizer, self.steps, self.warmup)
