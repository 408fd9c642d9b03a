"""What ``ddfnet train`` must know of a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning
from lightning.pytorch.cli import LightningArgumentParser


@dataclass(frozen=True)
class Task:
    """A Lightning module, its data, and what is the task's own in the command.

    Attributes:
        model: the Lightning module.
        data: the data module.
        link: names the arguments that follow from others.
        leave: writes the network of a run that has ended, see `ddfnet.cli.training.leave`.
        trainer: arguments of the trainer, besides those of all tasks.
        callbacks: of the trainer, besides those of all tasks and the user's.
        plugins: of the trainer, besides the user's.
    """

    model: type[lightning.LightningModule]
    data: type[lightning.LightningDataModule]
    link: Callable[[LightningArgumentParser], None]
    leave: Callable[..., Any]
    trainer: Mapping[str, Any] = field(default_factory=dict)
    callbacks: Sequence[Any] = ()
    plugins: Sequence[Any] = ()
