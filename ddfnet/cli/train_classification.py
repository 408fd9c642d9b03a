"""``ddfnet train classification``: what is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from ddfnet.cli.task import Task
from ddfnet.models import classifier_files
from ddfnet.models.network_files import Weights
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
    classifier_files.save(model.network, model.made_of, data.preprocessing, file, card, weights)


TASK = Task(Classifier, ClassificationData, link, leave)
