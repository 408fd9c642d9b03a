"""``ddfnet bench layer``: DDF2d as a whole beside the convolutions whose place it takes."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.benchmarks import layer
from ddfnet.benchmarks.registry import LAYERS
from ddfnet.cli.bench import common


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "layer",
        help="DDF2d beside a dense and a depthwise convolution",
        description="Times DDF2d as a whole, filter prediction included, beside dense and depthwise 3x3 conv2d: "
        "interleaved round by round, each in its better memory format. Each case is checked against the float64 "
        "reference first.",
    )
    common.add_options(parser, LAYERS, layer.NAMES)
    parser.add_argument("--backward", action="store_true", help="time the forward and backward pass together as well")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    cases = common.chosen(options, LAYERS, [name for name in LAYERS if name != "tiny"])
    return common.measure(
        options,
        "layer",
        lambda device: layer.run(
            cases, rounds=options.rounds, backward=options.backward, only=options.only, device=device
        ),
    )
