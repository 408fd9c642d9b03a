"""Batches of labelled images: their sources, their augmentation, and their division among processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from ddfnet.arguments import check_choice, check_range
from ddfnet.data.classification import webdataset
from ddfnet.data.classification.images import LabelledImages, RelabelledImages
from ddfnet.data.classification.items import (
    NO_LABEL,
    EvaluationItems,
    ItemReader,
    ShuffledImages,
    StreamedItems,
    TrainingItems,
)
from ddfnet.data.classification.sources import open_images
from ddfnet.data.seeding import reseed
from ddfnet.errors import DataError
from ddfnet.training.samplers import EpochBatchSampler, ResumableBatchSampler, per_rank_batch_size

Batch = dict[str, Tensor]
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PREPROCESSING = ("size", "crop_pct", "eval_interpolation", "mean", "std")


class ClassificationData(lightning.LightningDataModule):
    """Batches of labelled, augmented images. Batch t of a run is the same on every worker and after every resumption.

    A batch is that of a step, whatever the number of processes and of accumulated batches: each gets its share. So more
    processes see the same batches, and the learning rate stays.

    Args:
        path: location of the images: a folder with ``train/CLASS`` and ``val/CLASS`` or ``test/CLASS``; torchvision's
            root; an archive of CIFAR-10; or shards, see `ddfnet.data.classification.webdataset.urls`.
        source: the kind of data there: ``"shards"`` (WebDataset's), a name in
            `ddfnet.data.classification.sources.SOURCES`, such as ``"folder"``, or a class of ``torchvision.datasets``,
            such as ``"Flowers102"``.
        part: the split to validate: the name of a folder or split, or the shards; None for ``val``, or else ``test``.
        samples: images per epoch; required for shards.
        allow_pipe: take shards of any address that webdataset knows, such as ``pipe:COMMAND``, for which it runs
            commands; ``ddfnet train`` takes this from its command line alone.
        classes: class names in the order of the labels, of which the images have some or all; None for those of the
            images.
        num_classes: number of classes of the network; the images must have as many.
        batch_size: images per step, over all processes.
        size: height and width of the network's input.
        padding: crop training images of ``size`` from images padded by so many zeros on each side; None for a random
            resized crop.
        scale: smallest and largest area of a random resized crop, as a share of the image.
        interpolation: interpolation of training images; ``"random"`` is bilinear or bicubic.
        flip: probability of a mirrored image.
        color_jitter: largest change of brightness, contrast and saturation, as a share; not with ``auto_augment``.
        auto_augment: timm's description, such as ``"rand-m7-mstd0.5-inc1"`` (RandAugment).
        random_erase: probability of erased rectangles.
        erase_mode: their content: ``"const"`` (the mean), ``"rand"`` (a colour) or ``"pixel"`` (noise).
        erase_count: largest number of rectangles per image.
        mixup: alpha of mixup, 0 for none.
        cutmix: alpha of CutMix, 0 for none; with both, one is drawn for each batch.
        crop_pct: side of the centre crop in validation, as a share of the shorter side, above 0.
        eval_interpolation: interpolation of validation images.
        mean: per channel, for values from 0 to 1.
        std: per channel.
        on_bad_image: at a broken image ``"stop"``, or ``"skip"`` it with a warning.
        workers: processes that read and augment; 0 for the training process itself.
        seed: seed of order and augmentation.

    Returns:
        Batches with ``image`` (N, C, size, size), float32, normalised, and ``label`` (N,), or after mixup
        (N, num_classes); the label -1 does not count.

    Raises:
        ValueError: a value is out of range.
        DataError: at the start of a run: images are missing, broken or of other classes, or a batch cannot be divided
            among the processes.

    Example:
        >>> from PIL import Image
        >>> from ddfnet.tasks.classification.data import ClassificationData
        >>> data = ClassificationData("/data/imagenet", auto_augment="rand-m7-mstd0.5-inc1", mixup=0.2)
        >>> data.augment(Image.new("RGB", (300, 200))).shape
        torch.Size([3, 224, 224])

    Source: the augmentation is timm's code.
    """

    def __init__(
        self,
        path: str = "",
        source: str = "folder",
        part: str | None = None,
        samples: PositiveInt | None = None,
        allow_pipe: bool = False,
        classes: Sequence[str] | None = None,
        num_classes: PositiveInt = 1000,
        batch_size: PositiveInt = 256,
        size: PositiveInt = 224,
        padding: NonNegativeInt | None = None,
        scale: tuple[ClosedUnitInterval, ClosedUnitInterval] = (0.08, 1.0),
        interpolation: Literal["random", "bilinear", "bicubic"] = "bilinear",
        flip: ClosedUnitInterval = 0.5,
        color_jitter: NonNegativeFloat = 0.0,
        auto_augment: str | None = None,
        random_erase: ClosedUnitInterval = 0.0,
        erase_mode: Literal["const", "rand", "pixel"] = "pixel",
        erase_count: PositiveInt = 1,
        mixup: NonNegativeFloat = 0.0,
        cutmix: NonNegativeFloat = 0.0,
        crop_pct: ClosedUnitInterval = 0.875,
        eval_interpolation: Literal["bilinear", "bicubic"] = "bicubic",
        mean: Sequence[float] = _IMAGENET_MEAN,
        std: Sequence[float] = _IMAGENET_STD,
        on_bad_image: Literal["stop", "skip"] = "stop",
        workers: NonNegativeInt = 4,
        seed: int = 0,
    ) -> None:
        from timm.data import create_transform
        from timm.data.random_erasing import RandomErasing
        from torchvision import transforms

        super().__init__()
        batch_size = check_range("batch_size", batch_size, 1)
        size = check_range("size", size, 1)
        padding = None if padding is None else check_range("padding", padding, 0)
        flip = check_range("flip", flip, 0, 1)
        random_erase = check_range("random_erase", random_erase, 0, 1)
        erase_count = check_range("erase_count", erase_count, 1)
        mixup = check_range("mixup", mixup, 0)
        cutmix = check_range("cutmix", cutmix, 0)
        crop_pct = check_range("crop_pct", crop_pct, 0, 1, open_low=True)
        workers = check_range("workers", workers, 0)
        check_choice("on_bad_image", on_bad_image, ("stop", "skip"))
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be two shares above 0, the smaller first, up to 1, got {tuple(scale)}")
        if len(mean) != len(std) or not all(deviation > 0 for deviation in std):
            raise ValueError(f"mean and std must have one value per channel, std above 0, got {mean} and {std}")
        self.path, self.source, self.part, self.samples = path, source, part, samples
        self.allow_pipe, self.names = allow_pipe, classes
        self.num_classes, self.batch_size, self.workers, self.seed = num_classes, batch_size, workers, seed
        self.skip_broken = on_bad_image == "skip"
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
        except (AssertionError, KeyError, IndexError, ValueError):  # timm's errors have no message
            example = "rand-m7-mstd0.5-inc1"
            raise ValueError(f"auto_augment must be timm's description, as {example!r}, got {auto_augment!r}") from None
        if padding is not None:
            shift = transforms.RandomCrop(size, padding)
            crop = transforms.Compose([shift, transforms.RandomHorizontalFlip(flip)])
        self.augment = transforms.Compose([*crop.transforms, *colours.transforms, *last.transforms])
        self.prepare = create_transform(**common, crop_pct=crop_pct, interpolation=eval_interpolation)
        values = (size, crop_pct, eval_interpolation, list(self.mean), list(self.std))
        self.preprocessing = dict(zip(_PREPROCESSING, values, strict=True))
        self.random_erase = (
            partial(RandomErasing, random_erase, mode=erase_mode, max_count=erase_count) if random_erase else None
        )
        self.mix = self._mixer(mixup, cutmix)
        self.loaded: dict[bool, LabelledImages] = {}

    def setup(self, stage: str) -> None:
        """Open the images now, so that errors are reported before any training."""
        for training in (True, False) if stage == "fit" else (False,):
            if self.source == "shards":
                self._shards(training)
            else:
                self.images(training)

    def images(self, training: bool) -> LabelledImages:
        """Return the images for training or for validation; they are opened once."""
        if training not in self.loaded:
            if not self.path:
                raise DataError("no images are named; give --data.path")
            found = open_images(self.source, Path(self.path), self.part, training, skip_broken=self.skip_broken)
            self.loaded[training] = self._labelled(found)
        return self.loaded[training]

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, in the order of the labels; None where the source has no names."""
        if self.names is not None:
            return list(self.names)
        return next((list(own.classes) for own in self.loaded.values() if len(own.classes)), None)

    @property
    def batches(self) -> int:
        """Batches per epoch and process; a multiple of the accumulated batches."""
        if self.source == "shards":
            if not self.samples:
                raise DataError("shards do not say how many images they hold; give --data.samples")
            count = self.samples
        else:
            count = len(self.images(True))
        if count < self.batch_size:
            raise DataError(f"{count} images are fewer than a batch of {self.batch_size}; lower --data.batch_size")
        return count // self.batch_size * int(self._trainer.accumulate_grad_batches)

    def train_dataloader(self) -> DataLoader[Any]:
        trainer, size, batches = self._trainer, self._per_rank, self.batches
        if self.mix is not None and size % 2:
            raise DataError(f"mixup and cutmix need an even number of images in each process, got {size}")
        rank = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        done = partial(_batches_done, trainer, trainer.accumulate_grad_batches)
        if self.source == "shards":
            urls = self._shards(True)
            streams = max(1, self.workers)
            batch: Any = webdataset.ShardBatches(
                urls, batch_size=size, num_batches=batches, streams=streams, seed=self.seed, **rank
            )
        else:
            batch = ShuffledImages(self.images(True), batches * size * trainer.world_size, self.seed)
        items = TrainingItems(batch, self._reader(self.augment), self.seed)
        return DataLoader(items, batch_sampler=EpochBatchSampler(size, batches, done, **rank), **self._loading)

    def val_dataloader(self) -> Any:
        trainer, size, reader = self._trainer, self._per_rank, self._reader(self.prepare)
        rank = {"rank": trainer.global_rank, "world_size": trainer.world_size}
        if self.source == "shards":
            stream = webdataset.EveryShard(self._shards(False), **rank)
            items = StreamedItems(stream, reader, size)
            return EqualLengthLoader(DataLoader(items, batch_size=None, **self._loading), trainer)
        images = self.images(False)
        order = ResumableBatchSampler(size, -(-len(images) // (size * trainer.world_size)), **rank)
        return DataLoader(EvaluationItems(images, reader), batch_sampler=order, **self._loading)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Normalise, erase and mix whole batches on the device."""
        images, labels = batch["image"], batch["label"]
        mean, std = (
            torch.tensor(values, device=images.device).view(-1, 1, 1) * 255 for values in (self.mean, self.std)
        )
        images = (images.float() - mean) / std
        if self.trainer is not None and self.trainer.training:
            # Negative numbers are no positions of images. The network's own random numbers follow from this seed too.
            reseed(self.seed, -1 - int(batch["position"][0]), devices=True)
            if self.random_erase is not None:
                images = self.random_erase(device=str(images.device))(images)
            if self.mix is not None:
                images, labels = self.mix(images, labels)
        return {"image": images, "label": labels}

    @property
    def _trainer(self) -> lightning.Trainer:
        if self.trainer is None:
            raise RuntimeError("the loaders need a trainer, which knows the processes that share the images")
        return self.trainer

    @property
    def _per_rank(self) -> int:
        """Images per process and accumulated batch."""
        return per_rank_batch_size(self._trainer, self.batch_size)

    @property
    def _loading(self) -> dict[str, Any]:
        return {
            "num_workers": self.workers,
            "pin_memory": self._trainer.strategy.root_device.type == "cuda",
            "collate_fn": default_collate,
        }

    def _reader(self, transform: Any) -> ItemReader:
        return ItemReader(transform, self.num_classes, self.skip_broken)

    def _shards(self, training: bool) -> list[str]:
        return webdataset.urls(self.path, None if training else self.part, training, allow_pipe=self.allow_pipe)

    def _labelled(self, found: LabelledImages) -> LabelledImages:
        """Return images with the labels of the classes that are known already."""
        own, known = list(found.classes), self.classes
        if own and known is not None and own != known:
            if unknown := [name for name in own if name not in known]:
                raise DataError(
                    f"{self.path}: the class {unknown[0]!r} is none of those that the network is trained with, "
                    f"{', '.join(map(str, known[:4]))}{', ...' if len(known) > 4 else ''}; leave its images out"
                )
            found = RelabelledImages(found, known)
        if (count := len(found.classes)) and count != self.num_classes:
            raise DataError(
                f"{self.path} has {count} classes, and the network {self.num_classes}; train with "
                f"--model.num_classes {count}"
            )
        return found

    def _mixer(self, mixup: float, cutmix: float) -> Any:
        from timm.data.mixup import Mixup

        if not mixup and not cutmix:
            return None
        return Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=self.num_classes)  # the loss smooths


def _batches_done(trainer: lightning.Trainer, accumulated: int) -> int:
    """Return the earlier batches of the run; StochasticWeightAveraging changes the trainer's accumulation meanwhile."""
    return trainer.global_step * accumulated


class EqualLengthLoader:
    """Batches of a loader, equally many in every process: those with fewer repeat a batch without labels.

    Processes that share a network wait for each other at each batch, and shards do not say how many images they hold.
    """

    def __init__(self, loader: DataLoader[Any], trainer: Any) -> None:
        self.loader, self.trainer = loader, trainer

    def __iter__(self) -> Iterator[dict[str, Any]]:
        batches, agree = iter(self.loader), self.trainer.strategy.reduce_boolean_decision
        batch: dict[str, Any] | None = next(batches, None)
        if not agree(batch is not None, all=True) or batch is None:
            several = "a process has no images to measure; use fewer processes or more shards"
            raise DataError(several if self.trainer.world_size > 1 else "the shards to measure have no images")
        filler = batch | {"label": torch.full_like(batch["label"], NO_LABEL)}
        while agree(batch is not None, all=False):
            yield filler if batch is None else batch
            batch = next(batches, None)
