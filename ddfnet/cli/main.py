"""Command line of ddfnet: its commands, and the one place that turns an error into a line and an exit status."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from ddfnet import __version__
from ddfnet.cli._common import SUMMARIES
from ddfnet.errors import UserError, out_of_memory

_TERMINATED = 128 + 15  # the status that a shell reports for a process that SIGTERM has ended
_PIPE_CLOSED = 128 + 13  # likewise for SIGPIPE


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
        The exit status: 0; 1 for an error that the user can mend, with one line on stderr; 2 for wrong usage; 130 after
        Ctrl-C, 143 after SIGTERM, 141 where the reader of the output has gone, as ``head`` does.
    """
    if argv is not None:  # a call from another program, whose signals and streams are its own
        return _run(argv, own_process=False)
    terminate, before = _Terminate(), signal.getsignal(signal.SIGTERM)
    if is_main := threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminate)
    try:
        status = _run(None, own_process=True)
        if sys.stdout is not None:
            sys.stdout.flush()  # now, for where Python does it at its end a closed pipe is a traceback
    except SystemExit:
        if not terminate.received:
            raise
        status = _TERMINATED
    except BrokenPipeError:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # the rest of their output goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        status = _PIPE_CLOSED
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)
    return _TERMINATED if terminate.received else status


class _Terminate:
    """Handler of SIGTERM that ends the command as an exception does, so that unfinished files are removed."""

    received = False

    def __call__(self, number: int, frame: Any) -> None:
        self.received = True
        # Lightning's handler takes its place in a training, calls this one, and ends the run after the batch.
        if signal.getsignal(signal.SIGTERM) is self:
            raise SystemExit(_TERMINATED)


def _run(argv: Sequence[str] | None, *, own_process: bool) -> int:
    """Run the command, and make a line of each error that the user can mend."""
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
    options.own_process = own_process
    try:
        status: int = options.run(options)
        return status
    except UserError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) or (line := _mendable(error)) is None:
            raise
        return _fail(line)


def _mendable(error: Exception) -> str | None:
    """Return the line for an error from anywhere below that the user can mend, None for a bug."""
    if out_of_memory(error):
        return "not enough memory; end other programs, or give the command less to do at once"
    backends = sys.modules.get("ddfnet.ops.backends")  # most commands import it, and not all
    return str(error) if backends is not None and isinstance(error, backends.BackendError) else None


def _fail(error: UserError | str) -> int:
    print(f"ddfnet: error: {error}", file=sys.stderr)
    return 1
