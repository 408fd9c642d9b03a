"""Command line of ddfnet: its commands, and the one place that turns an error into a line and an exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ddfnet import __version__
from ddfnet.cli._common import SUMMARIES
from ddfnet.errors import UserError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line; argparse would print the whole usage."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _parser(command: str) -> argparse.ArgumentParser:
    """Return the parser; of the commands only this one is imported, since most need torch."""
    parser = _Parser(prog="ddfnet", description="Decoupled dynamic filters for PyTorch.", parents=[_import_parser()])
    parser.add_argument("--version", action="version", version=f"ddfnet {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in SUMMARIES.items():
        if name == command:
            import_module(f"ddfnet.cli.{name}").add(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser


def _import_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ddfnet", add_help=False, allow_abbrev=False)
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE",
        help="import a Python file, or a module by its name, before the command: one that registers a network, a depth "
        "file format, an upsampler, a data set or a task; may be repeated",
    )
    return parser


def import_plugin(name: str) -> None:
    """Import a file or a module that registers something.

    The folder of a file joins ``sys.path``, so that worker processes find the module too.

    Args:
        name: path of a Python file, or name of a module.

    Raises:
        UserError: the file or the module cannot be imported, or another module has the name of the file.
    """
    file = Path(name).resolve() if name.endswith(".py") else None
    if file is not None:
        if not file.is_file():
            raise UserError(f"--import {name}: no such file")
        sys.path.insert(0, str(file.parent))
    module_name = name if file is None else file.stem
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise UserError(f"--import {name}: {error}") from error
    if file is not None and Path(str(module.__file__)).resolve() != file:
        raise UserError(f"--import {name}: the module {module_name} is {module.__file__} already; rename the file")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: arguments; None for those of the process.

    Returns:
        The exit status: 0; 1 for an error that the user can mend, with one line on stderr; 2 for wrong usage.
    """
    try:
        early, others = _import_parser().parse_known_args(argv)
        for name in early.imports:  # before the parser is made, because it lists registered names
            import_plugin(name)
        command = next((word for word in others if not word.startswith("-")), "")
        options = _parser(command).parse_args(others)
    except SystemExit as exit:  # argparse has printed help, the version or an error
        return int(exit.code or 0)
    except UserError as error:
        return _fail(error)
    options.own_process = argv is None  # not a call from another program
    try:
        status: int = options.run(options)
        return status
    except UserError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return 130


def _fail(error: UserError) -> int:
    print(f"ddfnet: error: {error}", file=sys.stderr)
    return 1
