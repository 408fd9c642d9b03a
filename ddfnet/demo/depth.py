"""Depth part of the demo: a real depth map, downsampled and upsampled again in four ways that are measured alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from ddfnet.data.depth import middlebury
from ddfnet.data.depth.protocols import PAC
from ddfnet.data.depth.scenes import Scene
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.errors import UserError
from ddfnet.pretrained import load as load_network
from ddfnet.pretrained import read_card
from ddfnet.table import table
from ddfnet.tasks.depth import baselines
from ddfnet.tasks.depth.baselines import METHODS, Method
from ddfnet.tasks.depth.evaluation import Row, evaluate

FACTOR = 8
TITLES = {
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "joint-bilateral": "joint bilateral (OpenCV)",
    "ddfnet": "ddfnet",
}
_REPEATS = 3  # calls of a method, the fastest of which is its time
_SHORT = (240, 360)  # pixels of the scene's middle, for a short run
_ZOOMS = 2
_ZOOM_PART = 6  # a zoom is this part of the image's height and width


@dataclass(frozen=True)
class Crop:
    """A rectangle of the image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class UpsampledDepth:
    """Scene, maps that the methods made of the same small map, and their scores."""

    scene: Scene
    low: Tensor  # (h, w), 0 where not valid
    low_valid: Tensor  # (h, w)
    scored: Tensor  # (H, W): the pixels that count for the errors
    maps: dict[str, Tensor]  # (H, W) by method
    rows: list[Row]
    boxes: list[Crop]  # where bilinear's error is largest
    network: dict[str, Any]
    threads: int

    def headers(self) -> list[str]:
        return [f"{FACTOR}x", "RMSE", "of bilinear's", "flying near edges", "seconds"]

    def cells(self) -> list[list[str]]:
        return [
            [
                TITLES[row.method],
                f"{row.rmse:.3f} {row.unit}",
                f"{row.ratio:.3f}",
                f"{row.flying_near_edges:.1%}",
                f"{row.seconds:.3f}",
            ]
            for row in self.rows
        ]

    def table(self) -> str:
        return table(self.headers(), self.cells())

    def results(self) -> dict[str, Any]:
        """Return the entries of results.json."""
        return {
            "scene": self.scene.name,
            "origin": self.scene.origin,
            "unit": self.scene.unit,
            "size": list(self.scene.size),
            "protocol": PAC.name,
            "border": PAC.border,
            "factor": FACTOR,
            "low_size": list(self.low.shape),
            "valid": self.scene.valid.float().mean().item(),
            "network": self.network,
            "threads": self.threads,
            "repeats": _REPEATS,
            "colours": list(self.colour_limits()),
            "largest_error_shown": self.error_limit(),
            "rows": [row.as_dict() for row in self.rows],
            "zooms": [
                {**asdict(box), "rmse": {name: self.rmse(name, box) for name in self.maps}} for box in self.boxes
            ],
        }

    def colour_limits(self) -> tuple[float, float]:
        """Return the depths of the first and the last colour of a map."""
        known = self.scene.depth[self.scene.valid]
        return known.quantile(0.01).item(), known.quantile(0.99).item()

    def error_limit(self) -> float:
        """Return the error of the last colour of an error map: 1 % of bilinear's errors are larger."""
        error = (self.maps["bilinear"] - self.scene.depth)[self.scored].abs()
        return float(f"{error.quantile(0.99).item():.2g}")

    def rmse(self, method: str, box: Crop) -> float:
        """Return the error in a part of the image, over its scored pixels."""
        error = (self.maps[method] - self.scene.depth)[box.slices][self.scored[box.slices]]
        return error.double().square().mean().sqrt().item()


@dataclass(frozen=True)
class Network:
    """A depth network, and facts about it."""

    model: GuidedUpsampler
    facts: dict[str, Any]


def load(model: str) -> Network:
    """Load the network of a file, or the package's for "auto"."""
    own = files("ddfnet.depth") / "weights" / "guided.safetensors"
    file = Path(str(own)) if model == "auto" else Path(model)
    try:
        network = load_network(file, GuidedUpsampler)
        card = read_card(file)
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from None
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Network(network, {"file": model, "parameters": parameters, "card": card})


def measure(network: Network, *, short: bool) -> UpsampledDepth:
    """Upsample Motorcycle's map in four ways, with as many threads of OpenCV as of torch.

    Args:
        network: for the last of them.
        short: take only the middle of the scene.

    Raises:
        DataError: this scikit-image was packaged without the scene.
    """
    scene = middlebury.motorcycle()
    if short:
        scene = _middle(scene, _SHORT)
    maps: dict[str, Tensor] = {}
    methods = {**{name: METHODS[name] for name in TITLES}, "ddfnet": baselines.ddfnet(network.model)}
    threads = torch.get_num_threads()
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        rows = evaluate(_keeping(methods, maps), [scene], PAC, FACTOR, repeats=_REPEATS)
    finally:
        cv2.setNumThreads(before)
    low = PAC.lowres(scene.depth, scene.valid, FACTOR)
    scored = PAC.scored(scene)
    size = scene.size[0] // _ZOOM_PART, scene.size[1] // _ZOOM_PART
    error = torch.where(scored, maps["bilinear"] - scene.depth, 0)
    return UpsampledDepth(
        scene=scene,
        low=low.depth,
        low_valid=low.valid,
        scored=scored,
        maps=maps,
        rows=rows,
        boxes=worst_boxes(error, size, _ZOOMS),
        network=network.facts,
        threads=threads,
    )


def worst_boxes(error: Tensor, size: tuple[int, int], count: int) -> list[Crop]:
    """Find the boxes with the largest sums of squared errors, the worst first; they do not overlap.

    Args:
        error: (H, W), 0 at pixels that do not count.
        size: height and width of a box, in pixels.
        count: number of boxes; fewer where no more fit.

    Example:
        >>> error = torch.zeros(8, 12)
        >>> error[5, 7] = 2
        >>> worst_boxes(error, (2, 3), 1)
        [Crop(top=4, left=5, height=2, width=3)]
    """
    height, width = size
    sums = functional.avg_pool2d(error.double().square()[None, None], size, stride=1)[0, 0]
    boxes: list[Crop] = []
    while len(boxes) < count and sums.isfinite().any():
        top, left = divmod(int(sums.argmax()), sums.shape[1])
        boxes.append(Crop(top, left, height, width))
        sums[max(0, top - height + 1) : top + height, max(0, left - width + 1) : left + width] = -torch.inf
    return boxes


def _middle(scene: Scene, size: tuple[int, int]) -> Scene:
    rows, columns = (
        slice((whole - part) // 2, (whole - part) // 2 + part) for whole, part in zip(scene.size, size, strict=True)
    )
    return replace(
        scene,
        guide=scene.guide[:, rows, columns],
        depth=scene.depth[rows, columns],
        valid=scene.valid[rows, columns],
    )


def _keeping(methods: Mapping[str, Method], maps: dict[str, Tensor]) -> dict[str, Method]:
    """Wrap the methods so that ``maps`` holds their last results: the page shows the maps that were measured."""

    def kept(name: str, method: Method) -> Method:
        def run(low: Tensor, low_valid: Tensor, guide: Tensor, *, factor: int, offset: float) -> Tensor:
            maps[name] = method(low, low_valid, guide, factor=factor, offset=offset)
            return maps[name]

        return run

    return {name: kept(name, method) for name, method in methods.items()}
