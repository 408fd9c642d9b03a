"""``ddfnet bench op``: the operator beside convolutions and beside other ways to compute the same."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ddfnet.benchmarks import op
from ddfnet.benchmarks.competitors import NAMES
from ddfnet.benchmarks.registry import CASES, GROUPS, Case
from ddfnet.cli.bench import common


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "op",
        help="the operator beside convolutions, unfold and torch.compile",
        description="Times the operator beside depthwise and dense conv2d, an unfold formulation, torch.compile of "
        "the formula, and the machine's own limit: in one process, interleaved round by round, each in its better "
        "memory format. Each case is checked against the float64 reference first. Half types are judged by depthwise "
        "conv2d in float32.",
    )
    common.add_options(parser, CASES, NAMES)
    common.add_group(parser, GROUPS)
    common.add_passes(parser)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--dtype", choices=("float64", "float32", "bfloat16", "float16"), help="instead of the case's own"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    only = options.only
    if options.no_compile:
        only = [name for name in only or NAMES if name != "compiled"]
    return common.measure(
        options,
        "op",
        lambda device: op.run(
            _cases(options),
            rounds=options.rounds,
            backward=options.backward,
            only=only,
            measure_memory=options.memory,
            device=device,
        ),
    )


def _cases(options: argparse.Namespace) -> list[Case]:
    cases = common.grouped(options, CASES, GROUPS)
    return [replace(case, dtype=options.dtype) for case in cases] if options.dtype else cases
