"""Training of guided depth upsampling on synthetic scenes, for several factors in one run."""

from __future__ import annotations

import itertools
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
from ddfnet.depth.network import DepthNetwork, GuidedUpsampler, default_model
from ddfnet.depth.samples import SAMPLES
from ddfnet.errors import DataError
from ddfnet.pretrained import header_of, load
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
    interpolation have a small floor, so that images of any unit and difficulty count alike. Each step has one factor
    and one way of sampling, drawn by seed and step.

    A network learns fastest where each stage carries the depth alone and counts. `ddfnet.upsample_depth` carries planes
    and fits the map to averages, and both are a part of what is trained where the last stage alone counts: for averages
    always, for points with a ``stage_weight`` of 0.

    Args:
        network: network that is trained, `GuidedUpsampler` or another `DepthNetwork`; checkpoints keep its
            ``init_args``.
        factors: powers of two that the network serves.
        samples: ways in which samples are taken, see `ddfnet.depth.samples`; one named twice is drawn twice as often.
        initial: weights to begin with: a file of the same network, whose coarse trunks may have fewer blocks; "auto"
            for those of the package; None for new ones.
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

    forward_methods = ("levels", "upsample")  # methods of the network that are called instead of `forward`

    def __init__(
        self,
        network: DepthNetwork,
        factors: Sequence[int] = (4, 8, 16),
        samples: Sequence[str] = ("point",),
        initial: str | None = None,
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
        if not samples or not set(samples) <= set(SAMPLES):
            raise ValueError(f"samples must be some of {', '.join(SAMPLES)}, got {list(samples)}")
        learning_rate = check_range("learning_rate", learning_rate, 0)
        warmup_steps = check_range("warmup_steps", warmup_steps, 0)
        weight_decay = check_range("weight_decay", weight_decay, 0)
        absolute_weight = check_range("absolute_weight", absolute_weight, 0)
        stage_weight = check_range("stage_weight", stage_weight, 0)
        for beta in betas:
            check_range("betas", beta, 0, 1, open_high=True)
        check_seed("seed", seed)
        if initial is not None:
            _begin_with(network, initial)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.factors, self.samples = tuple(factors), tuple(samples)
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.weight_decay, self.betas = weight_decay, betas
        self.absolute_weight, self.stage_weight = absolute_weight, stage_weight
        self.seed = seed
        self.ratios = nn.ModuleDict(
            {_name(factor, way): MeanMetric() for factor in self.factors for way in self.samples}
        )

    def levels(self, batch: Batch, factor: int, samples: str = "point") -> tuple[list[Errors], Tensor, Tensor]:
        """Return the errors after each stage, the upsampled depth and the bilinear one (N, 1, H, W)."""
        truth, valid = batch["depth"], batch["valid"]
        guide = batch["guide"].to(truth.dtype).div_(255).contiguous(memory_format=self.format)
        low, low_valid = metrics.take(batch["measured"], valid, factor, samples)
        if samples == "point" and self.stage_weight:
            levels = self.network.levels(low, guide, low_valid, scale_factor=factor)
        else:
            levels = [self.network.upsample(low, guide, low_valid, scale_factor=factor, samples=samples)]
        bilinear = metrics.bilinear(low, low_valid, factor, samples)
        some = low_valid.any(3, keepdim=True).any(2, keepdim=True)  # an image without a valid sample has no prediction
        errors = []
        for depth, known in levels:
            step = truth.shape[-1] // depth.shape[-1]
            own_truth, own_valid, own_bilinear = (metrics.every(x, step) for x in (truth, valid, bilinear))
            errors.append(Errors.measure(depth.float(), own_bilinear, own_truth, own_valid & some, known))
        return errors, levels[-1][0].float(), bilinear

    def draw(self, step: int) -> tuple[int, str]:
        """Draw the factor and the way of sampling of a training step, by seed and step alone."""
        rng = np.random.default_rng((self.seed, step))
        factor = self.factors[int(rng.integers(len(self.factors)))]
        return factor, self.samples[int(rng.integers(len(self.samples)))]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        factor, samples = self.draw(self.global_step)
        errors, *_ = self.levels(batch, factor, samples)
        losses = [e.loss(self.absolute_weight).mean() for e in errors]
        loss = losses[-1] + self.stage_weight * sum(losses[:-1])
        ratio = errors[-1].ratio().detach().mean()
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        self.log("train_ratio", ratio, prog_bar=True, sync_dist=True)
        self.log(f"train_ratio_{_name(factor, samples)}", ratio, sync_dist=True)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        for factor, samples in itertools.product(self.factors, dict.fromkeys(self.samples)):
            with DeadUnits(self.network) as units:
                errors, depth, bilinear = self.levels(batch, factor, samples)
            name = _name(factor, samples)
            metric = self.ratios[name]
            metric(errors[-1].ratio())
            self.log(f"ratio_{name}", metric, on_epoch=True, on_step=False)
            if batch_index == 0:
                self._show(factor, samples, batch, depth, bilinear)
                if factor == max(self.factors):  # all stages run
                    self.log("dead_units", units.share(), on_epoch=True, on_step=False)

    def on_validation_epoch_end(self) -> None:
        metrics = {name: value.item() for name, value in self.trainer.callback_metrics.items()}
        names = [*(f"ratio_{name}" for name in self.ratios), "dead_units"]
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

    def _show(self, factor: int, samples: str, batch: Batch, depth: Tensor, bilinear: Tensor) -> None:
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                image = metrics.sample_grid(batch, depth, bilinear, factor, _SHOWN, samples)
                title = f"{_name(factor, samples)}: guide, low, bilinear, network, truth"
                logger.experiment.add_image(title, image, self.global_step)


def _begin_with(network: DepthNetwork, initial: str) -> None:
    """Copy the weights of a file into a network of the same options, see `GuidedUpsampler.begin_with`."""
    if not isinstance(network, GuidedUpsampler):
        raise DataError(f"model.initial must be null for a {type(network).__name__}, got {initial!r}")
    trained = default_model() if initial == "auto" else load(initial, GuidedUpsampler)
    try:
        network.begin_with(trained)
    except ValueError as error:
        raise DataError(f"{initial}: {error}; give model.network.init_args these values") from None


def _name(factor: int, samples: str) -> str:
    """Return the name of a factor and a way of sampling in logs: points have none of their own."""
    return f"x{factor}" if samples == "point" else f"x{factor}_{samples}"


def card(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the task's entries of the model card, see `ddfnet.tasks.Training`."""
    model: Any = trainer.lightning_module
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "network": model.network.init_args,
        "data": data.description,
        "factors": list(model.factors),
        "samples": list(model.samples),
    }
