"""Training of classifiers, and their top-1 and top-5 accuracy."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from ddfnet.arguments import check_range
from ddfnet.data.classification.items import NO_LABEL
from ddfnet.models.classifier import building_options, create_classifier
from ddfnet.nn import param_groups
from ddfnet.pretrained import Header, header_of
from ddfnet.tasks.classification.data import Batch, ClassificationData
from ddfnet.training.precision import adam_eps, at_least_float32, weights_dtype


class Classifier(lightning.LightningModule):
    r"""Classification with cross-entropy, an optimizer of timm's, and a cosine schedule with warm-up.

    .. math::
        \eta_t = \eta_{min} + \tfrac12 (\eta - \eta_{min}) \left(1 + \cos \frac{\pi t}{T}\right)

    at each step t, after a linear warm-up. The branches that predict filters may have a learning rate and a weight
    decay of their own.

    Args:
        network: a name that timm knows, the ``ddf_*`` and ``small_resnet23`` of `ddfnet.models` among them; or a
            module, (N, C, H, W) -> logits (N, num_classes).
        num_classes: number of classes, at least 2.
        network_options: options of ``timm.create_model``, such as ``{"block_args": {"norm": "sigmoid"}}``: those of
            `ddfnet.models.timm_options`, which its file keeps, and those of the first weights, such as ``pretrained``.
        optimizer: timm's name; ``"momentum"`` is SGD, and ``"sgd"`` SGD with Nesterov's momentum.
        learning_rate: the peak of the schedule.
        momentum: momentum of SGD; optimizers such as Adam have their own betas.
        weight_decay: decay of all parameters, or of those that ``decay_norm_and_bias`` leaves.
        decay_norm_and_bias: decay biases, and scales and shifts of normalisations, too.
        warmup_epochs: length of the warm-up.
        warmup_lr: learning rate at the start of the warm-up.
        min_lr: learning rate at the end.
        cooldown_epochs: epochs at ``min_lr``, at the end of the run.
        label_smoothing: from 0 to below 1.
        filter_lr_scale: factor of the learning rate for the branches that predict filters.
        filter_decay: weight decay of these branches; None for that of all others.
        channels_last: train in the channels_last memory format, in which convolutions and filters are fastest.
        compile: compile the network with ``torch.compile``.
        seed: seed of random numbers in the network.

    Returns:
        From ``forward(images)``: the logits. ``trainer.validate`` gives ``top1``, ``top5`` (top-n with
        n < 5 classes) and ``val_loss``.

    Raises:
        ValueError: an unknown network or optimizer; a value is out of range.

    Example:
        >>> import torch
        >>> from ddfnet.tasks.classification.module import Classifier
        >>> model = Classifier("small_resnet23", num_classes=10, network_options={"mixer": "conv"}).eval()
        >>> model(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    Source: the schedule is Loshchilov and Hutter, SGDR, ICLR 2017; optimizers and schedule are timm's code.
    """

    def __init__(
        self,
        network: str | nn.Module,
        num_classes: PositiveInt,
        network_options: dict[str, Any] | None = None,
        optimizer: str = "momentum",
        learning_rate: NonNegativeFloat = 0.1,
        momentum: NonNegativeFloat = 0.9,
        weight_decay: NonNegativeFloat = 1e-4,
        decay_norm_and_bias: bool = True,
        warmup_epochs: NonNegativeFloat = 0,
        warmup_lr: NonNegativeFloat = 1e-4,
        min_lr: NonNegativeFloat = 1e-5,
        cooldown_epochs: NonNegativeFloat = 0,
        label_smoothing: ClosedUnitInterval = 0.0,
        filter_lr_scale: NonNegativeFloat = 1.0,
        filter_decay: NonNegativeFloat | None = None,
        channels_last: bool = True,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        num_classes = check_range("num_classes", num_classes, 2)
        learning_rate = check_range("learning_rate", learning_rate, 0)
        momentum = check_range("momentum", momentum, 0)
        weight_decay = check_range("weight_decay", weight_decay, 0)
        warmup_epochs = check_range("warmup_epochs", warmup_epochs, 0)
        warmup_lr = check_range("warmup_lr", warmup_lr, 0)
        min_lr = check_range("min_lr", min_lr, 0)
        cooldown_epochs = check_range("cooldown_epochs", cooldown_epochs, 0)
        label_smoothing = check_range("label_smoothing", label_smoothing, 0, 1, open_high=True)
        filter_lr_scale = check_range("filter_lr_scale", filter_lr_scale, 0)
        filter_decay = weight_decay if filter_decay is None else check_range("filter_decay", filter_decay, 0)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.model_args: dict[str, Any] | None = None  # arguments that create the network
        if isinstance(network, str):
            arguments: dict[str, Any] = {"name": network, "num_classes": num_classes}
            self.model_args = {**arguments, "options": building_options(network_options or {})}
            network = create_classifier(**arguments, options=network_options)
        self.network = network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.optimizer, self.momentum = optimizer, momentum
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.decay_norm_and_bias = decay_norm_and_bias
        self.warmup_epochs, self.cooldown_epochs = warmup_epochs, cooldown_epochs
        self.warmup_lr, self.min_lr = warmup_lr, min_lr
        self.label_smoothing, self.num_classes = label_smoothing, num_classes
        self.filter_lr_scale = filter_lr_scale
        self.filter_decay = filter_decay
        self.compiled, self.seed = compile, seed
        self._check_optimizer()
        accuracy = partial(MulticlassAccuracy, num_classes, average="micro", ignore_index=NO_LABEL)
        self.top1, self.top5 = accuracy(), accuracy(top_k=min(5, num_classes))
        self.val_loss, self.measured = MeanMetric(), SumMetric()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images.to(weights_dtype(self.network)))
        return at_least_float32(logits)

    def setup(self, stage: str) -> None:
        if self.compiled and stage == "fit":
            self.network.compile()  # in place: the state dict keeps its names

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        logits = self(batch["image"].contiguous(memory_format=self.format))
        labels = batch["label"].to(logits.dtype) if batch["label"].is_floating_point() else batch["label"]
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        labels = batch["label"]
        logits = self(batch["image"].contiguous(memory_format=self.format)).float()
        losses = F.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="none")
        self.val_loss.update(losses[labels != NO_LABEL])
        self.measured.update((labels != NO_LABEL).sum())
        for name, metric in (("top1", self.top1), ("top5", self.top5)):
            metric.update(logits, labels)
            self.log(name, metric, prog_bar=True)
        self.log("val_loss", self.val_loss)

    def on_validation_epoch_start(self) -> None:
        for metric in (self.top1, self.top5, self.val_loss, self.measured):
            metric.reset()  # inference tensors of an earlier validation cannot be added to in training

    def on_validation_epoch_end(self) -> None:
        if self.trainer.state.fn == "fit":
            top1, loss = self.top1.compute().item(), self.val_loss.compute().item()
            self.print(f"epoch {self.trainer.current_epoch + 1}: top1 {top1:.4f}, val_loss {loss:.4f}")

    def configure_optimizers(self) -> Any:
        from timm.scheduler.cosine_lr import CosineLRScheduler

        optimizer = self._make_optimizer()
        epoch, steps = self._steps()
        schedule = CosineLRScheduler(
            optimizer,
            t_initial=max(1, steps - round(self.cooldown_epochs * epoch)),
            lr_min=self.min_lr,
            warmup_t=round(self.warmup_epochs * epoch),
            warmup_lr_init=self.warmup_lr,
            t_in_epochs=False,
        )
        schedule.step_update(0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        if isinstance(scheduler, SWALR):  # StochasticWeightAveraging puts it in the place of timm's
            scheduler.step()
        else:
            scheduler.step_update(self.global_step)  # timm's schedules have no state that could get lost

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["header"] = self.header.as_dict()
        checkpoint["recipe"] = self.recipe

    @property
    def header(self) -> Header:
        """Return the header of the network's files, see `ddfnet.pretrained`."""
        registered = self.model_args is None and hasattr(self.network, "kind")
        own = header_of(self.network) if registered else Header("classification", self.model_args)
        preprocessing = getattr(self.trainer.datamodule, "preprocessing", None)  # type: ignore[attr-defined]
        return own._replace(extra={**own.extra, "preprocessing": preprocessing})

    @property
    def recipe(self) -> dict[str, Any]:
        """Options that the optimizer's state depends on; a run is resumed only with the same."""
        return {
            "optimizer": self.optimizer,
            "decay_norm_and_bias": self.decay_norm_and_bias,
            "filter_lr_scale": self.filter_lr_scale,
            "filter_decay": self.filter_decay,
        }

    def _steps(self) -> tuple[int, int]:
        """Return the steps of an epoch and of the run.

        Lightning's own estimate would open the loader before a resumed run knows its position.
        """
        trainer = self.trainer
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ClassificationData):
            total = int(trainer.estimated_stepping_batches)
            return max(1, total // max(1, trainer.max_epochs or 1)), total
        limit, batches = trainer.limit_train_batches, data.batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * (limit or 0))
        epoch = max(1, batches // trainer.accumulate_grad_batches)
        counts = [epoch * (trainer.max_epochs or -1), trainer.max_steps]
        return epoch, min((count for count in counts if count > 0), default=1)

    def _make_optimizer(self) -> Any:
        from timm.optim import create_optimizer_v2

        return create_optimizer_v2(
            self._groups(), self.optimizer, lr=self.learning_rate, momentum=self.momentum, weight_decay=0.0
        )

    def _groups(self) -> list[dict[str, Any]]:
        """Return the parameters, grouped by learning-rate scale and weight decay."""
        groups = param_groups(
            self.network,
            self.weight_decay,
            filter_lr_scale=self.filter_lr_scale,
            filter_decay=self.filter_decay,
            decay_norm_and_bias=self.decay_norm_and_bias,
        )
        eps = {"eps": adam_eps(self.network)} if weights_dtype(self.network) == torch.float16 else {}
        return [group | eps for group in groups]

    def _check_optimizer(self) -> None:
        """Refuse a name that timm does not know before the run starts."""
        from timm.optim import create_optimizer_v2, list_optimizers

        if self.optimizer not in list_optimizers():
            raise ValueError(f"optimizer must be one that timm.optim.list_optimizers() names, got {self.optimizer!r}")
        try:
            create_optimizer_v2([nn.Parameter(torch.zeros(1))], self.optimizer, lr=0.1)
        except Exception as error:  # timm's errors for a missing library are of any kind
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"optimizer {self.optimizer!r} cannot be made here: {reason}") from None


def card(trainer: lightning.Trainer) -> dict[str, Any]:
    """Return the task's entries of the model card, see `ddfnet.tasks.Training`."""
    model: Any = trainer.lightning_module
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "network": model.model_args,
        "data": {"path": data.path, "source": data.source},
        "classes": data.classes,
        "preprocessing": data.preprocessing,
        "epochs": trainer.current_epoch,
    }
