"""``ddfnet bench depth``: upsample_depth beside OpenCV's filters."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.bench import depth
from ddfnet.bench.registry import DEPTHS
from ddfnet.bench.text import depth_text
from ddfnet.cli.bench import _common


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "depth",
        help="upsample_depth beside OpenCV's guided and joint bilateral filters",
        description="Times upsample_depth with the package's weights, also with smaller tiles, beside OpenCV's guided "
        "and joint bilateral filters and aligned bilinear interpolation, on the CPU: interleaved round by round. The "
        "memory beyond inputs and result is measured, each in its own process. Each result is checked first: ours "
        "against the reference operator, all against the range of the samples.",
    )
    _common.add_options(parser, DEPTHS, depth.NAMES, cpu_only=True)
    parser.set_defaults(run=run, rounds=10)  # a call takes a second, not a millisecond


def run(options: argparse.Namespace) -> int:
    _common.require_libraries("depth")
    cases = _common.select_cases(options, DEPTHS, [name for name in DEPTHS if name != "tiny"])
    return _common.measure(
        options, "depth", lambda _: depth.run(cases, rounds=options.rounds, only=options.only), depth_text
    )
