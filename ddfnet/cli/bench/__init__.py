"""``ddfnet bench``: times parts of ddfnet beside what they take the place of, and looks after the results."""

from __future__ import annotations

import argparse
from typing import Any

from ddfnet.errors import UserError


def add(commands: Any) -> None:
    help = "time operator, layer, networks, depth tool and family; compare with committed results"
    try:
        from ddfnet.cli.bench import check, depth, export, family, layer, network, op, plot
    except ModuleNotFoundError as error:  # a checkout without symbolic links, as git makes it on Windows
        if not str(error.name).startswith("ddfnet.bench"):
            raise
        bench = commands.add_parser("bench", help=f"{help} (not in this checkout)", add_help=False)
        bench.set_defaults(run=_missing)
        return

    bench = commands.add_parser("bench", help=help, description=f"{help[0].upper()}{help[1:]}.")
    subjects = bench.add_subparsers(title="what", metavar="WHAT", required=True)
    for subject in (op, layer, network, export, depth, family, check, plot):
        subject.add(subjects)


def _missing(options: argparse.Namespace) -> int:
    raise UserError("ddfnet/benchmarks is a symbolic link to benchmarks, which this checkout lacks; install a wheel")
