"""Guided depth upsampling: DDF-Up-Net, trained on synthetic scenes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ddfnet.arguments import positive_float, positive_int
from ddfnet.tasks.evaluation import EvaluationTable
from ddfnet.tasks.registry import Evaluation, TaskSpec, Training


def _training() -> Training:
    from ddfnet.tasks.depth.data import GuidedDepthData
    from ddfnet.tasks.depth.module import GuidedDepth, card

    return Training(
        GuidedDepth,
        GuidedDepthData,
        card,
        link_arguments=lambda parser: parser.link_arguments("model.factors", "data.multiple", compute_fn=max),
        counts_steps=True,
        skips_parameters=True,
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", choices=("pac", "bicubic", "gdsr"), default="pac", help="(%(default)s)")
    parser.add_argument(
        "--data",
        nargs="+",
        default=["motorcycle"],
        metavar="NAME|DIR",
        help="motorcycle, aloe, nyu, nyu8, middlebury15, or a folder with rgb/ and depth/ (%(default)s)",
    )
    parser.add_argument(
        "--root",
        type=Path,
        metavar="FILE",
        help="nyu_depth_v2_labeled.mat for nyu; nyu8.tar and middlebury15.tar for those; the folder with aloeL.jpg and "
        "aloeGT.png for aloe",
    )
    parser.add_argument("--unit", default="", help="unit of a folder's depth; m is reported in cm")
    parser.add_argument("--factor", nargs="+", type=positive_int, default=[4, 8, 16], metavar="N", help="(4 8 16)")
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="networks that `ddfnet train depth` left, *.safetensors or *.ckpt (default: the package's own). One is "
        "called ddfnet, more by the ends of their paths",
    )
    parser.add_argument(
        "--methods", nargs="*", metavar="NAME", help="methods to compare with; the error for a wrong name lists them"
    )
    parser.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="FILE.py:FUNCTION",
        help="a function of a Python file of yours, which is run: a method beside the others; may be repeated. It is "
        "called as function(low, guide, factor) with the small map (h, w), float32, 0 where its depth is missing, the "
        "image (H, W, 3), uint8, and the factor, and returns the depth (H, W), all NumPy arrays. A parameter called "
        "offset is given the pixel of sample 0, one called valid the mask (h, w) of the samples",
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also each --checkpoint on one view alone, with its guide moved away, and without features",
    )
    parser.add_argument(
        "--sharpness",
        nargs="+",
        type=positive_float,
        default=[],
        metavar="N",
        help="also each network, or the package's own, with its filters so sharp (see ddfnet upsample --help)",
    )
    parser.add_argument(
        "--repeats", type=positive_int, default=1, metavar="N", help="calls, of which the fastest is the time"
    )


def _run(options: argparse.Namespace) -> Iterator[EvaluationTable]:
    from ddfnet.tasks.depth.command import run

    return run(options)


SPEC = TaskSpec(
    name="depth",
    summary="depth maps upsampled with an image: DDF-Up-Net on synthetic scenes",
    training=_training,
    evaluation=Evaluation(
        "Upsamples depth maps by each method from the same small map, and prints their errors, as ratios to aligned "
        "bilinear interpolation too, flying pixels and time: one table for each data set and factor.",
        _add_arguments,
        _run,
        thread_libraries="torch and OpenCV",
    ),
    modules=("cv2", "skimage", "tqdm"),
    configs=Path(__file__).parent / "configs",
)
