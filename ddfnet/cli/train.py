"""``ddfnet train``: Lightning's command line over a task, its data and its defaults."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

from ddfnet import env_info
from ddfnet.cli._common import SUMMARIES, TRAINING_MODULES, mallopt, quiet
from ddfnet.errors import DataError, UserError, require, writable_folder
from ddfnet.files import remove_dead_parts
from ddfnet.tasks import TASKS


def add(commands: Any) -> None:
    tasks = "; ".join(f"{spec.name}: {spec.summary}" for spec in TASKS.values())
    parser = commands.add_parser(
        "train",
        help=SUMMARIES["train"],
        description="Trains a network and leaves it in a folder, with logs, checkpoints, the resolved configuration "
        f"and a model card. Tasks: {tasks}. `ddfnet train TASK --help` lists all parameters.",
        usage="ddfnet train TASK [--config FILE] [--output DIR] [--ckpt_path FILE|last] [--KEY VALUE ...]",
    )
    parser.add_argument("task", choices=tuple(TASKS), metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="parameters of the task")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    spec = TASKS[options.task]
    require("train", [*TRAINING_MODULES, *spec.modules])
    quiet()
    if options.own_process:
        keep_memory()
    import jsonargparse
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from ddfnet.cli import lightning_cli

    try:
        cli = lightning_cli.build(spec, options.arguments)
    except SystemExit as exit:  # --help and its like have printed
        return int(exit.code or 0)
    except (argparse.ArgumentError, jsonargparse.ArgumentError) as error:
        prog = f"ddfnet train {spec.name}"
        print(f"{prog}: error: {_line(error)} (see {prog} --help)", file=sys.stderr)
        return 2
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(_line(error)) from None
    except OSError as error:  # initial weights of the network, from a hub or a file
        raise UserError(f"the network's weights cannot be had: {_line(error) or type(error).__name__}") from None
    facts = env_info.facts()  # now: the checkout may be another one when the run ends
    output = _output(cli.config["output"], cli.config["ckpt_path"], cli.trainer.is_global_zero)
    checkpoint = _checkpoint(output, cli.config["ckpt_path"])
    if checkpoint is not None:
        lightning_cli.check_checkpoint(checkpoint, cli.model)
    threading.excepthook = _quiet_writer
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint)
        # --trainer.limit_val_batches 0 gives no metrics.
        metrics: dict[str, float] = next(iter(cli.trainer.validate(cli.model, cli.datamodule, verbose=False)), {})
        command = shlex.join(["ddfnet", "train", spec.name, *options.arguments])
        summary = lightning_cli.save_artifacts(cli, output, metrics, command=command, machine=facts)
        if summary is not None:
            print(summary)
    except SystemExit:  # Lightning turns Ctrl-C into it
        raise KeyboardInterrupt from None
    except (DataError, MisconfigurationException) as error:
        raise UserError(_line(error)) from None
    except FloatingPointError as error:
        raise UserError(
            f"{error}; {_last_good(output)}. The same batches would lead to the same end: resume with another "
            "--seed_everything, or start again with a lower --model.learning_rate"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        if (cause := _system_error(error)) is None:
            raise
        what = f"{cause.filename or output}: {cause.strerror}" if cause.strerror else cause
        raise UserError(f"{what}; {_last_good(output)}") from None
    finally:
        threading.excepthook = threading.__excepthook__
    return 0


def _quiet_writer(arguments: threading.ExceptHookArgs) -> None:
    """Print a thread's error, unless it is that of TensorBoard's writer, which the next call of the logger raises."""
    if type(arguments.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(arguments)


def _system_error(error: BaseException) -> OSError | None:
    """Return the error of the system behind an error of the training.

    Lightning raises a ValueError where TensorBoard cannot write, and torch a RuntimeError where a worker has no room
    for its batch.
    """
    for each in (error, error.__cause__):
        if isinstance(each, OSError):
            return each
    if isinstance(error, RuntimeError) and os.strerror(errno.ENOSPC) in str(error):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shared memory of the workers; give --data.workers 0")
    return None


def keep_memory() -> bool:
    """Let glibc keep freed memory instead of returning each step's large maps to the system.

    The system clears the pages when they are asked for again, and that takes longer than much of a step's arithmetic on
    the CPU. The setting holds for the rest of the process. A process that only calls `main`, such as a notebook, is not
    set so: its memory would never be returned.

    Returns:
        True if this C library has the setting.
    """
    mmap_max, trim_threshold = -4, -1  # constants of malloc.h
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))


def _line(error: BaseException) -> str:
    """Return the message in one line; jsonargparse writes several, indented."""
    return " ".join(str(error).split())


def _output(folder: str, resumed: str | None, first: bool) -> Path:
    """Return the folder of the run, a new one or the one to continue."""
    output = Path(folder)
    if first:  # the first of several processes
        if resumed is None and (output / "config.yaml").exists():
            raise UserError(
                f"{output} holds a run already; choose another --output, or continue it: --config "
                f"{output / 'config.yaml'} --ckpt_path last"
            )
        writable_folder(output)
        remove_dead_parts(output / "checkpoints")
    return output


def _checkpoint(output: Path, path: str | None) -> Path | None:
    """Return the file to resume from; ``last`` is the folder's own."""
    if path is None:
        return None
    return _last(output) if path == "last" else Path(path)


def _last(output: Path) -> Path:
    """Return ``last.ckpt`` of a run, or without it (--checkpoint.save_last false) the newest checkpoint."""
    folder = output / "checkpoints"
    last = folder / "last.ckpt"
    return last if last.exists() else max(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, default=last)


def _last_good(output: Path) -> str:
    last = _last(output)
    return f"the last good checkpoint is {last}" if last.exists() else "there was no checkpoint yet"
