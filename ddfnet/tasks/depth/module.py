"""Training of guided depth upsampling on synthetic scenes, for several factors in one run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torchmetrics import MeanMetric

from ddfnet.arguments import check_range
from ddfnet.data.depth.synthetic import check_seed
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import header_of
from ddfnet.tasks.depth import metrics
from ddfnet.tasks.depth.data import Batch
from ddfnet.tasks.depth.metrics import Errors
from ddfnet.tasks.depth.probes import DeadUnits
from ddfnet.training.precision import adam_eps
from ddfnet.training.schedules import schedule_steps

_SHOWN = 3  # scenes in the log


class GuidedDepth(lightning.LightningModule):
    r"""Lightning module that trains a network for guided depth upsampling, relative to bilinear interpolation.

    .. math::
        L = \frac1N \sum_i \sqrt{\frac{mse_i}{mse^{bilinear}_i} + 10^{-6}} + a\, \frac{mae_i}{mae^{bilinear}_i}

    at full size, plus ``stage_weight`` times the same after each earlier stage. The errors of aligned bilinear
    interpolation have a small floor, so that images of any unit and difficulty count alike. Each step has one factor,
    drawn by seed and step.

    Args:
        network: network whose ``levels`` are trained; checkpoints keep its ``init_args``.
        factors: powers of two that the network serves.
        learning_rate: peak learning rate of AdamW; it falls to zero along a cosine.
        warmup_steps: steps over which the learning rate rises.
        weight_decay: weight decay of AdamW.
        betas: betas of AdamW.
        absolute_weight: a, the weight of the absolute error beside the root of the squared one.
        stage_weight: weight of the depth after each stage but the last.
        channels_last: train in that memory format, in which CPU kernels are fastest.
        seed: seed of the factors.

    Raises:
        ValueError: no factors, or one that is no power of two; a weight or a rate out of range.
    """

    forward_methods = ("levels",)  # methods of the network that are called instead of `forward`

    def __init__(
        self,
        network: GuidedUpsampler,
        factors: Sequence[int] = (4, 8, 16),
        learning_rate: NonNegativeFloat = 1e-3,
        warmup_steps: NonNegativeInt = 100,
        weight_decay: NonNegativeFloat = 1e-4,
        betas: tuple[float, float] = (0.9, 0.98),
        absolute_weight: NonNegativeFloat = 0.5,
        stage_weight: NonNegativeFloat = 0.15,
        channels_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not factors or any(f < 2 or f & (f - 1) for f in factors):
            raise ValueError(f"factors must be powers of two from 2 on, got {list(factors)}")
        largest = network.scale_factor
        if max(factors) > largest:
            raise ValueError(f"factors must be at most the network's scale_factor, {largest}, got {list(factors)}")
        learning_rate = check_range("learning_rate", learning_rate, 0)
        warmup_steps = check_range("warmup_steps", warmup_steps, 0)
        weight_decay = check_range("weight_decay", weight_decay, 0)
        absolute_weight = check_range("absolute_weight", absolute_weight, 0)
        stage_weight = check_range("stage_weight", stage_weight, 0)
        for beta in betas:
            check_range("betas", beta, 0, 1, open_high=True)
        check_seed("seed", seed)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.factors = tuple(factors)
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.weight_decay, self.betas = weight_decay, betas
        self.absolute_weight, self.stage_weight = absolute_weight, stage_weight
        self.seed = seed
        self.ratios = nn.ModuleDict({f"x{factor}": MeanMetric() for factor in self.factors})

    def levels(self, batch: Batch, factor: int) -> tuple[list[Errors], Tensor, Tensor]:
        """Return the errors after each stage, the upsampled depth and the bilinear one (N, 1, H, W)."""
        truth, valid = batch["depth"], batch["valid"]
        guide = batch["guide"].to(truth.dtype).div_(255).contiguous(memory_format=self.format)
        low, low_valid = (metrics.every(x, factor) for x in (batch["measured"], valid))
        levels = self.network.levels(low, guide, low_valid, scale_factor=factor)
        bilinear = metrics.bilinear(low, low_valid, factor)
        some = low_valid.any(3, keepdim=True).any(2, keepdim=True)  # an image without a valid sample has no prediction
        errors = []
        for depth, known in levels:
            step = truth.shape[-1] // depth.shape[-1]
            own_truth, own_valid, own_bilinear = (metrics.every(x, step) for x in (truth, valid, bilinear))
            errors.append(Errors.measure(depth.float(), own_bilinear, own_truth, own_valid & some, known))
        return errors, levels[-1][0].float(), bilinear

    def factor(self, step: int) -> int:
        """Draw the factor of a training step, by seed and step alone."""
        return self.factors[int(np.random.default_rng((self.seed, step)).integers(len(self.factors)))]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        factor = self.factor(self.global_step)
        errors, *_ = self.levels(batch, factor)
        losses = [e.loss(self.absolute_weight).mean() for e in errors]
        loss = losses[-1] + self.stage_weight * sum(losses[:-1])
        ratio = errors[-1].ratio().detach().mean()
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        self.log("train_ratio", ratio, prog_bar=True, sync_dist=True)
        self.log(f"train_ratio_x{factor}", ratio, sync_dist=True)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        for factor in self.factors:
            with DeadUnits(self.network) as units:
                errors, depth, bilinear = self.levels(batch, factor)
            metric = self.ratios[f"x{factor}"]
            metric(errors[-1].ratio())
            self.log(f"ratio_x{factor}", metric, on_epoch=True, on_step=False)
            if batch_index == 0:
                self._show(factor, batch, depth, bilinear)
                if factor == max(self.factors):  # all stages run
                    self.log("dead_units", units.share(), on_epoch=True, on_step=False)

    def on_validation_epoch_end(self) -> None:
        metrics = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        names = [*(f"ratio_x{factor}" for factor in self.factors), "dead_units"]
        values = ", ".join(f"{name} {metrics[name]:.3f}" for name in names if name in metrics)
        if self.trainer.state.fn == "fit":
            self.print(f"step {self.global_step}: {values}")

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(),
            lr=self.learning_rate,
            betas=self.betas,
            eps=adam_eps(self.network),
            weight_decay=self.weight_decay,
        )
        return schedule_steps(optimizer, int(self.trainer.estimated_stepping_batches), self.warmup_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["header"] = header_of(self.network).as_dict()

    def _show(self, factor: int, batch: Batch, depth: Tensor, bilinear: Tensor) -> None:
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                image = metrics.sample_grid(batch, depth, bilinear, factor, _SHOWN)
                logger.experiment.add_image(f"x{factor}: guide, low, bilinear, network, truth", image, self.global_step)


def card(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the task's entries of the model card, see `ddfnet.tasks.Training`."""
    model: Any = trainer.lightning_module
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "network": model.network.init_args,
        "data": data.description,
        "factors": list(model.factors),
    }
