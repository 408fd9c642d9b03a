"""Batches of labelled pictures: where they come from, how they are augmented, and how processes share them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from ddfnet.data.classification import cifar10, images, webdataset
from ddfnet.data.classification.images import MemoryPictures, Pictures
from ddfnet.data.classification.items import NO_LABEL, MeasuredItems, Reader, Shuffled, StreamedItems, TrainingItems
from ddfnet.data.seeding import reseed
from ddfnet.errors import DataError
from ddfnet.training.samplers import Consecutive, Passes, own_share

Batch = dict[str, Tensor]
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ClassificationData(lightning.LightningDataModule):
    """Batches of labelled, augmented pictures: batch t of a run is the same whenever and by whatever worker it is made.

    A batch is that of a step, whatever the number of processes and of accumulated batches: each has its share of it. So
    a run with more processes has the same batches, and its learning rate stays as it is.

    Args:
        path: of the pictures: a folder with ``train/CLASS`` and ``val/CLASS`` or ``test/CLASS``; torchvision's root; an
            archive of CIFAR-10; or shards, see `ddfnet.data.classification.webdataset.urls`.
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
        >>> from ddfnet.tasks.classification.data import ClassificationData
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
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be two shares above 0, the smaller first, up to 1, got {tuple(scale)}")
        if erase_count < 1:
            raise ValueError(f"erase_count must be at least 1, got {erase_count}")
        if measured_crop == 0:
            raise ValueError("measured_crop must be above 0, got 0.0")
        if padding is not None and padding < 0:
            raise ValueError(f"padding must not be negative, got {padding}")
        if len(mean) != len(std) or not all(deviation > 0 for deviation in std):
            raise ValueError(f"mean and std must have one value a channel, std above 0, got {mean} and {std}")
        self.path, self.source, self.part, self.samples = path, source, part, samples
        self.num_classes, self.batch_size, self.workers, self.seed = num_classes, batch_size, workers, seed
        images.check_on_bad("on_bad_image", on_bad_image)
        self.skip = on_bad_image == "skip"
        self.mean, self.std = tuple(mean), tuple(std)
        common: dict[str, Any] = {"input_size": size, "use_prefetcher": True, "mean": self.mean, "std": self.std}
        try:
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
        except (AssertionError, KeyError, IndexError, ValueError):  # timm's, without a word
            example = "rand-m7-mstd0.5-inc1"
            raise ValueError(f"auto_augment must be timm's description, as {example!r}, got {auto_augment!r}") from None
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
            webdataset.urls(self.path, self.part, False)
        else:
            for training in (True, False) if stage == "fit" else (False,):
                self.pictures(training)

    def images(self, training: bool) -> Pictures:
        """What is trained on, or measured: read once."""
        if training not in self.opened:
            if not self.path:
                raise DataError("no pictures are named; give --data.path")
            if self.source == "cifar10":
                if self.part is not None:
                    raise DataError(f"cifar10 has a test part of its own; leave part out, got {self.part!r}")
                splits = cifar10.load(Path(self.path), skip=self.skip)
                for kind, own in ((True, splits.train), (False, splits.test)):
                    self.opened[kind] = MemoryPictures(own, splits.classes)
            else:
                part = None if training else self.part
                self.opened[training] = (
                    images.folder(Path(self.path), part, training)
                    if self.source == "folder"
                    else images.TorchvisionPictures(self.source, Path(self.path), part, training)
                )
            self._check_classes(self.opened[training])
        return self.opened[training]

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, in the order of the labels; None where the pictures do not say."""
        return next((list(own.classes) for own in self.opened.values() if len(own.classes)), None)

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
            urls = webdataset.urls(self.path, None, True)
            streams = max(1, self.workers)
            batch: Any = webdataset.ShardBatches(
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
            stream = webdataset.EveryShard(webdataset.urls(self.path, self.part, False), **place)
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
        return own_share(self._trainer, self.batch_size)

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
                f"{self.path} has {count} classes, and the network {self.num_classes}; train with "
                f"--model.num_classes {count}"
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
            several = "a process has no pictures to measure; use fewer processes or more shards"
            raise DataError(several if self.trainer.world_size > 1 else "the shards to measure on have no pictures")
        filler = batch | {"label": torch.full_like(batch["label"], NO_LABEL)}
        while agree(batch is not None, all=False):
            yield filler if batch is None else batch
            batch = next(batches, None)
