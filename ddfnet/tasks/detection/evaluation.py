"""Evaluation of trained detectors: COCO's average precision, and the cost of their upsamplers."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddfnet.env_info import find_device
from ddfnet.errors import DataError
from ddfnet.family import DySample
from ddfnet.models.faster_rcnn import Detector
from ddfnet.models.upsamplers import upsampler as build_upsampler
from ddfnet.pretrained import load, read_card
from ddfnet.tasks.detection.data import DetectionData
from ddfnet.tasks.detection.module import METRICS, Detection
from ddfnet.tasks.evaluation import EvaluationTable, short_names

_UPSAMPLED = (8, 16, 32)  # reductions of the upsampled maps
_LISTED = 8  # classes: with more, the table has the averages alone


@dataclass(frozen=True)
class DetectorScores:
    """Scores of one detector.

    Args:
        name: name of the detector in tables.
        upsampler: name of the pyramid's upsampler.
        precision: AP, AP50, AP75, AP_S, AP_M and AP_L, 0 to 1, without sizes that no object has.
        classes: AP of each class, 0 to 1, by its name, without classes that no image has.
        images: number of images that were read.
        skipped: number of images that could not be read.
        parameters: number of parameters of the whole detector.
        upsampler_parameters: number of parameters of the pyramid's upsamplers alone.
        upsampler_macs: multiply-accumulates of the upsamplers for the median image.
        seconds: median latency of an image, from its pixels on the device to the boxes on the CPU.
    """

    name: str
    upsampler: str
    precision: dict[str, float]
    classes: dict[str, float]
    images: int
    skipped: int
    parameters: int
    upsampler_parameters: int
    upsampler_macs: int
    seconds: float


def evaluate(
    checkpoints: Sequence[Path],
    root: str,
    part: str = "test",
    *,
    on_bad_image: str = "stop",
    on_bad_box: str = "stop",
    device: str = "cpu",
) -> EvaluationTable:
    """Measure detectors on images with boxes.

    Args:
        checkpoints: files that ``ddfnet train detection`` left, ``*.safetensors`` or ``*.ckpt``.
        root: folder of the images, see `ddfnet.data.detection.layouts.load`.
        part: the split to measure.
        on_bad_image: ``"stop"`` or ``"skip"``, at an image that cannot be read.
        on_bad_box: ``"stop"`` or ``"skip"``, at a box without area or outside its image.
        device: such as ``"cuda"``.

    Returns:
        The scores, a row for each detector.

    Raises:
        ValueError: a file is missing, broken or of another task.
        DataError: images are missing or broken, or have a class that a detector does not know.
        UserError: this machine has no such device.
    """
    place = find_device(device)
    rows, networks = [], []
    for name, file in zip(short_names(checkpoints), checkpoints, strict=True):
        detector = load(file, Detector)
        networks.append({"file": str(file), "card": read_card(file)})
        data = DetectionData(
            root,
            detector.classes,
            train_part=None,
            val_part=part,
            batch_size=1,
            workers=0,
            on_bad_image=on_bad_image,  # type: ignore[arg-type]
            on_bad_box=on_bad_box,  # type: ignore[arg-type]
        )
        rows.append(score(name, detector, data, place))
    facts = {
        "device": str(place),
        "data": {
            "name": data.val_images.name,
            "part": part,
            "images": len(data.val_images),
            "boxes_left_out": data.val_images.left_out,
            "origin": data.val_images.origin,
        },
        "networks": networks,
    }
    return as_table(rows, facts)


def score(name: str, detector: Detector, data: DetectionData, device: torch.device | None = None) -> DetectorScores:
    """Measure one detector.

    Args:
        name: name of the row.
        detector: a detector with the classes of the data.
        data: data in batches of one image, for the time of each.
        device: device of the detector; None for the CPU.

    Raises:
        ValueError: the classes differ.
        DataError: an image cannot be read, or none can.
    """
    images = data.val_images
    if detector.classes != images.classes:
        raise ValueError(f"classes of the detector are required, {detector.classes}, got {images.classes}")
    device = device or torch.device("cpu")
    timer = _ImageTimer()
    trainer = lightning.Trainer(
        accelerator=device.type,
        devices=1 if device.type == "cpu" else [device.index or 0],
        callbacks=[timer],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        use_distributed_sampler=False,
    )
    module = Detection(detector, channels_last=False)
    trainer.validate(module, data, verbose=False)
    if not timer.seconds:
        raise DataError(f"{images.name}: none of its images can be read")
    height, width = images.sizes.median(0).values.tolist()
    return DetectorScores(
        name=name,
        upsampler=detector.init_args["upsampler"],
        precision=module.precision,
        classes=module.class_precision,
        images=len(timer.seconds),
        skipped=len(images) - len(timer.seconds),
        parameters=_parameters(detector),
        upsampler_parameters=_parameters(detector.backbone.fpn.upsamplers),
        upsampler_macs=upsampler_macs(
            detector.init_args["upsampler"], detector.init_args["width"], *network_size(detector, height, width)
        ),
        seconds=statistics.median(timer.seconds),
    )


class _ImageTimer(lightning.Callback):
    """Latencies of the batches that hold an image."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.start = 0.0

    def on_validation_batch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if batch[0]:
            self.seconds.append(time.perf_counter() - self.start)


