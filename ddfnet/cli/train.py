"""``ddfnet train``: Lightning's command line over a task, its data and its defaults, and what a run leaves behind."""

from __future__ import annotations

import argparse
import ctypes
import shlex
import sys
from pathlib import Path
from typing import Any

from ddfnet.cli.quiet import quiet
from ddfnet.errors import UserError, require, writable_folder

_MODULES = ("lightning", "jsonargparse", "torchmetrics", "tensorboard", "safetensors")
TASKS = {  # by the name of its module train_NAME: what it is, and what it needs besides
    "depth": ("guided depth upsampling: DDF-Up-Net on composed scenes", ("cv2", "skimage")),
    "classification": ("any of timm's networks on labelled pictures", ("timm", "torchvision", "webdataset")),
    "detection": (
        "object detection: Faster R-CNN with DDF-Up in its feature pyramid",
        ("timm", "torchvision", "faster_coco_eval", "defusedxml"),
    ),
}


def add(commands: Any) -> None:
    tasks = "; ".join(f"{name}: {what}" for name, (what, _) in TASKS.items())
    parser = commands.add_parser(
        "train",
        help="train a network",
        description="Trains a network and leaves it in a folder, with logs, checkpoints, the resolved configuration "
        f"and a model card. Tasks: {tasks}. `ddfnet train TASK --help` lists all parameters.",
        usage="ddfnet train TASK [--config FILE] [--output DIR] [--ckpt_path FILE|last] [--KEY VALUE ...]",
    )
    parser.add_argument("task", choices=tuple(TASKS), metavar="TASK", help=", ".join(TASKS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="parameters of the task")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    _, own_modules = TASKS[options.task]
    require("train", [*_MODULES, *own_modules])
    quiet()
    if options.own_process:
        keep_memory()
    import jsonargparse
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from ddfnet import env_info
    from ddfnet.cli import presets, training
    from ddfnet.errors import DataError

    try:
        arguments = presets.resolve(options.arguments)
        cli = training.build(options.task, presets.FOLDER / f"{options.task}.yaml", arguments)
    except SystemExit as exit:  # --help and its like have printed
        return int(exit.code or 0)
    except (argparse.ArgumentError, jsonargparse.ArgumentError) as error:
        prog = f"ddfnet train {options.task}"
        print(f"{prog}: error: {_line(error)} (see {prog} --help)", file=sys.stderr)
        return 2
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise UserError(_line(error)) from None
    except OSError as error:  # weights that a network is to begin with, from a hub or a file
        raise UserError(f"the network's weights cannot be had: {_line(error) or type(error).__name__}") from None
    facts = env_info.facts()  # now: the checkout may be another by the time that the run ends
    output = _output(cli.config["output"], cli.config["ckpt_path"], cli.trainer.is_global_zero)
    checkpoint = _checkpoint(output, cli.config["ckpt_path"])
    if checkpoint is not None:
        training.check(checkpoint, cli.model)
    try:
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=checkpoint)
        # Nothing is measured with --trainer.limit_val_batches 0.
        metrics: dict[str, float] = next(iter(cli.trainer.validate(cli.model, cli.datamodule, verbose=False)), {})
        command = shlex.join(["ddfnet", "train", options.task, *options.arguments])
        if (said := training.leave(cli, output, metrics, command=command, machine=facts)) is not None:
            print(said)
    except SystemExit:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from None
    except (DataError, MisconfigurationException) as error:
        raise UserError(_line(error)) from None
    except FloatingPointError as error:
        raise UserError(
            f"{error}; {_last_good(output)}. The same batches would lead to the same end: go on with another "
            "--seed_everything, or begin again with a lower --model.learning_rate"
        ) from None
    except OSError as error:
        what = f"{error.filename or output}: {error.strerror}" if error.strerror else error
        raise UserError(f"{what}; {_last_good(output)}") from None
    return 0


def keep_memory() -> bool:
    """Let glibc keep what is freed: it gives the large maps of each step back to the system, and asks for them again.

    The system then clears the pages anew, which takes longer than much of the arithmetic of a step on the CPU. It holds
    for the rest of the process and for all that runs in it, so only a process of the command's own is set so: in
    another, such as a notebook that calls `main`, memory would never come back.

    Returns:
        Whether this C library has such a setting.
    """
    mmap_max, trim_threshold = -4, -1  # of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another system's, or another C library
        return False
    return bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))


def _line(error: BaseException) -> str:
    """jsonargparse indents what is wrong below what it is wrong with."""
    return " ".join(str(error).split())


def _output(folder: str, resumed: str | None, first: bool) -> Path:
    """The folder of the run: a new one, or the one that is continued."""
    output = Path(folder)
    if first:  # of several processes
        if resumed is None and (output / "config.yaml").exists():
            raise UserError(
                f"{output} holds a run already; choose another --output, or continue it: --config "
                f"{output / 'config.yaml'} --ckpt_path last"
            )
        writable_folder(output)
        for part in (output / "checkpoints").glob(".*.part"):  # what a run was writing when it was killed
            part.unlink(missing_ok=True)
    return output


def _checkpoint(output: Path, path: str | None) -> Path | None:
    """The file to go on from; ``last`` is the folder's own."""
    if path is None:
        return None
    return _last(output) if path == "last" else Path(path)


def _last(output: Path) -> Path:
    """The last checkpoint of a run: ``last.ckpt``, or without it, as with --checkpoint.save_last false, the newest."""
    folder = output / "checkpoints"
    last = folder / "last.ckpt"
    return last if last.exists() else max(folder.glob("*.ckpt"), key=lambda file: file.stat().st_mtime, default=last)


def _last_good(output: Path) -> str:
    last = _last(output)
    return f"the last good checkpoint is {last}" if last.exists() else "there was no checkpoint yet"
