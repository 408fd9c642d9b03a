"""The command line: subcommands, and the one place where an error becomes a line and an exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from ddfnet import __version__
from ddfnet.cli import bench, convert, demo, env, evaluate, export, train, upsample
from ddfnet.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, where argparse would print the whole usage."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ddfnet", description="Decoupled dynamic filters for PyTorch.")
    parser.add_argument("--version", action="version", version=f"ddfnet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (demo, upsample, train, evaluate, export, convert, bench, env):
        command.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments; None for those of the process.

    Returns:
        The exit status: 0, 1 for what the user can put right (said in one line on stderr), 2 for wrong use.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exit:  # argparse has printed: help, the version, or what is wrong
        return int(exit.code or 0)
    options.own_process = argv is None  # and no call from another program
    try:
        status: int = options.run(options)
        return status
    except UserError as error:
        print(f"ddfnet: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
