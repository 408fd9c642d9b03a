"""``ddfnet train classification``: what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ddfnet.cli.task import Task
from ddfnet.pretrained import Weights, save
from ddfnet.tasks.classification.data import ClassificationData
from ddfnet.tasks.classification.module import Classifier


def link(parser: LightningArgumentParser) -> None:
    parser.link_arguments("model.num_classes", "data.num_classes")


def leave(cli: LightningCLI, weights: Weights, file: Path, facts: dict[str, Any]) -> None:
    model, data = cli.model, cli.datamodule
    card = {
        "network": model.made_of,
        "data": {"path": data.path, "source": data.source},
        "classes": data.classes,
        "preprocessing": data.preprocessing,
        "epochs": cli.trainer.current_epoch,
        **facts,
    }
    save(model.network, file, header=model.header, card=card, weights=weights)


TASK = Task(Classifier, ClassificationData, link, leave)
