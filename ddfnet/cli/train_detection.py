"""``ddfnet train detection``: what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ddfnet.cli.task import Task
from ddfnet.pretrained import Weights, save
from ddfnet.tasks.detection.module import Detection, DetectionData


def link(parser: LightningArgumentParser) -> None:
    parser.link_arguments("model", "data.classes", compute_fn=_classes, apply_on="instantiate")


def leave(cli: LightningCLI, weights: Weights, file: Path, facts: dict[str, Any]) -> None:
    network, pictures = cli.model.network, cli.datamodule.train_pictures
    card = {
        "network": network.init_args,
        "data": {"pictures": len(pictures), "boxes_left_out": pictures.left_out, "origin": pictures.origin},
        **facts,
    }
    save(network, file, card=card, weights=weights)


def _classes(model: Detection) -> list[str]:
    """What the data must have: the names that the detector knows."""
    return list(model.network.classes)


TASK = Task(Detection, DetectionData, link, leave, in_steps=True, sharded=False)
