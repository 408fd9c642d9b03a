"""Guided depth upsampling: a network learns from composed scenes, for several factors in one run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from ddfnet.data.depth.synthetic import ComposedScenes, check_seed
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.pretrained import header_of
from ddfnet.tasks.depth import metrics
from ddfnet.tasks.depth.metrics import Errors
from ddfnet.tasks.depth.probes import DeadUnits
from ddfnet.training.samplers import ResumableBatchSampler
from ddfnet.training.schedules import schedule_steps

Batch = dict[str, Tensor]
_SHOWN = 3  # scenes in the log
_AHEAD = 4  # batches that a worker may be ahead, for scenes differ in what they take


class GuidedDepth(lightning.LightningModule):
    r"""Trains a network to enlarge depth maps with a photograph, measured against aligned bilinear interpolation.

    .. math::
        L = \frac1N \sum_i \sqrt{\frac{mse_i}{mse^{bilinear}_i} + 10^{-6}} + a\, \frac{mae_i}{mae^{bilinear}_i}

    at full size, plus ``stage_weight`` times the same after each stage before. Both errors of bilinear interpolation
    have a small floor, so that every picture counts alike, whatever its unit and however easy it is. A step sees one
    factor, drawn by seed and step.

    Args:
        network: a `GuidedUpsampler`, whose ``levels`` are trained and whose ``options`` the checkpoints keep.
        factors: powers of two that the network serves.
        learning_rate: of AdamW, at its peak; it falls to zero along a cosine.
        warmup_steps: over which it rises.
        weight_decay: of AdamW.
        betas: of AdamW.
        absolute_weight: a, the weight of the absolute error beside the root of the squared one.
        stage_weight: of the depth after each stage but the last.
        channels_last: train in that memory format, which the CPU's kernels are fastest in.
        seed: of the factors.

    Raises:
        ValueError: no factors, or one that is no power of two; a weight or a rate out of range.
    """

    forward_methods = ("levels",)  # of the network, that are called instead of `forward`

    def __init__(
        self,
        network: GuidedUpsampler,
        factors: Sequence[int] = (4, 8, 16),
        learning_rate: float = 1e-3,
        warmup_steps: int = 100,
        weight_decay: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.98),
        absolute_weight: float = 0.5,
        stage_weight: float = 0.15,
        channels_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not factors or any(f < 2 or f & (f - 1) for f in factors):
            raise ValueError(f"factors must be powers of two from 2 on, got {list(factors)}")
        largest = network.scale_factor
        if max(factors) > largest:
            raise ValueError(f"factors must be at most the network's scale_factor, {largest}, got {list(factors)}")
        for name, value in (
            ("learning_rate", learning_rate),
            ("warmup_steps", warmup_steps),
            ("weight_decay", weight_decay),
            ("absolute_weight", absolute_weight),
            ("stage_weight", stage_weight),
        ):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas must be from 0 to below 1, got {list(betas)}")
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
        """The errors after each stage, the enlarged depth and the bilinear one (N, 1, H, W)."""
        truth, valid = batch["depth"], batch["valid"]
        guide = batch["guide"].to(truth.dtype).div_(255).contiguous(memory_format=self.format)
        low, low_valid = (metrics.every(x, factor) for x in (batch["measured"], valid))
        levels = self.network.levels(low, guide, low_valid, scale_factor=factor)
        bilinear = metrics.bilinear(low, low_valid, factor)
        some = low_valid.any(3, keepdim=True).any(2, keepdim=True)  # nothing can be known where nothing is given
        errors = []
        for depth, known in levels:
            step = truth.shape[-1] // depth.shape[-1]
            own_truth, own_valid, own_bilinear = (metrics.every(x, step) for x in (truth, valid, bilinear))
            errors.append(Errors.measure(depth.float(), own_bilinear, own_truth, own_valid & some, known))
        return errors, levels[-1][0].float(), bilinear

    def factor(self, step: int) -> int:
        """The factor of a training step, by seed and step alone."""
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
            self.parameters(), lr=self.learning_rate, betas=self.betas, weight_decay=self.weight_decay
        )
        return schedule_steps(optimizer, int(self.trainer.estimated_stepping_batches), self.warmup_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["header"] = header_of(self.network).as_dict()

    def _show(self, factor: int, batch: Batch, depth: Tensor, bilinear: Tensor) -> None:
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                image = metrics.sample_grid(batch, depth, bilinear, factor, _SHOWN)
                logger.experiment.add_image(f"x{factor}: guide, low, bilinear, network, truth", image, self.global_step)


class GuidedDepthData(lightning.LightningDataModule):
    """Composed scenes: batch t of a run is the same whenever and on whatever worker it is made.

    Args:
        batch_size: scenes a step, over all processes and accumulated batches.
        size: pixels a side.
        multiple: of which the size must be one: the largest factor.
        workers: processes that compose scenes; 0 for none but the training one.
        photographs: files and folders, for textures, besides what scikit-image carries.
        noise: of the depth, see `ComposedScenes`.
        holes: in the depth, see `ComposedScenes`.
        misalignment: of depth and picture, see `ComposedScenes`.
        validation_scenes: how many.
        validation_seed: of the validation scenes, the same for all runs.
        seed: of the training scenes.

    Returns:
        Batches of `ComposedScenes`: ``guide`` (N, 3, S, S), ``depth``, ``measured`` and ``valid`` (N, 1, S, S).

    Raises:
        ValueError: a count or a size below 1; the same seed for both sets; what `ComposedScenes` refuses.
        DataError: when a run begins: a batch that the processes cannot share.
    """

    def __init__(
        self,
        batch_size: int = 8,
        size: int = 256,
        multiple: int = 16,
        workers: int = 1,
        photographs: Sequence[str] = (),
        noise: float = 0.0,
        holes: float = 0.0,
        misalignment: float = 0.0,
        validation_scenes: int = 64,
        validation_seed: int = 1_000_003,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("size", size), ("validation_scenes", validation_scenes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if size % multiple:
            raise ValueError(f"size must be a multiple of the largest factor, {multiple}, got {size}")
        if workers < 0:
            raise ValueError(f"workers must not be negative, got {workers}")
        check_seed("seed", seed)
        check_seed("validation_seed", validation_seed)
        if seed == validation_seed:
            raise ValueError(f"validation_seed must differ from seed, or training would see its scenes, got {seed}")
        self.batch_size, self.workers, self.seed = batch_size, workers, seed
        self.scenes = partial(
            ComposedScenes,
            size=size,
            more_photographs=tuple(photographs),
            noise=noise,
            holes=holes,
            misalignment=misalignment,
        )
        self.validation_set = self.scenes(validation_scenes, seed=validation_seed)

    def setup(self, stage: str) -> None:
        trainer = self.trainer
        if trainer is not None and stage == "fit":
            self.train_set = self.scenes(
                ResumableBatchSampler.from_trainer(trainer, self.batch_size).num_items, seed=self.seed
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        assert trainer is not None
        return self._loader(self.train_set, batch_sampler=ResumableBatchSampler.from_trainer(trainer, self.batch_size))

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader(self.validation_set, batch_size=self.batch_size)

    def _loader(self, scenes: ComposedScenes, **order: Any) -> DataLoader[Batch]:
        import cv2

        # Before the workers are forked, and not in them: they would wait for ever for OpenCV's threads, which they do
        # not have; and threads of theirs would take the training's cores.
        cv2.setNumThreads(1)
        ahead = _AHEAD if self.workers else None
        return DataLoader(scenes, num_workers=self.workers, prefetch_factor=ahead, **order)


def card(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the task's entries of the model card, see `ddfnet.tasks.Training`."""
    model: Any = trainer.lightning_module
    return {
        "network": model.network.init_args,
        "data": "scenes composed on the fly of photographs (ddfnet.data.depth.synthetic.ComposedScenes)",
        "factors": list(model.factors),
    }
