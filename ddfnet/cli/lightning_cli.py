"""Lightning's command line for a task: its parser, the folder of a run, and the model card."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
from jsonargparse.typing import PositiveInt, register_type
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from ddfnet.errors import UserError
from ddfnet.pretrained import check_header, header_of, save, strip_prefix
from ddfnet.tasks import TaskSpec, Training
from ddfnet.training.callbacks import (
    AtomicCheckpointIO,
    AveragingOnResume,
    MovingAverage,
    ResumeHistory,
    StepTimer,
    StopOnNonFinite,
)
from ddfnet.training.fsdp import FullyShardedStrategy
from ddfnet.training.precision import has_bfloat16, set_precision

_RESUME_KEYS = (
    "loops",
    "optimizer_states",
    "lr_schedulers",
    "callbacks",
)  # in a checkpoint
_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
_COUNTS_STEPS = {"max_epochs": -1, "check_val_every_n_epoch": None}


# The default of StochasticWeightAveraging's device is one: config.yaml would hold an error's text in its place.
register_type(torch.device, str)


class _CLI(LightningCLI):
    def __init__(self, spec: TaskSpec, training: Training, words: Sequence[str], **kwargs: Any) -> None:
        self.spec, self.training, self.words = spec, training, words
        super().__init__(training.module, training.data, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", type=str, default="runs/run", help="Folder that the run goes to.")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to resume from; `last` is that of the output folder. Give the run's own config.yaml too.",
        )
        parser.add_argument(
            "--threads", type=PositiveInt | None, default=None, help="Threads of torch; by default its own."
        )
        parser.add_lightning_class_args(MovingAverage, "ema")
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": "{step}",
                "checkpoint.every_n_train_steps": 500,
                "checkpoint.save_last": True,
                "checkpoint.enable_version_counter": False,
            }
        )
        parser.link_arguments(
            "output", "checkpoint.dirpath", compute_fn=lambda output: str(Path(output) / "checkpoints")
        )
        self.training.link_arguments(parser)
        for key in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", key, compute_fn=int)

    def before_instantiate_classes(self) -> None:
        for key in self.training.command_line_only:
            if self.config[key] and not _turned_on(key, self.words):
                raise ValueError(
                    f"{key} must be turned on by the command line itself, got it from a file or the environment; leave "
                    f"it out there, or give --{key} true if you trust what it allows"
                )
        if (threads := self.config["threads"]) is not None:
            torch.set_num_threads(threads)

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Return Lightning's trainer, with logs in the run's folder, and a progress bar on a terminal."""
        output, own = self.config["output"], self.config_init["trainer"]
        if own["logger"] is None:
            kwargs["logger"] = [TensorBoardLogger(output, name="", version=""), CSVLogger(output, name="csv")]
        if own["default_root_dir"] is None:
            kwargs["default_root_dir"] = output
        if own["enable_progress_bar"] is None:
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        if own["strategy"] == "fsdp":
            kwargs["strategy"] = self._fsdp()
        given = own["plugins"] or []
        kwargs["plugins"] = [*(given if isinstance(given, list) else [given]), AtomicCheckpointIO()]
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun decides the number of processes
            local = int(os.environ["LOCAL_WORLD_SIZE"])
            kwargs.update(devices=local, num_nodes=int(os.environ["WORLD_SIZE"]) // local)
        # Before the run begins: a checkpoint's weights are loaded into those of the network.
        kwargs["precision"] = set_precision(self.config_init["model"], own["precision"])
        trainer = super().instantiate_trainer(**kwargs)
        if kwargs["precision"] == "bf16-mixed" and not has_bfloat16(trainer.strategy.root_device):
            note = "this CPU has no fast bfloat16; --trainer.precision 32-true takes a fraction of bf16-mixed's time"
            print(f"ddfnet: note: {note}", file=sys.stderr)
        if self.training.skips_parameters and type(trainer.strategy) is DDPStrategy:
            trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        return trainer

    def _fsdp(self) -> FullyShardedStrategy:
        if not self.training.supports_fsdp:
            raise ValueError(
                f"trainer.strategy must be ddp for {self.spec.name}, got fsdp: its processes validate unequal numbers "
                "of images, and those with fewer would not give their shards of the weights"
            )
        if getattr(self.config_init["model"], "compiled", False):
            raise ValueError("trainer.strategy fsdp must be without model.compile, got both; leave one of them out")
        return FullyShardedStrategy()


def _turned_on(key: str, words: Sequence[str]) -> bool:
    """Return True if the words of a command line have ``--KEY true`` or ``--KEY=true``."""
    option = f"--{key}"
    return f"{option}=true" in words or (option, "true") in pairwise(words)


def build(spec: TaskSpec, arguments: Sequence[str]) -> LightningCLI:
    """Parse the arguments of a task and create its module, its data and its trainer.

    Args:
        spec: the task.
        arguments: command-line arguments, laid over the task's ``default.yaml``.

    Raises:
        argparse.ArgumentError: an unknown key, or a value of another type or out of range.
        ValueError: a value that the task refuses, or that only the command line may have.
    """
    training = spec.training()
    defaults = [] if spec.configs is None else [str(spec.configs / "default.yaml")]
    cli = _CLI(
        spec,
        training,
        arguments,
        run=False,
        args=resolve_presets(arguments, spec.configs),
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_kwargs={"overwrite": True},  # `ddfnet train` refuses the folder of another run
        trainer_defaults={
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,  # the data shares itself out
            "enable_model_summary": False,
            "callbacks": [ResumeHistory(), StopOnNonFinite(), StepTimer(), AveragingOnResume()],
            **(_COUNTS_STEPS if training.counts_steps else {}),
        },
        parser_kwargs={
            "prog": f"ddfnet train {spec.name}",
            "description": (training.module.__doc__ or "").partition("\n")[0],
            "default_config_files": defaults,
            "exit_on_error": False,
        },
    )
    network: Any = getattr(cli.model, "network", None)
    if hasattr(network, "kind"):
        check_header(header_of(network))  # now, because the file of the run's end is read by that
    if (strategy := type(cli.trainer.strategy).__name__) in _SHARDING:
        raise ValueError(f"trainer.strategy must be fsdp to shard weights over processes, got {strategy}")
    _check_averaging(cli, training.counts_steps)
    steps, epochs = cli.trainer.max_steps, cli.trainer.max_epochs or 0
    if steps < 1 and training.counts_steps:
        raise ValueError(f"trainer.max_steps must be at least 1, got {steps}")
    if steps < 1 and epochs < 1:
        raise ValueError(f"trainer.max_epochs or trainer.max_steps must be at least 1, got {epochs} and {steps}")
    return cli


def _check_averaging(cli: LightningCLI, counts_steps: bool) -> None:
    """Refuse averages of the weights that would undo another, or the training itself."""
    averages = [
        each for each in cli.trainer.callbacks if isinstance(each, (StochasticWeightAveraging, WeightAveraging))
    ]
    for average in averages:
        if isinstance(average, StochasticWeightAveraging) and counts_steps:
            raise ValueError(
                "trainer.callbacks must be without StochasticWeightAveraging, which averages once per epoch: here a "
                "run is one epoch, counted in steps; average by --ema.decay instead"
            )
    if len([each for each in averages if not isinstance(each, MovingAverage) or each.decay]) > 1:
        names = ", ".join(type(each).__name__ for each in averages if not isinstance(each, MovingAverage))
        raise ValueError(f"the weights must be averaged in one way, got {names} and --ema.decay; give --ema.decay 0")


def resolve_presets(arguments: Sequence[str], folder: Path | None) -> list[str]:
    """Return the arguments with ``--config NAME`` replaced by the folder's ``NAME.yaml``, unless NAME is a file here.

    Example:
        >>> from ddfnet.tasks import TASKS
        >>> arguments = ["--config", "detection-coco-1x", "--threads", "1"]
        >>> [Path(each).name for each in resolve_presets(arguments, TASKS["detection"].configs)]
        ['--config', 'detection-coco-1x.yaml', '--threads', '1']
    """

    def file(name: str) -> str:
        preset = None if folder is None else folder / f"{name}.yaml"
        return str(preset) if preset is not None and preset.is_file() and not Path(name).exists() else name

    resolved: list[str] = []
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == "--config" and equals:
            resolved.append(f"{option}={file(value)}")
        else:
            resolved.append(file(argument) if index and arguments[index - 1] == "--config" else argument)
    return resolved


def check_checkpoint(file: Path, model: lightning.LightningModule) -> None:
    """Refuse a checkpoint that a run cannot resume from, before anything is touched.

    Raises:
        UserError: the file is missing, broken, of another model, or has weights alone.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such checkpoint")
    if file.suffix == ".safetensors":
        raise UserError(f"{file} has weights alone; resume from one of the run's checkpoints, *.ckpt")
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        shapes = {name: value.shape for name, value in saved["state_dict"].items()}
    except Exception as error:  # broken files raise errors of many types
        raise UserError(f"{file} is no checkpoint, or a broken one ({type(error).__name__})") from None
    if shapes != {name: value.shape for name, value in model.state_dict().items()}:
        raise UserError(f"{file} is a checkpoint of another model; resume with its own run's config.yaml (--config)")
    recipe = getattr(model, "recipe", {})
    if changed := [key for key, value in saved.get("recipe", {}).items() if value != recipe.get(key, value)]:
        raise UserError(
            f"{file} was trained with another {', '.join(changed)}; resume with its own run's config.yaml (--config)"
        )
    if missing := [part for part in _RESUME_KEYS if part not in saved]:
        raise UserError(f"{file} has no {', '.join(missing)}; resume from a checkpoint that `ddfnet train` wrote")


def save_artifacts(
    cli: LightningCLI, output: Path, metrics: dict[str, float], *, command: str, machine: dict[str, Any]
) -> str | None:
    """Write the network as ``model.safetensors``, and its model card.

    The weights are the average by now, if there is one. Every process of a run must call this, because each may hold a
    shard of the weights; only the first writes.

    Args:
        cli: command line of a run that has ended.
        output: the folder of the run.
        metrics: results of the last validation.
        command: the command line of the run.
        machine: facts of `ddfnet.env_info`.

    Returns:
        A line for the user, on the first process.

    Raises:
        OSError: a file cannot be written.
    """
    weights = strip_prefix(cli.trainer.strategy.lightning_module_state_dict())
    if not cli.trainer.is_global_zero:
        return None
    [history] = (each for each in cli.trainer.callbacks if isinstance(each, ResumeHistory))
    segments = history.segments(cli.trainer)
    steps, seconds = cli.trainer.global_step, sum(each["seconds"] for each in segments)
    file = output / "model.safetensors"
    facts = {
        "parameters": sum(p.numel() for p in cli.model.network.parameters()),
        "steps": steps,
        "seed": cli.config["seed_everything"],
        "seconds": round(seconds, 1),
        "segments": segments,
        "metrics": {name: round(value, 5) for name, value in metrics.items()},
        "command": command,
        "config": json.loads(cli.parser.dump(cli.config, format="json")),
        "machine": machine,
    }
    header = getattr(cli.model, "header", None)
    save(cli.model.network, file, header=header, card={**cli.training.card(cli.trainer), **facts}, weights=weights)
    return f"{steps} steps, {seconds:.0f} s. The network is in {file}"
