"""What ``ddfnet train`` must know of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI


@dataclass(frozen=True)
class Task:
    """A Lightning module, its data, and what is the task's own in the command.

    Attributes:
        model: the Lightning module.
        data: the data module.
        link: names the arguments that follow from others.
        leave: writes the network of a run that has ended to a file, and a card of its own facts and of those given.
        in_steps: whether a run is one epoch of so many steps, by which validation is counted too.
    """

    model: type[lightning.LightningModule]
    data: type[lightning.LightningDataModule]
    link: Callable[[LightningArgumentParser], None]
    leave: Callable[[LightningCLI, Path, dict[str, Any]], None]
    in_steps: bool = False
