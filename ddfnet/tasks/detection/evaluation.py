"""How well a detector finds what there is: COCO's average precision, and what its upsamplers cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ddfnet.data.detection.annotations import BoxedPictures
from ddfnet.data.detection.dataset import BoxPictures, Item
from ddfnet.errors import DataError
from ddfnet.models.faster_rcnn import Detector
from ddfnet.models.upsamplers import upsampler as build_upsampler
from ddfnet.table import table
from ddfnet.tasks.detection.module import METRICS, precision_metric, summary

_ENLARGED = (8, 16, 32)  # reductions of the maps that are
_LISTED = 8  # classes: of more, the table has the averages alone


@dataclass(frozen=True)
class Row:
    """What was measured of one detector.

    Args:
        name: of the detector, in tables.
        upsampler: of its pyramid.
        precision: AP, AP50, AP75, AP_S, AP_M and AP_L, 0 to 1, by these names, without sizes that no object has.
        classes: AP of each class, 0 to 1, by its name, without classes that no picture has.
        pictures: how many were read.
        skipped: how many could not be.
        parameters: of the whole detector.
        upsampler_parameters: of its pyramid's upsamplers alone.
        upsampler_macs: multiply-accumulates of them for the median picture.
        seconds: median wall time of a picture, from its pixels in memory to the boxes there.
    """

    name: str
    upsampler: str
    precision: dict[str, float]
    classes: dict[str, float]
    pictures: int
    skipped: int
    parameters: int
    upsampler_parameters: int
    upsampler_macs: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(name: str, detector: Detector, pictures: BoxedPictures, items: Iterable[Item | None]) -> Row:
    """Measure a detector on pictures.

    Args:
        name: that the row gets.
        detector: in evaluation mode, on any device; its classes must be those of the pictures.
        pictures: from `ddfnet.data.detection.annotations.load`.
        items: of them, one after another, from `BoxPictures`; what wraps it may show a bar.

    Returns:
        What was measured.

    Raises:
        ValueError: the classes differ.
        DataError: a picture cannot be read, or none can.
    """
    if detector.classes != pictures.classes:
        raise ValueError(f"classes of the detector are required, {detector.classes}, got {pictures.classes}")
    metric, seconds, read, skipped = precision_metric(), [], 0, 0
    device = next(detector.parameters()).device
    for item in items:
        if item is None:
            skipped += 1
            continue
        image, target = item
        start = time.perf_counter()
        with torch.inference_mode():
            found = [{key: value.cpu() for key, value in each.items()} for each in detector([image.to(device)])]
        seconds.append(time.perf_counter() - start)
        metric.update(found, [target])
        read += 1
    if not read:
        raise DataError(f"{pictures.name}: none of its pictures can be read")
    height, width = pictures.sizes.median(0).values.tolist()
    return Row(
        name=name,
        upsampler=detector.init_args["upsampler"],
        precision=summary(metric),
        classes=by_class(metric, detector.classes),
        pictures=read,
        skipped=skipped,
        parameters=_parameters(detector),
        upsampler_parameters=_parameters(detector.backbone.fpn.upsamplers),
        upsampler_macs=upsampler_macs(
            detector.init_args["upsampler"], detector.init_args["width"], *network_size(detector, height, width)
        ),
        seconds=statistics.median(seconds),
    )


def by_class(metric: Any, classes: Sequence[str]) -> dict[str, float]:
    """The average precision of each class, by its name, without those that no picture has."""
    values = metric.compute()
    labels, precision = values["classes"].reshape(-1).tolist(), values["map_per_class"].reshape(-1).tolist()
    return {classes[label - 1]: value for label, value in zip(labels, precision, strict=True) if value >= 0}


def network_size(detector: Detector, height: int, width: int) -> tuple[int, int]:
    """The size that a picture has inside the network: scaled, and filled up to a multiple of 32."""
    device = next(detector.parameters()).device
    scaled, _ = detector.transform([torch.zeros(3, height, width, device=device)])
    *_, inner_height, inner_width = scaled.tensors.shape
    return inner_height, inner_width


def upsampler_macs(upsampler: str, channels: int, height: int, width: int, *, from_pooled: bool = False) -> int:
    """Multiply-accumulates of a pyramid's upsamplers for one picture: half of what torch's FlopCounterMode counts.

    It counts neither the addition of a bias nor interpolation, for which there is one a value here, as mmcv's counter
    has it. An upsampler with both filters costs 1.5 a tap: one product to combine them, and one multiply-accumulate.

    Args:
        upsampler: see `ddfnet.models.upsamplers.upsampler`.
        channels: of the pyramid.
        height: of the picture; a map of 1/8, say, has that share of it, rounded up.
        width: likewise.
        from_pooled: whether the top-down path begins at 1/64, as in the pyramid of mmdetection that table 6 was
            counted with, and not at 1/32, as in torchvision's.

    Example:
        >>> from ddfnet.tasks.detection.evaluation import upsampler_macs
        >>> f"{upsampler_macs('pixelshuffle', 256, 800, 1280, from_pooled=True) / 1e9:.2f} G"
        '50.16 G'
    """
    with torch.device("meta"), torch.no_grad():
        layer = build_upsampler(upsampler, channels)
        sizes = [(-(-height // r), -(-width // r)) for r in (*_ENLARGED, *((64,) if from_pooled else ()))]
        maps = [torch.empty(1, channels, *size) for size in sizes]
        if isinstance(layer, nn.Upsample) and layer.mode != "nearest":
            return sum(layer(each).numel() for each in maps)
        with FlopCounterMode(display=False) as counter:
            for each in maps:
                layer(each)
    return counter.get_total_flops() // 2


def text(rows: Sequence[Row]) -> str:
    """A table of the rows: precision in percent, of a few classes too, then parameters, cost and time."""
    names = list(dict.fromkeys(name for row in rows for name in row.classes))
    if len(names) > _LISTED:
        names = []
    headers = ["detector", "upsampler", *METRICS, *names, "params M", "of upsamplers", "MACs M", "ms"]
    cells = [
        [
            row.name,
            row.upsampler,
            *(_percent(row.precision.get(name)) for name in METRICS),
            *(_percent(row.classes.get(name)) for name in names),
            f"{row.parameters / 1e6:.2f}",
            f"{row.upsampler_parameters / 1e6:.3f}",
            f"{row.upsampler_macs / 1e6:.1f}",
            f"{row.seconds * 1e3:.0f}",
        ]
        for row in rows
    ]
    return table(headers, cells, left=2)


def items(pictures: BoxedPictures, on_bad_image: str = "stop") -> Iterable[Item | None]:
    """The pictures one after another, read when they are asked for."""
    source = BoxPictures(pictures, on_bad_image)
    return (source[index] for index in range(len(source)))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
