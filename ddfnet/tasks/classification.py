"""Classification: pictures and their augmentation, the network's training, and the share that is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import MulticlassAccuracy

from ddfnet.data import DataError, cifar10, pictures, shards
from ddfnet.data.items import NO_LABEL, MeasuredItems, Reader, Shuffled, StreamedItems, TrainingItems
from ddfnet.data.pictures import MemoryPictures, Pictures
from ddfnet.data.randomness import reseed
from ddfnet.nn.filters import ChannelBranch, SpatialBranch
from ddfnet.tasks.batches import Consecutive, Passes

Batch = dict[str, Tensor]
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


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
        momentum: of the optimizer, or its first beta.
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
        >>> from ddfnet.tasks.classification import Classifier
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
            network = create(**self.made_of)
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
        preprocessing = getattr(self.trainer.datamodule, "preprocessing", None)  # type: ignore[attr-defined]
        checkpoint["classifier"] = {"network": self.made_of, "preprocessing": preprocessing}

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
        from timm.optim import list_optimizers

        if self.optimizer not in list_optimizers():
            raise ValueError(f"optimizer must be one that timm.optim.list_optimizers() names, got {self.optimizer!r}")


def create(name: str, num_classes: int, options: dict[str, Any]) -> nn.Module:
    """A network by timm's name for it.

    Args:
        name: that timm knows, the package's own among them.
        num_classes: results.
        options: of ``timm.create_model``.

    Raises:
        ValueError: timm does not know it, or it does not know an option.
    """
    import timm

    import ddfnet.models  # noqa: F401  (registers them)

    if not timm.is_model(name):
        ours = timm.list_models("ddf_*") + timm.list_models("small_resnet*")
        raise ValueError(f"network must be a name that timm knows, such as {', '.join(ours)}, got {name!r}")
    try:
        network: nn.Module = timm.create_model(name, num_classes=num_classes, **options)
    except TypeError as error:  # an argument that a class does not take
        raise ValueError(f"network {name} with {options}: {error}") from None
    return network


# --- data -----------------------------------------------------------------------------------------------------------


class ClassificationData(lightning.LightningDataModule):
    """Batches of labelled, augmented pictures: batch t of a run is the same whenever and by whatever worker it is made.

    A batch is that of a step, whatever the number of processes and of accumulated batches: each has its share of it. So
    a run with more processes has the same batches, and its learning rate stays as it is.

    Args:
        path: of the pictures: a folder with ``train/CLASS`` and ``val/CLASS`` or ``test/CLASS``; torchvision's root; an
            archive of CIFAR-10; or shards, see `ddfnet.data.shards.urls`.
        source: what lies there: ``"folder"``, ``"shards"`` (WebDataset's), ``"cifar10"``, or the name of a class of
            ``torchvision.datasets``, such as ``"Flowers102"``.
        part: what is measured: the name of a folder or split, or the shards; None for ``val``, or else ``test``.
        samples: pictures of an epoch, which shards do not say.
        num_classes: of the network, which the pictures must agree with.
        batch_size: pictures a step, over all processes.
        size: pixels a side that the network sees.
        padding: cut training pictures of ``size`` out of ones with so many pixels of zeros on each side; None is a
            random part of the picture, resized.
        scale: share of the picture that such a part has, at least and at most.
        interpolation: of resizing in training, ``"bilinear"``, ``"bicubic"`` or ``"random"``, which is one of the two.
        flip: the probability of a mirrored picture.
        color_jitter: of brightness, contrast and saturation, up to this share; not with ``auto_augment``.
        auto_augment: timm's description, such as ``"rand-m7-mstd0.5-inc1"`` (RandAugment).
        erase: the probability of erased rectangles.
        erase_mode: what they are filled with: ``"const"`` (the mean), ``"rand"`` (a colour) or ``"pixel"`` (noise).
        erase_count: rectangles a picture, at most.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none; with both, one is drawn for each batch.
        measured_crop: of what is measured, the middle is cut out, this share of the shorter side.
        measured_interpolation: of resizing there.
        mean: of each channel, for values from 0 to 1.
        std: of each channel.
        on_bad_image: at a broken picture ``"stop"``, or ``"skip"`` it and say so.
        workers: processes that read and augment; 0 for none but the training one.
        seed: of order and augmentation.

    Returns:
        Batches with ``picture`` (N, C, size, size), float32, normalised, and ``label`` (N,), or after mixup
        (N, num_classes); -1 is the label of what does not count.

    Raises:
        ValueError: a value out of range.
        DataError: when a run begins: pictures that are missing, broken or of other classes; a batch that the processes
            cannot share.

    Example:
        >>> from PIL import Image
        >>> from ddfnet.tasks.classification import ClassificationData
        >>> data = ClassificationData("/data/imagenet", auto_augment="rand-m7-mstd0.5-inc1", erase=0.4, mixup=0.2)
        >>> data.augment(Image.new("RGB", (300, 200))).shape
        torch.Size([3, 224, 224])

    Source: the augmentation is timm's code.
    """

    def __init__(
        self,
        path: str = "",
        source: str = "folder",
        part: str | None = None,
        samples: int | None = None,
        num_classes: int = 1000,
        batch_size: int = 256,
        size: int = 224,
        padding: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        interpolation: Literal["random", "bilinear", "bicubic"] = "bilinear",
        flip: float = 0.5,
        color_jitter: float = 0.0,
        auto_augment: str | None = None,
        erase: float = 0.0,
        erase_mode: Literal["const", "rand", "pixel"] = "pixel",
        erase_count: int = 1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        measured_crop: float = 0.875,
        measured_interpolation: Literal["bilinear", "bicubic"] = "bicubic",
        mean: Sequence[float] = _IMAGENET_MEAN,
        std: Sequence[float] = _IMAGENET_STD,
        on_bad_image: Literal["stop", "skip"] = "stop",
        workers: int = 4,
        seed: int = 0,
    ) -> None:
        from timm.data import create_transform
        from timm.data.random_erasing import RandomErasing
        from torchvision import transforms

        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("size", size, 1), ("workers", workers, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        for name, share in (("flip", flip), ("erase", erase), ("measured_crop", measured_crop)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {share}")
        if measured_crop == 0:
            raise ValueError("measured_crop must be above 0, got 0.0")
        if padding is not None and padding < 0:
            raise ValueError(f"padding must not be negative, got {padding}")
        if len(mean) != len(std) or not all(deviation > 0 for deviation in std):
            raise ValueError(f"mean and std must have one value a channel, std above 0, got {mean} and {std}")
        self.path, self.source, self.part, self.samples = path, source, part, samples
        self.num_classes, self.batch_size, self.workers, self.seed = num_classes, batch_size, workers, seed
        self.skip = on_bad_image == "skip"
        self.mean, self.std = tuple(mean), tuple(std)
        common: dict[str, Any] = {"input_size": size, "use_prefetcher": True, "mean": self.mean, "std": self.std}
        crop, colours, last = create_transform(
            **common,
            is_training=True,
            separate=True,
            scale=scale,
            hflip=flip,
            color_jitter=color_jitter or None,
            auto_augment=auto_augment,
            interpolation=interpolation,
        )
        if padding is not None:
            move = transforms.RandomCrop(size, padding)
            crop = transforms.Compose([move, transforms.RandomHorizontalFlip(flip)])
        self.augment = transforms.Compose([*crop.transforms, *colours.transforms, *last.transforms])
        self.prepare = create_transform(**common, crop_pct=measured_crop, interpolation=measured_interpolation)
        self.preprocessing = {
            "size": size,
            "measured_crop": measured_crop,
            "measured_interpolation": measured_interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        self.erase = partial(RandomErasing, erase, mode=erase_mode, max_count=erase_count) if erase else None
        self.mix = self._mixer(mixup, cutmix)
        self.opened: dict[bool, Pictures] = {}

    def setup(self, stage: str) -> None:
        """Open the pictures now: what is wrong with them is said before anything is trained."""
        if self.source == "shards":
            shards.urls(self.path, self.part, False)
        else:
            for training in (True, False) if stage == "fit" else (False,):
                self.pictures(training)

    def pictures(self, training: bool) -> Pictures:
        """What is trained on, or measured: read once."""
        if training not in self.opened:
            if not self.path:
                raise DataError("no pictures are named; give --data.path")
            if self.source == "cifar10":
                splits = cifar10.load(Path(self.path))
                for kind, own in ((True, splits.train), (False, splits.test)):
                    self.opened[kind] = MemoryPictures(own, splits.classes)
            else:
                part = None if training else self.part
                self.opened[training] = (
                    pictures.folder(Path(self.path), part, training)
                    if self.source == "folder"
                    else pictures.TorchvisionPictures(self.source, Path(self.path), part, training)
                )
            self._check_classes(self.opened[training])
        return self.opened[training]

    @property
    def batches(self) -> int:
        """Of an epoch, for each process; a multiple of those that are accumulated."""
        if self.source == "shards":
            if not self.samples:
                raise DataError("shards do not say how many pictures there are; give --data.samples")
            count = self.samples
        else:
            count = len(self.pictures(True))
        if count < self.batch_size:
            raise DataError(f"{count} pictures are fewer than a batch of {self.batch_size}; lower --data.batch_size")
        return count // self.batch_size * self._accumulated

    def train_dataloader(self) -> DataLoader[Any]:
        trainer, share, batches = self._trainer, self._share, self.batches
        if self.mix is not None and share % 2:
            raise DataError(f"mixup and cutmix need an even number of pictures in each process, got {share}")
        place = {"rank": trainer.global_rank, "ranks": trainer.world_size}
        order = Passes(share, batches, lambda: trainer.global_step * trainer.accumulate_grad_batches, **place)
        if self.source == "shards":
            urls = shards.urls(self.path, None, True)
            streams = max(1, self.workers)
            batch: Any = shards.ShardBatches(
                urls, size=share, batches=batches, streams=streams, seed=self.seed, **place
            )
        else:
            batch = Shuffled(self.pictures(True), batches * share * trainer.world_size, self.seed)
        items = TrainingItems(batch, self._reader(self.augment), self.seed)
        return DataLoader(items, batch_sampler=order, **self._loading)

    def val_dataloader(self) -> Any:
        trainer, share, reader = self._trainer, self._share, self._reader(self.prepare)
        place = {"rank": trainer.global_rank, "ranks": trainer.world_size}
        if self.source == "shards":
            stream = shards.EveryShard(shards.urls(self.path, self.part, False), **place)
            return Even(DataLoader(StreamedItems(stream, reader, share), batch_size=None, **self._loading), trainer)
        items = MeasuredItems(self.pictures(False), reader)
        batches = -(-len(items.pictures) // (share * trainer.world_size))
        return DataLoader(items, batch_sampler=Consecutive(share, batches, **place), **self._loading)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise, erase and mix: what is done to whole batches, on the device."""
        images, labels = batch["picture"], batch["label"]
        mean, std = (
            torch.tensor(values, device=images.device).view(-1, 1, 1) * 255 for values in (self.mean, self.std)
        )
        images = (images.float() - mean) / std
        if self.trainer is not None and self.trainer.training:
            # Below 0: other numbers than the pictures'. What is random in the network draws from the same.
            reseed(self.seed, -1 - int(batch["position"][0]), devices=True)
            if self.erase is not None:
                images = self.erase(device=str(images.device))(images)
            if self.mix is not None:
                images, labels = self.mix(images, labels)
        return {"picture": images, "label": labels}

    @property
    def _trainer(self) -> lightning.Trainer:
        if self.trainer is None:
            raise RuntimeError("the loaders need a trainer, whose processes they share the pictures among")
        return self.trainer

    @property
    def _accumulated(self) -> int:
        return int(self._trainer.accumulate_grad_batches)

    @property
    def _share(self) -> int:
        """Pictures of one process and one of the batches that are accumulated."""
        parts = self._trainer.world_size * self._accumulated
        if self.batch_size % parts:
            raise DataError(
                f"batch_size must be a multiple of {parts}, {self._trainer.world_size} processes times "
                f"{self._accumulated} accumulated batches, got {self.batch_size}"
            )
        return self.batch_size // parts

    @property
    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "pin_memory": self._trainer.strategy.root_device.type == "cuda",
            "collate_fn": default_collate,
        }

    def _reader(self, transform: Any) -> Reader:
        return Reader(transform, self.num_classes, self.skip)

    def _check_classes(self, found: Pictures) -> None:
        if (count := len(found.classes)) and count != self.num_classes:
            raise DataError(
                f"{self.path} has {count} classes, and the network {self.num_classes}; give --model.num_classes {count}"
            )
        known = [each.classes for each in self.opened.values() if len(each.classes)]
        if any(list(classes) != list(known[0]) for classes in known):
            raise DataError(f"{self.path}: the classes to train on and to measure are not the same")

    def _mixer(self, mixup: float, cutmix: float) -> Any:
        from timm.data.mixup import Mixup

        if mixup < 0 or cutmix < 0:
            raise ValueError(f"mixup and cutmix must not be negative, got {mixup} and {cutmix}")
        if not mixup and not cutmix:
            return None
        return Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=self.num_classes)  # the loss smooths


class Even:
    """The batches of a loader, in each process as many as in the one that has most: the others go on with empty ones.

    Processes that share a network wait for each other at each batch, and shards do not say how many pictures they hold.
    """

    def __init__(self, loader: DataLoader[Any], trainer: lightning.Trainer) -> None:
        self.loader, self.trainer = loader, trainer

    def __iter__(self) -> Iterator[Batch]:
        batches, agree = iter(self.loader), self.trainer.strategy.reduce_boolean_decision
        batch: Batch | None = next(batches, None)
        if not agree(batch is not None, all=True) or batch is None:
            raise DataError("a process has no pictures to measure; use fewer processes or more shards")
        filler = batch | {"label": torch.full_like(batch["label"], NO_LABEL)}
        while agree(batch is not None, all=False):
            yield filler if batch is None else batch
            batch = next(batches, None)
