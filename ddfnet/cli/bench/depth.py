"""``ddfnet bench depth``: upsample_depth beside OpenCV's filters."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.bench import depth
from ddfnet.bench.registry import DEPTHS
from ddfnet.cli.bench import common
from ddfnet.cli.bench.text import depth_text
from ddfnet.errors import UserError, require


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "depth",
        help="upsample_depth beside OpenCV's guided and joint bilateral filter",
        description="Times upsample_depth with the package's weights, also with smaller tiles, beside OpenCV's guided "
        "and joint bilateral filter and aligned bilinear interpolation, on the CPU: interleaved round by round. The "
        "memory that each adds to its inputs and result is measured in processes of their own. Each result is checked "
        "first: ours against the reference operator, all against the range of the samples.",
    )
    common.add_options(parser, DEPTHS, depth.NAMES, cpu_only=True)
    parser.set_defaults(run=run, rounds=10)  # a call takes a second, not a millisecond


def run(options: argparse.Namespace) -> int:
    require_methods()
    cases = common.chosen(options, DEPTHS, [name for name in DEPTHS if name != "tiny"])
    return common.measure(
        options, "depth", lambda _: depth.run(cases, rounds=options.rounds, only=options.only), depth_text
    )


def require_methods() -> None:
    """Refuse where what is compared, or the scene for it, cannot be had."""
    require("train", ["cv2", "safetensors", "skimage"])
    import cv2

    if not hasattr(cv2, "ximgproc"):
        raise UserError(
            "this OpenCV has no ximgproc; run: pip uninstall opencv-python opencv-python-headless, then "
            "pip install --force-reinstall opencv-contrib-python-headless"
        )
