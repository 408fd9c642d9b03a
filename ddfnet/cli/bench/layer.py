"""``ddfnet bench layer``: DDF2d as a whole beside the convolutions whose place it takes."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.bench import layer
from ddfnet.bench.registry import LAYER_GROUPS, LAYERS
from ddfnet.cli.bench import common


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "layer",
        help="DDF2d beside a dense and a depthwise convolution",
        description="Times DDF2d as a whole, filter prediction included, beside dense and depthwise 3x3 conv2d: "
        "interleaved round by round, each in its better memory format. With --only also beside the operator alone, "
        "pixel-adaptive convolution (pac), and dynamic filters with a filter for each pixel and channel "
        "(dynamic-depthwise) or pair of channels (dynamic). Each case is checked against the float64 reference first.",
    )
    common.add_options(parser, LAYERS, layer.NAMES)
    common.add_group(parser, LAYER_GROUPS)
    common.add_passes(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    cases = common.grouped(options, LAYERS, LAYER_GROUPS)
    return common.measure(
        options,
        "layer",
        lambda device: layer.run(
            cases,
            rounds=options.rounds,
            backward=options.backward,
            only=options.only,
            measure_memory=options.memory,
            device=device,
        ),
    )
