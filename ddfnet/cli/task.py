"""What ``ddfnet train`` must know of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ddfnet.pretrained import Weights


@dataclass(frozen=True)
class Task:
    """A Lightning module, its data, and what is the task's own in the command.

    Attributes:
        model: the Lightning module.
        data: the data module.
        link: names the arguments that follow from others.
        leave: writes the network of a run that has ended, with these weights, to a file, and a card of its own facts
            and of those given.
        in_steps: whether a run is one epoch of so many steps, by which validation is counted too.
        in_part: whether a step may need part of the network alone, which DDP has to look for.
        sharded: whether the network can be shared out over the processes: each calls it as often as the others.
    """

    model: type[lightning.LightningModule]
    data: type[lightning.LightningDataModule]
    link: Callable[[LightningArgumentParser], None]
    leave: Callable[[LightningCLI, Weights, Path, dict[str, Any]], None]
    in_steps: bool = False
    in_part: bool = False
    sharded: bool = True
