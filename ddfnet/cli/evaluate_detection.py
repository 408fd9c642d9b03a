"""``ddfnet evaluate detection``: trained detectors side by side on pictures that none was trained on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.cli import evaluating
from ddfnet.errors import UserError, require

if TYPE_CHECKING:
    from ddfnet.data.detection.annotations import BoxedPictures
    from ddfnet.tasks.detection.evaluation import Row

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
    parser.add_argument("--device", default="cpu", metavar="NAME", help="where, such as cuda (%(default)s)")
    evaluating.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("train", _MODULES)
    evaluating.prepare(options)

    from ddfnet.data.detection import annotations
    from ddfnet.env_info import device_named
    from ddfnet.errors import DataError
    from ddfnet.models.faster_rcnn import Detector
    from ddfnet.pretrained import load, read_card
    from ddfnet.tasks.detection import evaluation

    device = device_named(options.device)
    rows: list[Row] = []
    networks = []
    pictures: BoxedPictures | None = None
    try:
        for name, file in zip(evaluating.labels(options.checkpoint), options.checkpoint, strict=True):
            detector = load(file, Detector).to(device)
            networks.append({"file": str(file), "card": read_card(file)})
            if pictures is None or pictures.classes != detector.classes:
                pictures = annotations.load(options.data, options.part, detector.classes, on_bad_box=options.on_bad_box)
            items = evaluation.items(pictures, options.on_bad_image)
            rows.append(evaluation.evaluate(name, detector, pictures, _bar(items, name, len(pictures))))
    except (DataError, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from None
    print(evaluation.text(rows), flush=True)
    assert pictures is not None  # a checkpoint at least is required
    data = {
        "name": pictures.name,
        "part": options.part,
        "pictures": len(pictures),
        "boxes_left_out": pictures.left_out,
        "origin": pictures.origin,
    }
    evaluating.write(options, device=str(device), data=data, networks=networks, rows=[row.as_dict() for row in rows])
    return 0


def _bar(items: Any, title: str, total: int) -> Any:
    from tqdm import tqdm

    return tqdm(items, title, total, leave=False, disable=not sys.stderr.isatty())
