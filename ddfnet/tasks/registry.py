"""Registry of the tasks that ``ddfnet train`` and ``ddfnet evaluate`` know."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddfnet.tasks.evaluation import EvaluationTable

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.cli import LightningArgumentParser


@dataclass(frozen=True)
class Training:
    """Lightning classes of a task, and its own rules in ``ddfnet train``.

    Attributes:
        module: the Lightning module. Its ``network`` is saved at the end of a run, with the module's ``header`` if it
            has one, see `ddfnet.pretrained.save`.
        data: the Lightning data module.
        card: returns the task's own entries of the model card, given the trainer at the end of a run.
        link_arguments: links options that follow from others.
        command_line_only: switches that only the command line itself may turn on, by their keys; no file and no
            variable of the environment.
        counts_steps: one epoch is the whole run of ``trainer.max_steps`` steps; validation is counted in steps too.
        skips_parameters: a step may leave parameters unused, so DDP must search for them.
        supports_fsdp: each process calls the network equally often, so its weights can be sharded.
    """

    module: type[lightning.LightningModule]
    data: type[lightning.LightningDataModule]
    card: Callable[[lightning.Trainer], dict[str, Any]] = lambda trainer: {}
    link_arguments: Callable[[LightningArgumentParser], None] = lambda parser: None
    command_line_only: tuple[str, ...] = ()
    counts_steps: bool = False
    skips_parameters: bool = False
    supports_fsdp: bool = True


@dataclass(frozen=True)
class Evaluation:
    """Options and measurements of a task in ``ddfnet evaluate``.

    Attributes:
        description: measurements, for ``--help``.
        add_arguments: adds the task's own options.
        run: measures with the parsed options; yields each table when it is ready. The facts of the last table are those
            of all.
        thread_libraries: the libraries whose threads ``--threads`` sets, for ``--help``.
    """

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Iterable[EvaluationTable]]
    thread_libraries: str = "torch"


@dataclass(frozen=True)
class TaskSpec:
    """A task of the command line.

    Everything heavy is imported by the functions, so that ``ddfnet --help`` needs torch alone.

    Attributes:
        name: the word on the command line.
        summary: one line for ``--help``.
        training: returns the parts of ``ddfnet train``; imports them when it is called.
        evaluation: the parts of ``ddfnet evaluate``; None without that command.
        modules: modules that the task needs besides those of every training.
        configs: folder of YAML files for ``--config NAME``; ``default.yaml`` is laid under every run.

    Example:
        >>> from ddfnet.tasks import TASKS
        >>> TASKS["detection"].configs.name
        'configs'
    """

    name: str
    summary: str
    training: Callable[[], Training]
    evaluation: Evaluation | None = None
    modules: tuple[str, ...] = ()
    configs: Path | None = None


TASKS: dict[str, TaskSpec] = {}
"""All tasks by their names, in the order in which ``--help`` lists them."""


def register_task(spec: TaskSpec) -> TaskSpec:
    """Add a task to the command line.

    Returns:
        The same task.

    Raises:
        ValueError: the name is taken.
    """
    if spec.name in TASKS:
        raise ValueError(f"the task name {spec.name!r} is taken; choose another")
    TASKS[spec.name] = spec
    return spec
