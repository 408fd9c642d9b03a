"""``ddfnet bench export``: ddf_mul_resnet50 in ONNX Runtime beside itself on our CPU kernels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ddfnet.benchmarks import export
from ddfnet.benchmarks.registry import NETWORKS
from ddfnet.cli.arguments import positive
from ddfnet.cli.bench import common
from ddfnet.cli.errors import require
from ddfnet.export.exporting import MODULES


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "export",
        help="ddf_mul_resnet50 in ONNX Runtime beside the eager network",
        description="Exports ddf_mul_resnet50 as ONNX, checks it, and times it in ONNX Runtime beside the eager "
        "network in its better memory format, in turns, with as many threads.",
    )
    parser.add_argument(
        "--case", action="append", choices=NETWORKS, metavar="NAME", help=f"may be repeated: {', '.join(NETWORKS)}"
    )
    common.add_rounds(parser)
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of both (as torch chooses)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.set_defaults(run=run, device="cpu")


def run(options: argparse.Namespace) -> int:
    require("models", ["timm"])
    require("export", MODULES)
    cases = common.chosen(options, NETWORKS, ["b1", "b8"])
    return common.measure(options, "export", lambda device: export.run(cases, rounds=options.rounds))
