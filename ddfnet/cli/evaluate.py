"""``ddfnet evaluate``: trained networks, and what they are compared with, on scenes that none was trained on."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.cli import machine
from ddfnet.cli.arguments import positive
from ddfnet.cli.errors import UserError, require, writable_file

if TYPE_CHECKING:
    from ddfnet.data.scenes import Scene
    from ddfnet.tasks.depth_evaluation import Row
    from ddfnet.tasks.depth_methods import Method

_MODULES = ("safetensors", "tqdm", "cv2")
_NAMED = ("motorcycle", "aloe", "nyu")
_LISTED = 20  # scenes: of more, the table has the averages alone


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure trained networks beside what they are compared with",
        description="Upsamples depth maps by each method from the same small map, and prints their errors, as ratios "
        "to aligned bilinear interpolation too, flying pixels and time: one table for each data set and factor.",
    )
    parser.add_argument("task", choices=("guided",), metavar="TASK", help="guided")
    parser.add_argument("--protocol", choices=("pac", "bicubic"), default="pac", help="(%(default)s)")
    parser.add_argument(
        "--data",
        nargs="+",
        default=["motorcycle"],
        metavar="NAME|DIR",
        help="motorcycle, aloe, nyu, or a folder with rgb/ and depth/ (%(default)s)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="nyu_depth_v2_labeled.mat, or the folder with aloeL.jpg and aloeGT.png",
    )
    parser.add_argument("--unit", default="", help="of a folder's depth; m is reported in cm")
    parser.add_argument("--factor", nargs="+", type=positive, default=[4, 8, 16], metavar="N", help="(4 8 16)")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="networks that `ddfnet train guided` left, *.safetensors or *.ckpt (default: the package's own)",
    )
    parser.add_argument(
        "--methods", nargs="*", metavar="NAME", help="what to compare with, see the error for a wrong one"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also each --checkpoint with its guide moved away and without features, which must be worse",
    )
    parser.add_argument(
        "--repeats", type=positive, default=1, metavar="N", help="calls, of which the fastest is the time"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of torch and OpenCV")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows, with command, machine and commit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("train", _MODULES)
    if options.json is not None:
        writable_file(options.json)
    import cv2
    import torch

    from ddfnet.data import DataError
    from ddfnet.data.protocols import PROTOCOLS
    from ddfnet.tasks import depth_evaluation

    if options.threads is not None:
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
    protocol = PROTOCOLS[options.protocol]
    rows: list[Row] = []
    data = []
    try:
        methods = _methods(options)
        for name in options.data:
            scenes = _scenes(name, options)
            origins = {scene.origin for scene in scenes[:1]}
            data.append({"name": name, "scenes": len(scenes), "origin": " ".join(origins)})
            for factor in options.factor:
                own = depth_evaluation.evaluate(
                    methods, _bar(scenes, f"{name} {factor}x"), protocol, factor, repeats=options.repeats
                )
                _check(name, own, factor)
                mean = depth_evaluation.average(own) if len(scenes) > 1 else []
                print(depth_evaluation.text([*(own if len(scenes) <= _LISTED else []), *mean]) + "\n", flush=True)
                rows += own + mean
    except (DataError, ValueError) as error:
        raise UserError(str(error)) from None
    if options.json is not None:
        _write(options, rows, data)
    return 0


def _methods(options: argparse.Namespace) -> dict[str, Method]:
    """By name: what was asked for, and then the networks."""
    from ddfnet.models import guided_files
    from ddfnet.tasks import depth_methods, depth_probes

    known = depth_methods.METHODS
    rest = [name for name in known if name not in ("bilinear", "bilinear-half-pixel")]
    names = rest if options.methods is None else options.methods
    for name in names:
        if name not in known:
            raise UserError(f"--methods must be some of {', '.join(known)}, got {name!r}")
    if "nyu" in options.data:
        names = ["bilinear-half-pixel", *names]  # by which the published figures are checked
    if options.probe and not options.checkpoint:
        raise UserError("--probe requires --checkpoint with the networks to probe")
    chosen = {name: known[name] for name in names if not (name == "ddfnet" and options.checkpoint)}
    for file in options.checkpoint:
        label, network = _label(file, options.checkpoint), guided_files.load(file)
        chosen[label] = depth_methods.ddfnet(network)
        if options.probe:
            chosen[f"{label}, guide moved"] = depth_probes.with_moved_guide(network)
            chosen[f"{label}, no features"] = depth_probes.without_features(network)
    return chosen


def _label(file: Path, files: Sequence[Path]) -> str:
    """ddfnet, or of several the shortest end of their paths that tells them apart."""
    if len(files) == 1:
        return "ddfnet"
    parts = [each.resolve().with_suffix("").parts for each in files]
    own = file.resolve().with_suffix("").parts
    length = next((n for n in range(1, len(own)) if len({p[-n:] for p in parts}) == len(set(parts))), len(own))
    return "/".join(own[-length:])


def _scenes(name: str, options: argparse.Namespace) -> Sequence[Scene]:
    from ddfnet.data import middlebury, nyu, pairs

    if name == "motorcycle":
        return [middlebury.motorcycle()]
    if name == "aloe":
        return [middlebury.aloe(options.root) if options.root is not None else middlebury.aloe()]
    if name == "nyu":
        if options.root is None:
            raise UserError("--data nyu requires --root with the path of nyu_depth_v2_labeled.mat")
        return nyu.load(options.root, "test")
    if not Path(name).is_dir():
        raise UserError(f"--data must be some of {', '.join(_NAMED)}, or a folder with rgb/ and depth/, got {name!r}")
    return pairs.load(name, options.unit)


def _bar(scenes: Sequence[Scene], title: str) -> Iterable[Scene]:
    from tqdm import tqdm

    return tqdm(scenes, title, leave=False, disable=len(scenes) == 1 or not sys.stderr.isatty())


def _check(name: str, rows: Sequence[Row], factor: int) -> None:
    """What is published of NYU must come out before anything else is believed."""
    from ddfnet.data.nyu import HALF_PIXEL_BILINEAR_CM
    from ddfnet.tasks import depth_evaluation

    if name == "nyu" and rows[0].protocol == "pac" and factor in HALF_PIXEL_BILINEAR_CM:
        depth_evaluation.check_nyu(rows)


def _write(options: argparse.Namespace, rows: Sequence[Row], data: Sequence[dict[str, Any]]) -> None:
    from ddfnet.models import guided_files

    results = {
        "command": shlex.join(["ddfnet", *sys.argv[1:]]) if sys.argv[1:] else "ddfnet evaluate guided",
        "protocol": options.protocol,
        "data": data,
        "networks": [{"file": str(file), "card": guided_files.card(file)} for file in options.checkpoint],
        "machine": machine.facts(),
        "rows": [row.as_dict() for row in rows],
    }
    try:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {options.json}: {error.strerror}") from None
