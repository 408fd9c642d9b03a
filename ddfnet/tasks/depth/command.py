"""Scenes, methods and networks of ``ddfnet evaluate depth``, from its options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from ddfnet.data.depth import folder, middlebury, middlebury15, nyu, nyu8
from ddfnet.data.depth.middlebury15 import BICUBIC_LEVELS
from ddfnet.data.depth.nyu import HALF_PIXEL_BILINEAR_CM
from ddfnet.data.depth.protocols import PROTOCOLS
from ddfnet.data.depth.scenes import Scene
from ddfnet.depth.network import GuidedUpsampler
from ddfnet.errors import UserError, listed
from ddfnet.pretrained import load, read_card
from ddfnet.tasks.depth import baselines, beside, evaluation, probes
from ddfnet.tasks.depth.baselines import METHODS, Method
from ddfnet.tasks.depth.evaluation import Row
from ddfnet.tasks.evaluation import EvaluationTable, short_names

_FILES = {"nyu": "nyu_depth_v2_labeled.mat", "nyu8": "nyu8.tar", "middlebury15": "middlebury15.tar"}  # for --root
_NAMED = ("motorcycle", "aloe", *_FILES)
_ROOTED = ("aloe", *_FILES)  # the scenes that --root is for
_REFERENCES = ("bilinear", "bilinear-half-pixel", "bicubic-pillow")  # not measured unless asked for, or where they must
_LISTED = 20  # scenes that a table lists; with more it has only the averages


@dataclass(frozen=True)
class _Network:
    """Network of a checkpoint, and its name in the tables."""

    name: str
    file: Path
    network: GuidedUpsampler
    card: dict[str, Any] | None

    def as_dict(self) -> dict[str, Any]:
        parameters = sum(p.numel() for p in self.network.parameters())
        return {"name": self.name, "file": str(self.file), "parameters": parameters, "card": self.card}


def run(options: argparse.Namespace) -> Iterator[EvaluationTable]:
    """Measure as the options of ``ddfnet evaluate depth`` say; yield a table for each data set and factor."""
    rooted = [name for name in _ROOTED if name in options.data]
    if options.root is not None and len(rooted) != 1:
        raise UserError(
            f"--root is the place of {listed(_ROOTED)}, got --data {' '.join(options.data)}; "
            + ("evaluate them one by one" if rooted else "leave it out")
        )
    if options.threads is not None:
        cv2.setNumThreads(options.threads)
    protocol = PROTOCOLS[options.protocol]
    data: list[dict[str, Any]] = []
    names = _method_names(options)
    functions = beside.load(options.beside)
    networks = _networks(options.checkpoint, names)
    methods = {**_methods(names, networks, options.probe, options.sharpness), **functions}
    facts = {"protocol": options.protocol, "data": data, "networks": [own.as_dict() for own in networks]}
    for name in options.data:
        scenes = _scenes(name, options)
        origins = {scene.origin for scene in scenes[:1]}
        data.append({"name": name, "scenes": len(scenes), "origin": " ".join(origins)})
        for factor in options.factor:
            bar = _bar(scenes, f"{name} {factor}x")
            own = evaluation.evaluate(methods, bar, protocol, factor, repeats=options.repeats)
            _check(name, own, factor)
            mean = evaluation.average(own) if len(scenes) > 1 else []
            shown = [*(own if len(scenes) <= _LISTED else []), *mean]
            yield evaluation.as_table([*own, *mean], shown=shown, facts=facts)


def _method_names(options: argparse.Namespace) -> list[str]:
    """Return the names of the methods that the networks are compared with."""

    if options.probe and not options.checkpoint:
        raise UserError("--probe requires --checkpoint with the networks to probe")
    names = options.methods
    if names is None:
        names = [name for name in METHODS if name not in _REFERENCES]
        if options.checkpoint:
            names.remove("ddfnet")  # the checkpoints take the place of the package's network
    for name in names:
        if name not in METHODS:
            raise UserError(f"--methods must be some of {', '.join(METHODS)}, got {name!r}")
    # By these the known figures of NYU and of middlebury15 are checked; every table of gdsr has the second.
    first = {"bilinear-half-pixel": "nyu" in options.data, "bicubic-pillow": options.protocol == "gdsr"}
    return [*(name for name, must in first.items() if must), *names]


def _networks(checkpoints: Sequence[Path], methods: Sequence[str]) -> list[_Network]:

    return [
        _Network(name, file, load(file, GuidedUpsampler), read_card(file))
        for name, file in zip(_labels(checkpoints, methods), checkpoints, strict=True)
    ]


def _labels(checkpoints: Sequence[Path], methods: Sequence[str]) -> list[str]:
    """Return the names of the networks: one alone is ddfnet, unless the package's is measured too."""

    if len(checkpoints) == 1 and "ddfnet" not in methods:
        return ["ddfnet"]
    return short_names(checkpoints, METHODS)


def _methods(
    names: Sequence[str], networks: Sequence[_Network], probe: bool, sharpness: Sequence[float]
) -> dict[str, Method]:

    chosen = {name: baselines.METHODS[name] for name in names}
    if "ddfnet" in names:
        chosen.update({_sharp("ddfnet", each): baselines.ddfnet(sharpness=each) for each in sharpness})
    for own in networks:
        if sharpness and not own.network.carries_depth:
            raise UserError(f"--sharpness is for networks whose filters carry the depth, {own.file} has none")
        chosen[own.name] = baselines.ddfnet(own.network)
        chosen.update({_sharp(own.name, each): baselines.ddfnet(own.network, sharpness=each) for each in sharpness})
        if probe:
            chosen[f"{own.name}, one view"] = baselines.ddfnet(own.network, quality="fast")
            chosen[f"{own.name}, guide moved"] = probes.with_moved_guide(own.network)
            chosen[f"{own.name}, no features"] = probes.without_features(own.network)
    return chosen


def _sharp(name: str, sharpness: float) -> str:
    return f"{name}, sharpness {sharpness:g}"


def _scenes(name: str, options: argparse.Namespace) -> Sequence[Scene]:

    if name == "motorcycle":
        return [middlebury.motorcycle()]
    if name == "aloe":
        return [middlebury.aloe(options.root) if options.root is not None else middlebury.aloe()]
    if name in _FILES:
        if options.root is None:
            raise UserError(f"--data {name} requires --root with the path of {_FILES[name]}")
        if name == "middlebury15":
            return middlebury15.load(options.root)
        return nyu8.load(options.root) if name == "nyu8" else nyu.load(options.root)
    if not Path(name).is_dir():
        raise UserError(f"--data must be some of {', '.join(_NAMED)}, or a folder with rgb/ and depth/, got {name!r}")
    return folder.load(name, options.unit)


def _bar(scenes: Sequence[Scene], title: str) -> Iterable[Scene]:
    from tqdm import tqdm

    return tqdm(scenes, title, leave=False, disable=len(scenes) == 1 or not sys.stderr.isatty())


def _check(name: str, rows: Sequence[Row], factor: int) -> None:
    """Check the known error on NYU and on middlebury15 where there is one."""

    protocol = rows[0].protocol
    if name == "nyu" and protocol == "pac" and factor in HALF_PIXEL_BILINEAR_CM:
        evaluation.check_nyu(rows)
    if name == "middlebury15" and protocol == "gdsr" and factor in BICUBIC_LEVELS:
        evaluation.check_middlebury15(rows)
