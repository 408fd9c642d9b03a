"""Classification: a network's training, and the share of the pictures that it names right."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from ddfnet.data.classification.items import NO_LABEL
from ddfnet.models.classifier import create_classifier
from ddfnet.nn.branches import ChannelBranch, SpatialBranch
from ddfnet.pretrained import Header, header_of
from ddfnet.tasks.classification.data import Batch, ClassificationData


class Classifier(lightning.LightningModule):
    r"""Trains a network to name pictures: cross-entropy, an optimizer of timm's, a cosine with warm-up.

    .. math::
        \eta_t = \eta_{last} + \tfrac12 (\eta - \eta_{last}) \left(1 + \cos \frac{\pi t}{T}\right)

    after a linear rise, at each step t. The filters' branches may have a learning rate and a weight decay of their own.

    Args:
        network: a name that timm knows, the ``ddf_*`` and ``small_resnet23`` of `ddfnet.models` among them; or a
            module, (N, C, H, W) -> logits (N, num_classes).
        num_classes: how many.
        network_options: of ``timm.create_model``, such as ``{"block_args": {"norm": "sigmoid"}}``.
        optimizer: timm's name; ``"momentum"`` is SGD, and ``"sgd"`` SGD with Nesterov's momentum.
        learning_rate: at its peak.
        momentum: of SGD and its like; optimizers of Adam's kind have their own betas.
        weight_decay: of all parameters, or of those that `decay_vectors` leaves.
        decay_vectors: whether biases, and scales and shifts of normalisations, decay as well.
        warmup_epochs: over which the learning rate rises.
        first_learning_rate: from which it rises.
        last_learning_rate: to which it falls.
        cooldown_epochs: at the end, with that.
        label_smoothing: from 0 to below 1.
        filter_rate: the learning rate of the branches that predict filters, as a share of all others'.
        filter_decay: the branches' weight decay; None is that of all others.
        channels_last: train in that memory format, in which convolutions and filters are fastest.
        compile: whether ``torch.compile`` compiles the network.
        seed: of what is random in the network.

    Returns:
        From ``forward(pictures)``: the logits. ``trainer.validate`` gives ``top1``, ``top5`` (or of as many classes as
        there are) and ``val_loss``.

    Raises:
        ValueError: an unknown network or optimizer; a value out of range.

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
        num_classes: int,
        network_options: dict[str, Any] | None = None,
        optimizer: str = "momentum",
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        decay_vectors: bool = True,
        warmup_epochs: float = 0,
        first_learning_rate: float = 1e-4,
        last_learning_rate: float = 1e-5,
        cooldown_epochs: float = 0,
        label_smoothing: float = 0.0,
        filter_rate: float = 1.0,
        filter_decay: float | None = None,
        channels_last: bool = True,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (
            ("learning_rate", learning_rate),
            ("momentum", momentum),
            ("weight_decay", weight_decay),
            ("warmup_epochs", warmup_epochs),
            ("first_learning_rate", first_learning_rate),
            ("last_learning_rate", last_learning_rate),
            ("cooldown_epochs", cooldown_epochs),
            ("filter_rate", filter_rate),
            ("filter_decay", 0.0 if filter_decay is None else filter_decay),
        ):
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and not negative, got {value}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be from 0 to below 1, got {label_smoothing}")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.made_of: dict[str, Any] | None = None  # which makes the network again
        if isinstance(network, str):
            self.made_of = {"name": network, "num_classes": num_classes, "options": network_options or {}}
            network = create_classifier(**self.made_of)
        self.network = network.to(memory_format=self.format)  # type: ignore[call-overload]
        self.optimizer, self.momentum = optimizer, momentum
        self.learning_rate, self.weight_decay, self.decay_vectors = learning_rate, weight_decay, decay_vectors
        self.warmup_epochs, self.cooldown_epochs = warmup_epochs, cooldown_epochs
        self.first_learning_rate, self.last_learning_rate = first_learning_rate, last_learning_rate
        self.label_smoothing, self.num_classes = label_smoothing, num_classes
        self.filter_rate, self.filter_decay = filter_rate, weight_decay if filter_decay is None else filter_decay
        self.compiled, self.seed = compile, seed
        self._check_optimizer()
        accuracy = partial(MulticlassAccuracy, num_classes, average="micro", ignore_index=NO_LABEL)
        self.top1, self.top5 = accuracy(), accuracy(top_k=min(5, num_classes))
        self.val_loss, self.measured = MeanMetric(), SumMetric()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def setup(self, stage: str) -> None:
        if self.compiled and stage == "fit":
            self.network.compile()  # in place: the state dict keeps its names

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        logits = self(batch["picture"].contiguous(memory_format=self.format))
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.label_smoothing)
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        self.log("learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        labels = batch["label"]
        logits = self(batch["picture"].contiguous(memory_format=self.format)).float()
        losses = F.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="none")
        self.val_loss.update(losses[labels != NO_LABEL])
        self.measured.update((labels != NO_LABEL).sum())
        for name, metric in (("top1", self.top1), ("top5", self.top5)):
            metric.update(logits, labels)
            self.log(name, metric, prog_bar=True)
        self.log("val_loss", self.val_loss)

    def on_validation_epoch_start(self) -> None:
        for metric in (self.top1, self.top5, self.val_loss, self.measured):
            metric.reset()  # what measuring before training left cannot be added to in training

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
            lr_min=self.last_learning_rate,
            warmup_t=round(self.warmup_epochs * epoch),
            warmup_lr_init=self.first_learning_rate,
            t_in_epochs=False,
        )
        schedule.step_update(0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        scheduler.step_update(self.global_step)  # timm's way, which has no state to get lost

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["header"] = self.header.as_dict()
        checkpoint["recipe"] = self.recipe

    @property
    def header(self) -> Header:
        """Return the header of the network's files, see `ddfnet.pretrained`."""
        registered = self.made_of is None and hasattr(self.network, "kind")
        own = header_of(self.network) if registered else Header("classification", self.made_of)
        preprocessing = getattr(self.trainer.datamodule, "preprocessing", None)  # type: ignore[attr-defined]
        return own._replace(extra={**own.extra, "preprocessing": preprocessing})

    @property
    def recipe(self) -> dict[str, Any]:
        """What an optimizer's state depends on: a run goes on with the same alone."""
        return {
            "optimizer": self.optimizer,
            "decay_vectors": self.decay_vectors,
            "filter_rate": self.filter_rate,
            "filter_decay": self.filter_decay,
        }

    def _steps(self) -> tuple[int, int]:
        """Of an epoch, and of the run.

        Lightning's own estimate would open the loader before a run that goes on knows how far it is.
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
        """The parameters, by how fast they learn and how much they decay."""
        kinds = (SpatialBranch, ChannelBranch)
        branches = {p for module in self.network.modules() if isinstance(module, kinds) for p in module.parameters()}
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for parameter in self.network.parameters():
            rate, decay = (self.filter_rate, self.filter_decay) if parameter in branches else (1.0, self.weight_decay)
            decays = parameter.dim() > 1 or self.decay_vectors
            groups.setdefault((rate, decay if decays else 0.0), []).append(parameter)
        return [{"params": own, "lr_scale": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]

    def _check_optimizer(self) -> None:
        """Refuse a name that timm does not know now, and not when the run begins."""
        from timm.optim import create_optimizer_v2, list_optimizers

        if self.optimizer not in list_optimizers():
            raise ValueError(f"optimizer must be one that timm.optim.list_optimizers() names, got {self.optimizer!r}")
        try:
            create_optimizer_v2([nn.Parameter(torch.zeros(1))], self.optimizer, lr=0.1)
        except Exception as error:  # whatever a library that is not there makes timm raise
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"optimizer {self.optimizer!r} cannot be made here: {reason}") from None