def network_size(detector: Detector, height: int, width: int) -> tuple[int, int]:
    """Return the size of an image inside the network: scaled, and padded to a multiple of 32."""
    device = next(detector.parameters()).device
    scaled, _ = detector.transform([torch.zeros(3, height, width, device=device)])
    *_, inner_height, inner_width = scaled.tensors.shape
    return inner_height, inner_width


def upsampler_macs(upsampler: str, channels: int, height: int, width: int, *, from_pooled: bool = False) -> int:
    """Count the multiply-accumulates of a pyramid's upsamplers for one image: half of torch's FLOPs.

    FlopCounterMode counts neither the addition of a bias nor interpolation; for interpolation one per value is counted
    here, as by mmcv's counter. An upsampler with both filters costs 1.5 per tap: one product to combine them, and one
    multiply-accumulate.

    Args:
        upsampler: see `ddfnet.models.upsamplers.upsampler`.
        channels: channels of the pyramid.
        height: height of the image; a map of 1/8, say, has that share of it, rounded up.
        width: width of the image.
        from_pooled: the top-down path begins at 1/64, as in mmdetection's pyramid, for which table 6 was counted,
            instead of at 1/32, as in torchvision's.

    Example:
        >>> from ddfnet.tasks.detection.evaluation import upsampler_macs
        >>> f"{upsampler_macs('pixelshuffle', 256, 800, 1280, from_pooled=True) / 1e9:.2f} G"
        '50.16 G'
    """
    with torch.device("meta"), torch.no_grad():
        layer = build_upsampler(upsampler, channels)
        sizes = [(-(-height // r), -(-width // r)) for r in (*_UPSAMPLED, *((64,) if from_pooled else ()))]
        maps = [torch.empty(1, channels, *size) for size in sizes]
        interpolates = isinstance(layer, DySample) or (isinstance(layer, nn.Upsample) and layer.mode != "nearest")
        with FlopCounterMode(display=False) as counter:
            for each in maps:
                layer(each)
    values = sum(4 * each.numel() for each in maps) if interpolates else 0
    return counter.get_total_flops() // 2 + values


def as_table(rows: Sequence[DetectorScores], facts: Mapping[str, Any] | None = None) -> EvaluationTable:
    """Return rows as a table: precision in percent, per class too for a few classes, then parameters, cost and time."""
    names = list(dict.fromkeys(name for row in rows for name in row.classes))
    columns: dict[str, Callable[[DetectorScores], str]] = {
        "detector": lambda row: row.name,
        "upsampler": lambda row: row.upsampler,
        **{name: partial(_precision, name) for name in METRICS},
        **{name: partial(_class_precision, name) for name in (names if len(names) <= _LISTED else ())},
        "params M": lambda row: f"{row.parameters / 1e6:.2f}",
        "of upsamplers": lambda row: f"{row.upsampler_parameters / 1e6:.3f}",
        "MACs M": lambda row: f"{row.upsampler_macs / 1e6:.1f}",
        "ms": lambda row: f"{row.seconds * 1e3:.0f}",
    }
    return EvaluationTable(rows, columns, left=2, facts=facts or {})


def _precision(name: str, row: DetectorScores) -> str:
    return _percent(row.precision.get(name))


def _class_precision(name: str, row: DetectorScores) -> str:
    return _percent(row.classes.get(name))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
