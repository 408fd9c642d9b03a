"""Evaluation of upsampled depth maps: error, flying pixels and time of each method on the same small maps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ddfnet.data.depth.middlebury15 import BICUBIC_LEVELS
from ddfnet.data.depth.nyu import HALF_PIXEL_BILINEAR_CM
from ddfnet.data.depth.protocols import Protocol
from ddfnet.data.depth.scenes import Scene
from ddfnet.errors import DataError
from ddfnet.tasks.depth.baselines import Method, bilinear
from ddfnet.tasks.depth.metrics import FlyingPixels
from ddfnet.tasks.evaluation import EvaluationTable

REFERENCE = "bilinear"


@dataclass(frozen=True)
class Row:
    """Measurements of one method on one scene, or their `average` over several.

    Args:
        protocol: name of the protocol.
        factor: pixels per sample.
        scene: name of the scene, or the number of scenes.
        method: name of the method.
        rmse: error under the protocol, in ``unit``.
        unit: "cm", "px", ...
        ratio: error as a share of aligned bilinear's.
        flying: share of the scored pixels that fly, 0 to 1; see `FlyingPixels`.
        flying_near_edges: share of the pixels near depth edges that fly.
        near_edges: share of the scored pixels that are near depth edges.
        seconds: wall time of one call.
        megapixels: size of the result.
    """

    protocol: str
    factor: int
    scene: str
    method: str
    rmse: float
    unit: str
    ratio: float
    flying: float
    flying_near_edges: float
    near_edges: float
    seconds: float
    megapixels: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    methods: Mapping[str, Method], scenes: Iterable[Scene], protocol: Protocol, factor: int, *, repeats: int = 1
) -> list[Row]:
    """Measure methods on scenes, all from the same small map; aligned bilinear is the first row of every scene.

    Args:
        methods: methods by their names in the rows; see `ddfnet.tasks.depth.baselines.METHODS`.
        scenes: scenes, read one at a time.
        protocol: one of `ddfnet.data.depth.protocols.PROTOCOLS`.
        factor: pixels per sample.
        repeats: calls of each method; its time is that of the fastest.

    Returns:
        One row per scene and method, in that order.

    Raises:
        DataError: a scene has no pixel to score, or no valid sample at this factor; a method raised it, and the message
            names both.
        ValueError: a method returned a wrong size, or nan or inf at a scored pixel; the message names it.

    Example:
        >>> from ddfnet.data.depth.protocols import PAC
        >>> guide, depth = torch.zeros(3, 32, 32, dtype=torch.uint8), torch.ones(32, 32)
        >>> wall = Scene("wall", guide, depth, depth > 0, "m", "A wall.")
        >>> [(row.method, row.rmse) for row in evaluate({}, [wall], PAC, 4)]
        [('bilinear', 0.0)]
    """
    rows = []
    for full in scenes:
        scene = protocol.crop(full, factor)
        scored = protocol.scored(scene)
        low = protocol.lowres(scene.depth, scene.valid, factor)
        if not low.valid.any():
            raise DataError(f"{scene.name}: a valid sample at {factor}x is required, got none")
        flying = FlyingPixels(scene.depth, scene.valid, scored)
        reference: float | None = None
        for name, method in {REFERENCE: bilinear, **methods}.items():
            try:
                prediction, seconds = _timed(method, low.depth, low.valid, scene.guide, factor, low.offset, repeats)
            except DataError as error:
                raise DataError(f"{name}: {scene.name}: {error}") from None
            try:
                rmse = protocol.rmse(prediction, scene)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            reference = rmse if reference is None else reference
            count = flying(prediction)
            rows.append(
                Row(
                    protocol=protocol.name,
                    factor=factor,
                    scene=scene.name,
                    method=name,
                    rmse=rmse,
                    unit=protocol.unit(scene),
                    ratio=_ratio(rmse, reference),
                    flying=count.share,
                    flying_near_edges=count.share_near_edges,
                    near_edges=count.near_edges / count.pixels,
                    seconds=seconds,
                    megapixels=scene.depth.numel() / 1e6,
                )
            )
    return rows


def average(rows: Sequence[Row]) -> list[Row]:
    """Average rows over the scenes, to one row per method; the ratio is that of the mean errors.

    The share of flying pixels near edges is the mean share of flying pixels over the mean share of pixels near edges.

    Args:
        rows: rows of one protocol, factor and unit, every method on the same scenes.

    Returns:
        Rows in the order of the methods; empty for none.

    Raises:
        ValueError: rows that must not be averaged.
    """
    _one_protocol(rows)
    for name, values in (("factor", {row.factor for row in rows}), ("unit", {row.unit for row in rows})):
        if len(values) > 1:
            raise ValueError(f"rows of one {name} are required for an average, got {', '.join(map(str, values))}")
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.method, []).append(row)
    scenes = {method: [row.scene for row in own] for method, own in grouped.items()}
    if any(each != scenes[REFERENCE] for each in scenes.values()):
        raise ValueError("every method must have been measured on the same scenes as bilinear, in the same order")
    result = []
    for method, own in grouped.items():
        rmse, flying, near_edges = (_mean(own, name) for name in ("rmse", "flying", "near_edges"))
        result.append(
            Row(
                protocol=own[0].protocol,
                factor=own[0].factor,
                scene=f"mean of {len(own)}",
                method=method,
                rmse=rmse,
                unit=own[0].unit,
                ratio=_ratio(rmse, _mean(grouped[REFERENCE], "rmse")),
                flying=flying,
                flying_near_edges=flying / near_edges if near_edges else 0.0,
                near_edges=near_edges,
                seconds=_mean(own, "seconds"),
                megapixels=_mean(own, "megapixels"),
            )
        )
    return result


def as_table(
    rows: Sequence[Row], *, shown: Sequence[Row] | None = None, facts: Mapping[str, Any] | None = None
) -> EvaluationTable:
    """Return rows as a table.

    Args:
        rows: rows of one protocol, with bilinear among each scene's.
        shown: rows of the text, where all are too many.
        facts: see `EvaluationTable`.

    Raises:
        ValueError: rows of two protocols, or a scene without bilinear.
    """
    name = _one_protocol(rows)
    groups = {(row.scene, row.factor) for row in rows}
    if missing := groups - {(row.scene, row.factor) for row in rows if row.method == REFERENCE}:
        raise ValueError(f"bilinear is required in every table, there is none for {sorted(missing)[0][0]}")
    return EvaluationTable(rows, COLUMNS, title=f"protocol {name}", left=2, facts=facts or {}, shown=shown)


COLUMNS = {
    "scene": lambda row: row.scene,
    "method": lambda row: row.method,
    "factor": lambda row: f"{row.factor}x",
    "RMSE": lambda row: f"{row.rmse:.3f} {row.unit}".rstrip(),
    "of bilinear": lambda row: f"{row.ratio:.3f}",
    "flying near edges": lambda row: f"{row.flying_near_edges:.1%}",
    "flying of all": lambda row: f"{row.flying:.2%}",
    "s/megapixel": lambda row: f"{row.seconds / row.megapixels:.2f}",
}


def check_nyu(rows: Sequence[Row]) -> None:
    """Check that NYU's test part under `pac` gives the published bilinear error, without which no result counts.

    Args:
        rows: rows of all test images at one factor, ``bilinear-half-pixel`` among the methods: the published rows have
            that offset.

    Raises:
        DataError: the error differs by more than 0.01 cm.
        ValueError: rows without that method, protocol or factor.
    """
    _check_known(rows, "pac", "bilinear-half-pixel", HALF_PIXEL_BILINEAR_CM, "NYU", "cm")


def check_middlebury15(rows: Sequence[Row]) -> None:
    """Check that the fifteen Middlebury pairs under `gdsr` give the known bicubic error.

    Args:
        rows: rows of all scenes at one factor, ``bicubic-pillow`` among the methods.

    Raises:
        DataError: the error differs by more than 0.01 grey levels.
        ValueError: rows without that method, protocol or factor.
    """
    _check_known(rows, "gdsr", "bicubic-pillow", BICUBIC_LEVELS, "middlebury15", "levels")


def _check_known(
    rows: Sequence[Row], protocol: str, method: str, known: Mapping[int, float], data: str, unit: str
) -> None:
    """Check that a method has its known error, by factor, to 0.01."""
    mine = next((row for row in average(rows) if row.method == method), None)
    expected = None if mine is None else known.get(mine.factor)
    if mine is None or expected is None or mine.protocol != protocol:
        raise ValueError(f"{method} under {protocol} at 4x, 8x or 16x is required to check the protocol on {data}")
    if abs(mine.rmse - expected) > 0.01:
        raise DataError(f"{method} on {data} at {mine.factor}x must come to {expected} {unit}, got {mine.rmse:.3f}")


def _timed(
    method: Method, depth: Tensor, valid: Tensor, guide: Tensor, factor: int, offset: float, repeats: int
) -> tuple[Tensor, float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        with torch.inference_mode():
            prediction = method(depth, valid, guide, factor=factor, offset=offset)
        seconds.append(time.perf_counter() - start)
    return prediction, min(seconds)


def _one_protocol(rows: Sequence[Row]) -> str:
    names = sorted({row.protocol for row in rows})
    if len(names) > 1:
        raise ValueError(
            f"results of one protocol are required in a table, got {' and '.join(names)}; print them apart"
        )
    return "".join(names)


def _ratio(rmse: float, reference: float) -> float:
    if reference == 0:
        return 1.0 if rmse == 0 else float("inf")
    return rmse / reference


def _mean(rows: Sequence[Row], name: str) -> float:
    return sum(getattr(row, name) for row in rows) / len(rows)
