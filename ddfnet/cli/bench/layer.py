"""``ddfnet bench layer``: DDF2d beside the convolutions that it replaces."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.bench import layer
from ddfnet.bench.registry import LAYER_GROUPS, LAYERS
from ddfnet.cli.bench import _common


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "layer",
        help="DDF2d beside a dense and a depthwise convolution",
        description="Times DDF2d, filter prediction included, beside dense and depthwise 3x3 conv2d: "
        "interleaved round by round, each in its better memory format. With --only also beside its fused form "
        "(ddf-fused), the operator alone, pixel-adaptive convolution (pac), and dynamic filters with one filter per "
        "pixel and channel (dynamic-depthwise) or per pixel and pair of channels (dynamic). Each case is checked "
        "against the float64 reference first.",
    )
    _common.add_options(parser, LAYERS, layer.NAMES)
    _common.add_group(parser, LAYER_GROUPS)
    _common.add_passes(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    cases = _common.select_grouped(options, LAYERS, LAYER_GROUPS)
    return _common.measure(
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
