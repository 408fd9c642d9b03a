"""``ddfnet train classification``: what is its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ddfnet.cli.task import Task
from ddfnet.models import classifier_files
from ddfnet.tasks.checkpoints import WholeCheckpoints
from ddfnet.tasks.classification import ClassificationData, Classifier
from ddfnet.tasks.finite import Finite
from ddfnet.tasks.legs import Legs


def link(parser: LightningArgumentParser) -> None:
    parser.link_arguments("model.num_classes", "data.num_classes")


def leave(
    cli: LightningCLI,
    output: Path,
    metrics: dict[str, float],
    *,
    command: str,
    facts: dict[str, Any],
) -> str:
    """Write the network, whose weights are the average now if there is one, as ``model.safetensors``, and its card.

    Returns:
        What to tell the user.
    """
    model, data = cli.model, cli.datamodule
    [legs] = (each.so_far(cli.trainer) for each in cli.trainer.callbacks if isinstance(each, Legs))
    seconds = sum(leg["seconds"] for leg in legs)
    card = {
        "network": model.made_of,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "data": {"path": data.path, "source": data.source},
        "preprocessing": data.preprocessing,
        "epochs": cli.trainer.current_epoch,
        "steps": cli.trainer.global_step,
        "seed": cli.config["seed_everything"],
        "seconds": round(seconds, 1),
        "legs": legs,
        "metrics": {name: round(value, 5) for name, value in metrics.items()},
        "command": command,
        "config": json.loads(cli.parser.dump(cli.config, format="json")),
        "machine": facts,
    }
    file = output / "model.safetensors"
    classifier_files.save(model.network, model.made_of, data.preprocessing, file, card)
    return f"{cli.trainer.global_step} steps, {seconds:.0f} s. The network is in {file}"


TASK = Task(
    Classifier,
    ClassificationData,
    link,
    leave,
    callbacks=(Finite(),),
    plugins=(WholeCheckpoints(),),
)
