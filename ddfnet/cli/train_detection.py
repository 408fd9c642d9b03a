"""``ddfnet train detection``: what is its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ddfnet.cli.task import Task
from ddfnet.models import detection_files
from ddfnet.tasks.detection import Detection, DetectionData
from ddfnet.tasks.legs import Legs


def link(parser: LightningArgumentParser) -> None:
    parser.link_arguments("model", "data.classes", compute_fn=_classes, apply_on="instantiate")


def leave(
    cli: LightningCLI,
    output: Path,
    metrics: dict[str, float],
    *,
    command: str,
    facts: dict[str, Any],
) -> str:
    """Write the detector, whose weights are the average now, as ``model.safetensors``, and its card beside it.

    Returns:
        What to tell the user.
    """
    [legs] = (each.so_far(cli.trainer) for each in cli.trainer.callbacks if isinstance(each, Legs))
    seconds = sum(leg["seconds"] for leg in legs)
    network, pictures = cli.model.network, cli.datamodule.train_pictures
    card = {
        "network": network.options,
        "parameters": sum(p.numel() for p in network.parameters()),
        "data": {"pictures": len(pictures), "boxes_left_out": pictures.left_out, "origin": pictures.origin},
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
    detection_files.save(network, file, card)
    return f"{cli.trainer.global_step} steps, {seconds:.0f} s. The network is in {file}"


def _classes(model: Detection) -> list[str]:
    """What the data must have: the names that the detector knows."""
    return list(model.network.classes)


TASK = Task(
    Detection,
    DetectionData,
    link,
    leave,
    trainer={"max_epochs": -1, "check_val_every_n_epoch": None},  # one epoch is a run: validation counts steps
)
