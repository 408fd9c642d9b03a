"""Evaluation of trained classifiers: top-1 and top-5 accuracy, and the loss."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from torch import nn

from ddfnet.models.classifier import complete_preprocessing
from ddfnet.pretrained import load_with_header, read_card, reading_weights
from ddfnet.pretrained.options import shown
from ddfnet.tasks.classification.data import ClassificationData
from ddfnet.tasks.classification.module import Classifier
from ddfnet.tasks.evaluation import EvaluationTable, distinct_paths


@dataclass(frozen=True)
class ClassifierScores:
    """Scores of one network.

    Args:
        file: the network's file.
        network: name, number of classes and options, as timm creates it.
        parameters: number of parameters.
        images: number of images.
        top1: accuracy, 0 to 1.
        top5: share of the images whose class is among the first five, 0 to 1.
        loss: mean cross-entropy.
    """

    file: str
    network: dict[str, Any]
    parameters: int
    images: int
    top1: float
    top5: float
    loss: float


COLUMNS = {
    "network": lambda row: row.file,
    "images": lambda row: f"{row.images}",
    "top-1": lambda row: f"{row.top1:.2%}",
    "top-5": lambda row: f"{row.top5:.2%}",
    "loss": lambda row: f"{row.loss:.4f}",
}


def evaluate(
    checkpoints: Sequence[Path],
    path: str,
    source: str = "folder",
    part: str | None = None,
    *,
    batch_size: int = 128,
    workers: int = 0,
    on_bad_image: str = "stop",
    allow_pipe: bool = False,
) -> EvaluationTable:
    """Measure networks on labelled images, each with the preprocessing of its training.

    Args:
        checkpoints: files that ``ddfnet train classification`` left, ``*.safetensors`` or ``*.ckpt``.
        path: location of the images, see `ClassificationData`.
        source: the kind of data at ``path``, see `ClassificationData`.
        part: the split to measure.
        batch_size: images per batch.
        workers: processes that read images.
        on_bad_image: ``"stop"`` or ``"skip"``.
        allow_pipe: take addresses for which webdataset runs commands, see `ClassificationData`.

    Returns:
        The scores, a row for each network.

    Raises:
        ValueError: a file is missing, broken or of another task, or was trained with other classes.
        DataError: images are missing or broken.
    """
    distinct_paths(checkpoints)
    cards = {file: read_card(file) for file in checkpoints}
    rows, notes = [], []
    for file, card in cards.items():
        network, header, note = load_with_header(file, "classification")
        if note is not None:
            notes.append(f"{file}: {note}")
        with reading_weights(file):
            preprocessing = complete_preprocessing(header.extra.get("preprocessing"), network)
        model_args: Any = header.init_args
        data = ClassificationData(
            path,
            source,
            part,
            allow_pipe=allow_pipe,
            classes=_classes(file, card),
            num_classes=model_args["num_classes"],
            batch_size=batch_size,
            on_bad_image=on_bad_image,  # type: ignore[arg-type]
            workers=workers,
            **preprocessing,
        )
        data.setup("validate")
        rows.append(_scores(file, network, model_args, data))
    facts = {
        "data": {"path": path, "source": source, "part": part},
        "networks": [{"file": str(file), "card": card} for file, card in cards.items()],
    }
    return EvaluationTable(rows, COLUMNS, title="\n".join(notes), facts=facts)


def _scores(file: Path, network: nn.Module, model_args: dict[str, Any], data: ClassificationData) -> ClassifierScores:
    model = Classifier(network, model_args["num_classes"])
    trainer = lightning.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        use_distributed_sampler=False,
    )
    [metrics] = trainer.validate(model, data, verbose=False)
    return ClassifierScores(
        file=str(file),
        network=model_args,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        images=int(model.measured.compute()),
        top1=metrics["top1"],
        top5=metrics["top5"],
        loss=metrics["val_loss"],
    )


def _classes(file: Path, card: dict[str, Any] | None) -> list[str] | None:
    """Return the class names that the card of a network's file has."""
    names = (card or {}).get("classes")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{file}: its card must have classes that are a list of names, got {shown(names)}")
    return names
