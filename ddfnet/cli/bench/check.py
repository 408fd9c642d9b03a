"""``ddfnet bench check``: a regression check against the ratios of committed results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ddfnet import env_info
from ddfnet.bench import check, documents
from ddfnet.bench.equality import WrongResultError
from ddfnet.cli.bench._common import add_rounds, kernel_text, require_libraries
from ddfnet.errors import UserError
from ddfnet.table import table


def add(subjects: Any) -> None:
    parser = subjects.add_parser(
        "check",
        help="time the cases of a results file again, and fail where one got slower",
        description="Times the cases of results files again and compares the ratios to their baselines, never absolute "
        f"times. Fails if a ratio is more than {check.BOUND:.0%} worse, twice. Needs the kernel that made the file.",
    )
    parser.add_argument("file", nargs="+", type=Path, metavar="FILE", help="written by --json")
    add_rounds(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    try:
        read = {file: documents.read(file) for file in options.file}
    except documents.ResultsFileError as error:
        raise UserError(str(error)) from None
    slower = [name for file, document in read.items() for name in _check(file, document, options.rounds)]
    if slower:
        raise UserError(f"more than {check.BOUND:.0%} slower than recorded, in two measurements: {', '.join(slower)}")
    print(f"\nno case is more than {check.BOUND:.0%} slower than recorded")
    return 0


def _check(file: Path, document: documents.Document, rounds: int) -> list[str]:
    """Time the cases of one file, print all of them, and return the names of the slower ones."""
    require_libraries(document.what)
    kernel = kernel_text(env_info.find_device(document.device))
    if kernel != document.kernel:
        raise UserError(
            f"{file} was made by the {document.kernel} and this machine runs the {kernel}: their ratios cannot be "
            f"compared; give results of this kernel, or choose the other one by DDFNET_CPU_ISA if the machine has it"
        )
    torch.set_num_threads(document.machine["threads"])
    print(f"{file}: {kernel}, {torch.get_num_threads()} threads")
    here = env_info.facts()
    for name in ("cpu", "torch"):
        if here[name] != document.machine[name]:
            print(f"note: another {name}, {document.machine[name]} there and {here[name]} here; ratios may differ")
    comparisons = []
    try:
        for comparison in check.check(document, rounds=rounds):
            print(f"{comparison.case} {comparison.direction}: {comparison.measured:.2f}", flush=True)
            comparisons.append(comparison)
    except WrongResultError as error:
        raise UserError(str(error)) from None
    print(f"\n{_text(comparisons)}")
    return [f"{row.case} {row.direction}" for row in comparisons if row.is_regression]


def _text(comparisons: Sequence[check.Comparison]) -> str:
    headers = ["case", "direction", "recorded", "now", "change", ""]
    notes = {(True, True): "slower", (False, True): "within the bound the second time", (False, False): ""}
    rows = [
        [
            row.case,
            row.direction,
            f"{row.recorded:.2f}",
            f"{row.measured:.2f}",
            f"{row.change:+.0%}",
            notes[row.is_regression, row.twice],
        ]
        for row in comparisons
    ]
    return table(headers, rows, left=2)
