"""The twins side by side: trained alike, then accuracy, parameters, multiply-accumulates and time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import lightning
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddfnet.data.classification.images import MemoryPictures
from ddfnet.data.classification.splits import Splits
from ddfnet.models.twins import TwinNet
from ddfnet.tasks.classification.data import ClassificationData
from ddfnet.tasks.classification.module import Classifier

SMALL = 16  # pictures below this many pixels a side keep their resolution in the first stage


@dataclass(frozen=True)
class Row:
    """What was measured of one twin."""

    mixer: str
    test_accuracy: float  # 0 to 1
    parameters: int
    macs: int  # multiply-accumulates of one picture
    milliseconds: dict[int, float]  # batch size -> median, one picture
    training_seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def twin(mixer: str, splits: Splits) -> TwinNet:
    """The twin for these pictures: two stages for small ones, else patches of 2x2 pixels and three stages."""
    classes = len(splits.classes)
    if min(splits.size) < SMALL:
        return TwinNet(mixer, splits.channels, classes)
    return TwinNet(mixer, splits.channels, classes, widths=(64, 128, 256), patch=2)


def train(
    mixer: str, splits: Splits, *, epochs: int, batch_size: int, seed: int, bar: bool
) -> tuple[TwinNet, float, float]:
    """Train a twin on the CPU; all twins by the same recipe.

    Args:
        mixer: which twin, see `TwinNet`.
        splits: pictures (N, C, H, W).
        epochs: passes over the training part.
        batch_size: pictures a step.
        seed: of the weights and of the order.
        bar: show Lightning's progress bar.

    Returns:
        The network in evaluation mode, its accuracy on the test part, and the seconds that training took.
    """
    lightning.seed_everything(seed, verbose=False)
    network = twin(mixer, splits)
    classifier = Classifier(
        network,
        len(splits.classes),
        optimizer="adamw",
        learning_rate=1e-2,
        weight_decay=0.02,
        warmup_epochs=0.3 * epochs,
        last_learning_rate=0.0,
        seed=seed,
    )
    data = pictures(splits, min(batch_size, len(splits.train)), seed)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=bar,
        use_distributed_sampler=False,  # the data shares itself out
        check_val_every_n_epoch=epochs + 1,  # the test part is for the end
    )
    start = time.perf_counter()
    trainer.fit(classifier, data)
    seconds = time.perf_counter() - start
    [metrics] = trainer.validate(classifier, data, verbose=False)
    return network.eval(), metrics["top1"], seconds


def pictures(splits: Splits, batch_size: int, seed: int) -> ClassificationData:
    """Batches of pictures that in training are moved by up to an eighth of their size, and mirrored if they may be."""
    mean, std = splits.normalisation()
    side = min(splits.size)
    data = ClassificationData(
        source="memory",
        num_classes=len(splits.classes),
        batch_size=batch_size,
        size=side,
        padding=max(1, side // 8),
        flip=0.5 if splits.flip else 0.0,
        measured_crop=1.0,
        mean=mean,
        std=std,
        workers=0,
        seed=seed,
    )
    parts = {True: splits.train, False: splits.test}
    data.opened = {training: MemoryPictures(part, splits.classes) for training, part in parts.items()}
    return data


def macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of one picture (C, H, W): half of what torch's FlopCounterMode counts."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def milliseconds(
    networks: Mapping[str, nn.Module], shape: Sequence[int], *, batch_sizes: Sequence[int], rounds: int
) -> dict[str, dict[int, float]]:
    """The median time a picture (C, H, W) at each batch size, the networks taking turns round by round."""
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in batch_sizes} for name in networks}
    with torch.inference_mode():
        for size in batch_sizes:
            pictures = torch.randn(size, *shape)
            for round_ in range(-2, rounds):  # the first two warm up
                for name, network in networks.items():
                    start = time.perf_counter()
                    network(pictures)
                    if round_ >= 0:
                        times[name][size].append((time.perf_counter() - start) / size * 1e3)
    return {name: {size: statistics.median(own[size]) for size in batch_sizes} for name, own in times.items()}


def rows(
    trained: Mapping[str, tuple[TwinNet, float, float]],
    shape: Sequence[int],
    *,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = 30,
) -> list[Row]:
    """What `train` gave for each mixer, and what there is to measure besides."""
    times = milliseconds({m: net for m, (net, *_) in trained.items()}, shape, batch_sizes=batch_sizes, rounds=rounds)
    return [
        Row(
            mixer=mixer,
            test_accuracy=accuracy,
            parameters=sum(p.numel() for p in network.parameters()),
            macs=macs(network, shape),
            milliseconds=times[mixer],
            training_seconds=seconds,
        )
        for mixer, (network, accuracy, seconds) in trained.items()
    ]
