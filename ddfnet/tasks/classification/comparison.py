"""Comparison of small networks that differ in one layer: accuracy, parameters, multiply-accumulates and latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import lightning
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import ddfnet.models  # noqa: F401  (registers the network with timm)
from ddfnet.data.classification.images import TensorImages
from ddfnet.data.classification.splits import Splits
from ddfnet.tasks.classification.data import ClassificationData
from ddfnet.tasks.classification.module import Classifier

SMALL = 16  # images with fewer pixels per side keep their resolution in the stem


@dataclass(frozen=True)
class MixerScores:
    """Scores of the network with one mixer.

    Args:
        mixer: name of the layer.
        test_accuracy: top-1 accuracy, 0 to 1.
        parameters: number of parameters.
        macs: multiply-accumulates per image.
        milliseconds: median latency per image, by batch size.
        training_seconds: time of the training.
    """

    mixer: str
    test_accuracy: float
    parameters: int
    macs: int
    milliseconds: dict[int, float]
    training_seconds: float


def create(mixer: str, splits: Splits) -> nn.Module:
    """Create ``small_resnet23`` with a mixer, for the channels, the size and the classes of a data set."""
    network: nn.Module = timm.create_model(
        "small_resnet23",
        num_classes=len(splits.classes),
        mixer=mixer,
        in_chans=splits.channels,
        stem_stride=1 if min(splits.size) < SMALL else 2,
    )
    return network


def train(
    mixer: str, splits: Splits, *, epochs: int, batch_size: int, seed: int, progress_bar: bool
) -> tuple[nn.Module, float, float]:
    """Train the network with a mixer on the CPU; the recipe is the same for all mixers.

    Args:
        mixer: see `ddfnet.models.resnet.MIXERS`.
        splits: images (N, C, H, W).
        epochs: passes over the training split.
        batch_size: images per step.
        seed: seed of the weights and the order.
        progress_bar: show Lightning's progress bar.

    Returns:
        The network in evaluation mode, its top-1 accuracy on the test split, and the seconds of the training.
    """
    lightning.seed_everything(seed, verbose=False)
    network = create(mixer, splits)
    classifier = Classifier(
        network,
        len(splits.classes),
        optimizer="adamw",
        learning_rate=1e-2,
        weight_decay=0.02,
        warmup_epochs=0.3 * epochs,
        min_lr=0.0,
        seed=seed,
    )
    data = batches(splits, min(batch_size, len(splits.train)), seed)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=progress_bar,
        use_distributed_sampler=False,  # the data divides itself among processes
        check_val_every_n_epoch=epochs + 1,  # the test split is used once, at the end
    )
    start = time.perf_counter()
    trainer.fit(classifier, data)
    seconds = time.perf_counter() - start
    [metrics] = trainer.validate(classifier, data, verbose=False)
    return network.eval(), metrics["top1"], seconds


def batches(splits: Splits, batch_size: int, seed: int) -> ClassificationData:
    """Return batches of a data set in memory; training shifts images by up to an eighth, and mirrors where allowed."""
    mean, std = splits.normalisation()
    side = min(splits.size)
    data = ClassificationData(
        source="memory",
        num_classes=len(splits.classes),
        batch_size=batch_size,
        size=side,
        padding=max(1, side // 8),
        flip=0.5 if splits.flip else 0.0,
        crop_pct=1.0,
        mean=mean,
        std=std,
        workers=0,
        seed=seed,
    )
    parts = {True: splits.train, False: splits.test}
    data.loaded = {training: TensorImages(part, splits.classes) for training, part in parts.items()}
    return data


def macs(network: nn.Module, shape: Sequence[int]) -> int:
    """Count the multiply-accumulates for an image (C, H, W): half of torch's FLOPs."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, *shape))
    return counter.get_total_flops() // 2


def milliseconds(
    networks: Mapping[str, nn.Module], shape: Sequence[int], *, batch_sizes: Sequence[int], rounds: int
) -> dict[str, dict[int, float]]:
    """Measure the median latency per image (C, H, W) at each batch size; the networks take turns in each round."""
    times: dict[str, dict[int, list[float]]] = {name: {size: [] for size in batch_sizes} for name in networks}
    with torch.inference_mode():
        for size in batch_sizes:
            images = torch.randn(size, *shape)
            for round_ in range(-2, rounds):  # the first two warm up
                for name, network in networks.items():
                    start = time.perf_counter()
                    network(images)
                    if round_ >= 0:
                        times[name][size].append((time.perf_counter() - start) / size * 1e3)
    return {name: {size: statistics.median(own[size]) for size in batch_sizes} for name, own in times.items()}


def score(
    trained: Mapping[str, tuple[nn.Module, float, float]],
    shape: Sequence[int],
    *,
    batch_sizes: Sequence[int] = (1, 64),
    rounds: int = 30,
) -> list[MixerScores]:
    """Measure the networks that `train` returned, by their mixers, on images (C, H, W)."""
    times = milliseconds({m: net for m, (net, *_) in trained.items()}, shape, batch_sizes=batch_sizes, rounds=rounds)
    return [
        MixerScores(
            mixer=mixer,
            test_accuracy=accuracy,
            parameters=sum(p.numel() for p in network.parameters()),
            macs=macs(network, shape),
            milliseconds=times[mixer],
            training_seconds=seconds,
        )
        for mixer, (network, accuracy, seconds) in trained.items()
    ]
