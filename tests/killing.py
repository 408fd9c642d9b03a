"""Training runs in processes of their own that kill themselves at a given moment.

The processes are forked from a server that has imported what they need and has never trained: PyTorch refuses to train
in a fork of a process that has.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

import lightning
import torch

from ddfnet.cli.main import main
from ddfnet.tasks import TASKS

Moment = Callable[[type[lightning.LightningModule], int], None]  # takes the class of the task's module


def run(words: Sequence[str], moment: Moment, number: int) -> int | None:
    """Run a command that is killed at this moment, and return its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.killing", f"ddfnet.tasks.{words[1]}.module", "tensorboard"])
    process = context.Process(target=_run, args=(words, moment, number))
    process.start()
    process.join()
    return process.exitcode


def _run(words: Sequence[str], moment: Moment, number: int) -> None:
    torch.set_num_threads(1)
    moment(TASKS[words[1]].training().module, number)
    sys.argv = ["ddfnet", *words]
    sys.exit(main())


def _die(by: signal.Signals = signal.SIGKILL) -> None:
    os.kill(os.getpid(), by)


def at_step(model: type[lightning.LightningModule], number: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Kill the process when the step of this number begins."""
    step = model.training_step

    def dies(self: lightning.LightningModule, batch: Any, index: int) -> Any:
        if self.global_step == number:
            _die(by)
        return step(self, batch, index)

    model.training_step = dies  # type: ignore[method-assign, assignment]


def terminate_at_step(model: type[lightning.LightningModule], number: int) -> None:
    """Ask the process to end, as the system does when it shuts down, when the step of this number begins."""
    at_step(model, number, signal.SIGTERM)


def at_validation(model: type[lightning.LightningModule], epoch: int) -> None:
    """Kill the process in the middle of the validation after an epoch."""
    step = model.validation_step

    def dies(self: lightning.LightningModule, batch: Any, index: int) -> Any:
        if self.current_epoch == epoch and index == 1:
            _die()
        return step(self, batch, index)

    model.validation_step = dies  # type: ignore[method-assign, assignment]


def at_save(model: type[lightning.LightningModule], number: int) -> None:
    """Kill the process when half of a checkpoint is written, counting the copy ``last.ckpt`` as one."""
    calls, save = [], torch.save

    def dies(checkpoint: Any, stream: Any) -> None:
        calls.append(1)
        if len(calls) == number:
            stream.write(b"half of it")
            stream.flush()
            _die()
        save(checkpoint, stream)

    torch.save = dies
