"""``ddfnet bench export``: ddf_mul_resnet50 in ONNX Runtime beside the eager network."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.bench import export
from ddfnet.bench.registry import NETWORKS
from ddfnet.cli.bench import _common


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "export",
        help="ddf_mul_resnet50 in ONNX Runtime beside the eager network",
        description="Exports ddf_mul_resnet50 as ONNX, checks it, and times it in ONNX Runtime beside the eager "
        "network in its better memory format, in turns, with the same number of threads.",
    )
    _common.add_options(parser, NETWORKS, cpu_only=True)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    _common.require_libraries("export")
    cases = _common.select_cases(options, NETWORKS, ["b1", "b8"])
    return _common.measure(options, "export", lambda device: export.run(cases, rounds=options.rounds))
