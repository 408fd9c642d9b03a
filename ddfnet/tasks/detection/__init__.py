"""Object detection by Faster R-CNN, with any of `ddfnet.models.upsamplers.UPSAMPLERS` in its feature pyramid."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddfnet.tasks.evaluation import EvaluationTable
from ddfnet.tasks.registry import Evaluation, TaskSpec, Training


def _training() -> Training:
    from ddfnet.tasks.detection.data import DetectionData
    from ddfnet.tasks.detection.module import Detection, card

    def link_arguments(parser: Any) -> None:
        parser.link_arguments(
            "model", "data.classes", compute_fn=lambda model: list(model.network.classes), apply_on="instantiate"
        )

    # The processes validate unequal numbers of images, so the weights cannot be sharded.
    return Training(Detection, DetectionData, card, link_arguments, counts_steps=True, supports_fsdp=False)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
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
    parser.add_argument("--part", default="test", help="split of the data, such as val or val2017 (%(default)s)")
    for name, bad in (("image", "an image that cannot be read"), ("box", "a box without area or outside its image")):
        parser.add_argument(
            f"--on-bad-{name}", choices=("stop", "skip"), default="stop", help=f"at {bad} (%(default)s)"
        )
    parser.add_argument("--device", default="cpu", metavar="NAME", help="such as cuda (%(default)s)")


def _run(options: argparse.Namespace) -> Iterator[EvaluationTable]:
    from ddfnet.tasks.detection.evaluation import evaluate

    yield evaluate(
        options.checkpoint,
        options.data,
        options.part,
        on_bad_image=options.on_bad_image,
        on_bad_box=options.on_bad_box,
        device=options.device,
    )


SPEC = TaskSpec(
    name="detection",
    summary="objects in images: Faster R-CNN with DDF-Up in its feature pyramid",
    training=_training,
    evaluation=Evaluation(
        "Detects objects with each network, and prints COCO's average precision, in all, by size and by class, with "
        "parameters, cost of the upsamplers and time.",
        _add_arguments,
        _run,
    ),
    modules=("timm", "torchvision", "tqdm", "faster_coco_eval", "defusedxml"),
    configs=Path(__file__).parent / "configs",
)
