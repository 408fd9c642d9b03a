"""What ``ddfnet train`` makes of Lightning's command line: the parser, the folder of a run, and the model card."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from ddfnet.cli.task import Task
from ddfnet.errors import UserError
from ddfnet.pretrained import strip_prefix
from ddfnet.training.averaging import MovingAverage
from ddfnet.training.checkpoints import WholeCheckpoints
from ddfnet.training.finite import Finite
from ddfnet.training.fsdp import Sharded
from ddfnet.training.resume_history import Legs
from ddfnet.training.step_timer import Pace

_PARTS = ("loops", "optimizer_states", "lr_schedulers", "callbacks")  # of a checkpoint, besides the weights
_SHARDING = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")
_IN_STEPS = {"max_epochs": -1, "check_val_every_n_epoch": None}


class _CLI(LightningCLI):
    def __init__(self, task: Task, **kwargs: Any) -> None:
        self.task = task
        super().__init__(task.model, task.data, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--output", type=str, default="runs/run", help="Folder that the run goes to.")
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to go on from; `last` is that of the output folder. Give the run's own config.yaml too.",
        )
        parser.add_argument("--threads", type=int | None, default=None, help="Threads of torch; by default its own.")
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
        self.task.link(parser)
        for key in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", key, compute_fn=int)

    def before_instantiate_classes(self) -> None:
        if (threads := self.config["threads"]) is not None:
            if threads < 1:
                raise ValueError(f"threads must be at least 1, got {threads}")
            torch.set_num_threads(threads)

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Lightning's, with logs in the run's folder, and a bar where somebody is looking."""
        output, own = self.config["output"], self.config_init["trainer"]
        if own["logger"] is None:
            kwargs["logger"] = [TensorBoardLogger(output, name="", version=""), CSVLogger(output, name="csv")]
        if own["default_root_dir"] is None:
            kwargs["default_root_dir"] = output
        if own["enable_progress_bar"] is None:
            kwargs["enable_progress_bar"] = sys.stdout.isatty()
        if own["strategy"] == "fsdp":
            kwargs["strategy"] = self._sharded()
        given = own["plugins"] or []
        kwargs["plugins"] = [*(given if isinstance(given, list) else [given]), WholeCheckpoints()]
        if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has said how many there are, whatever the file says
            local = int(os.environ["LOCAL_WORLD_SIZE"])
            kwargs.update(devices=local, num_nodes=int(os.environ["WORLD_SIZE"]) // local)
        trainer = super().instantiate_trainer(**kwargs)
        if self.task.in_part and type(trainer.strategy) is DDPStrategy:
            trainer.strategy._ddp_kwargs.setdefault("find_unused_parameters", True)
        return trainer

    def _sharded(self) -> Sharded:
        if not self.task.sharded:
            raise ValueError(
                "trainer.strategy must be ddp for detection, got fsdp: its processes measure unlike numbers of "
                "pictures, and those with fewer would not give their shares of the weights"
            )
        if getattr(self.config_init["model"], "compiled", False):
            raise ValueError("trainer.strategy fsdp must be without model.compile, got both; leave one of them out")
        return Sharded()


def build(name: str, defaults: Path, arguments: Sequence[str]) -> LightningCLI:
    """Parse the arguments of a task and make its module, its data and its trainer.

    Args:
        name: of the task.
        defaults: the file that the others and the command line are laid over.
        arguments: of the command line.

    Raises:
        argparse.ArgumentError: an unknown key, or a value of another type.
        ValueError: a value that the task refuses.
    """
    own: Task = import_module(f"ddfnet.cli.train_{name}").TASK  # no other: each needs libraries of its own
    cli = _CLI(
        own,
        run=False,
        args=list(arguments),
        seed_everything_default=0,
        auto_configure_optimizers=False,
        load_from_checkpoint_support=False,
        save_config_kwargs={"overwrite": True},  # the folder of another run has been refused before
        trainer_defaults={
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,  # the data shares itself out
            "enable_model_summary": False,
            "callbacks": [Legs(), Finite(), Pace()],
            **(_IN_STEPS if own.in_steps else {}),
        },
        parser_kwargs={
            "prog": f"ddfnet train {name}",
            "description": (own.model.__doc__ or "").partition("\n")[0],
            "default_config_files": [str(defaults)],
            "exit_on_error": False,
        },
    )
    if (strategy := type(cli.trainer.strategy).__name__) in _SHARDING:
        raise ValueError(f"trainer.strategy must be fsdp for weights shared out over processes, got {strategy}")
    steps, epochs = cli.trainer.max_steps, cli.trainer.max_epochs or 0
    if steps < 1 and own.in_steps:
        raise ValueError(f"trainer.max_steps must be at least 1, got {steps}")
    if steps < 1 and epochs < 1:
        raise ValueError(f"trainer.max_epochs or trainer.max_steps must be at least 1, got {epochs} and {steps}")
    return cli


def check(file: Path, model: lightning.LightningModule) -> None:
    """Refuse a checkpoint that a run cannot go on from, before anything is touched.

    Raises:
        UserError: the file is missing, broken, of another model, or has weights alone.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such checkpoint")
    if file.suffix == ".safetensors":
        raise UserError(f"{file} has weights alone; go on from one of the run's checkpoints, *.ckpt")
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True)
        shapes = {name: value.shape for name, value in saved["state_dict"].items()}
    except (KeyError, TypeError, AttributeError, RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise UserError(f"{file} is no checkpoint, or a broken one ({type(error).__name__})") from None
    if shapes != {name: value.shape for name, value in model.state_dict().items()}:
        raise UserError(f"{file} is a checkpoint of another model; go on with its own run's config.yaml (--config)")
    recipe = getattr(model, "recipe", {})
    if changed := [key for key, value in saved.get("recipe", {}).items() if value != recipe.get(key)]:
        raise UserError(
            f"{file} was trained with another {', '.join(changed)}; go on with its own run's config.yaml (--config)"
        )
    if missing := [part for part in _PARTS if part not in saved]:
        raise UserError(f"{file} has no {', '.join(missing)}; go on from a checkpoint that `ddfnet train` wrote")


def leave(
    cli: LightningCLI, output: Path, metrics: dict[str, float], *, command: str, machine: dict[str, Any]
) -> str | None:
    """Write the network, whose weights are the average now if there is one, as ``model.safetensors``, and its card.

    Args:
        cli: of a run that has ended; of each of its processes, for each may hold a share of the weights, but the first
            alone writes.
        output: the folder of the run.
        metrics: of the last validation.
        command: that made it.
        machine: facts of `ddfnet.env_info`.

    Returns:
        What to tell the user, on the first process.

    Raises:
        OSError: a file cannot be written.
    """
    weights = strip_prefix(cli.trainer.strategy.lightning_module_state_dict())
    if not cli.trainer.is_global_zero:
        return None
    [legs] = (each.so_far(cli.trainer) for each in cli.trainer.callbacks if isinstance(each, Legs))
    steps, seconds = cli.trainer.global_step, sum(leg["seconds"] for leg in legs)
    file = output / "model.safetensors"
    facts = {
        "parameters": sum(p.numel() for p in cli.model.network.parameters()),
        "steps": steps,
        "seed": cli.config["seed_everything"],
        "seconds": round(seconds, 1),
        "legs": legs,
        "metrics": {name: round(value, 5) for name, value in metrics.items()},
        "command": command,
        "config": json.loads(cli.parser.dump(cli.config, format="json")),
        "machine": machine,
    }
    cli.task.leave(cli, weights, file, facts)
    return f"{steps} steps, {seconds:.0f} s. The network is in {file}"
