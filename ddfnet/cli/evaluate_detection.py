"""``ddfnet evaluate detection``: trained detectors side by side on pictures that none was trained on."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet import files
from ddfnet.cli import machine
from ddfnet.cli.arguments import positive
from ddfnet.cli.errors import UserError, require, writable_file

if TYPE_CHECKING:
    from ddfnet.data.boxes import BoxedPictures
    from ddfnet.tasks.detection_evaluation import Row

_MODULES = ("safetensors", "tqdm", "timm", "torchvision", "torchmetrics", "faster_coco_eval", "defusedxml", "lightning")


def add(tasks: Any) -> None:
    parser = tasks.add_parser(
        "detection",
        help="objects in pictures with boxes",
        description="Finds objects with each detector, and prints COCO's average precision, in all, by size and by "
        "class, with parameters, cost of the upsamplers and time.",
    )
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="detectors that `ddfnet train detection` left, *.safetensors or *.ckpt",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="a folder in the layout of Pascal VOC or of COCO's JSON"
    )
    parser.add_argument("--part", default="test", help="of it, such as val or val2017 (%(default)s)")
    for name, what in (
        ("image", "a picture that cannot be read"),
        ("box", "a box without area or outside its picture"),
    ):
        parser.add_argument(
            f"--on-bad-{name}", choices=("stop", "skip"), default="stop", help=f"what to do about {what} (%(default)s)"
        )
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows, with command, machine and commit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("train", _MODULES)
    if options.json is not None:
        writable_file(options.json)
    import torch

    from ddfnet.data import DataError, boxes
    from ddfnet.models import detection_files
    from ddfnet.tasks import detection_evaluation

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    rows: list[Row] = []
    pictures: BoxedPictures | None = None
    try:
        for name, file in zip(_labels(options.checkpoint), options.checkpoint, strict=True):
            detector = detection_files.load(file)
            if pictures is None or pictures.classes != detector.classes:
                pictures = boxes.load(options.data, options.part, detector.classes, on_bad_box=options.on_bad_box)
            items = detection_evaluation.items(pictures, options.on_bad_image)
            rows.append(detection_evaluation.evaluate(name, detector, pictures, _bar(items, name, len(pictures))))
    except (DataError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from None
    print(detection_evaluation.text(rows), flush=True)
    if options.json is not None and pictures is not None:
        _write(options, rows, pictures)
    return 0


def _labels(files: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    paths = [file.resolve().with_suffix("") for file in files]
    if len(set(paths)) != len(paths):
        raise UserError("--checkpoint must name each detector once, some are given twice")
    longest = max(len(path.parts) for path in paths)
    for length in range(1, longest + 1):
        ends = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(ends)) == len(ends):
            break
    return ends


def _bar(items: Any, title: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(items, title, total, leave=False, disable=not sys.stderr.isatty())


def _write(options: argparse.Namespace, rows: Sequence[Row], pictures: BoxedPictures) -> None:
    from ddfnet.models import detection_files

    results = {
        "command": shlex.join(["ddfnet", *sys.argv[1:]]) if sys.argv[1:] else "ddfnet evaluate detection",
        "data": {
            "name": pictures.name,
            "part": options.part,
            "pictures": len(pictures),
            "boxes_left_out": pictures.left_out,
            "origin": pictures.origin,
        },
        "networks": [{"file": str(file), "card": detection_files.card(file)} for file in options.checkpoint],
        "machine": machine.facts(),
        "rows": [row.as_dict() for row in rows],
    }
    try:
        files.write(options.json, json.dumps(results, indent=2) + "\n")
    except OSError as error:
        raise UserError(str(error)) from None
