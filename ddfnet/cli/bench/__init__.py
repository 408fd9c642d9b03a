"""``ddfnet bench``: time parts of ddfnet beside what they replace, and check and draw the results."""

from __future__ import annotations

from typing import Any

from ddfnet.cli._common import SUMMARIES
from ddfnet.cli.bench import check, depth, export, family, layer, network, op, plot


def add(commands: Any) -> None:
    help = SUMMARIES["bench"]
    bench = commands.add_parser("bench", help=help, description=f"{help[0].upper()}{help[1:]}.")
    subjects = bench.add_subparsers(title="what", metavar="WHAT", required=True)
    for subject in (op, layer, network, export, depth, family, check, plot):
        subject.add(subjects)
