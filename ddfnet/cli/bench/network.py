"""``ddfnet bench network``: ddf_mul_resnet50 beside timm's resnet50, in inference and in training."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.bench import network
from ddfnet.bench.registry import COMPILED, INFERENCE, NETWORKS, TRAINING
from ddfnet.cli.bench import _common
from ddfnet.errors import UserError


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "network",
        help="ddf_mul_resnet50 beside timm's resnet50",
        description="Times ddf_mul_resnet50 beside timm's resnet50, both as they are and with folded batch norms: "
        "interleaved round by round, each in its better memory format. Each case is checked against the float64 "
        "reference first.",
    )
    _common.add_options(parser, NETWORKS, network.NAMES)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--compile", action="store_true", help="time inference under torch.compile as well")
    mode.add_argument(
        "--train",
        action="store_true",
        help="time training steps instead, and measure their memory, each in its own process",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    _common.require_libraries("network")
    cases = _common.select_cases(options, NETWORKS, ["b16"] if options.train else ["b1", "b8", "b32"])
    directions = [TRAINING] if options.train else [INFERENCE, COMPILED][: 1 + options.compile]
    try:
        return _common.measure(
            options,
            "network",
            lambda device: network.run(
                cases,
                directions,
                rounds=options.rounds,
                only=options.only,
                device=device,
            ),
        )
    except network.CompileFailedError as error:
        raise UserError(str(error)) from None
