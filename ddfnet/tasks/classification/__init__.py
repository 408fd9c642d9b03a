"""Classification of labelled images, by any network that timm knows."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ddfnet.arguments import positive_int
from ddfnet.tasks.evaluation import EvaluationTable
from ddfnet.tasks.registry import Evaluation, TaskSpec, Training


def _training() -> Training:
    from ddfnet.tasks.classification.data import ClassificationData
    from ddfnet.tasks.classification.module import Classifier, card

    return Training(
        Classifier,
        ClassificationData,
        card,
        link_arguments=lambda parser: parser.link_arguments("model.num_classes", "data.num_classes"),
        command_line_only=("data.allow_pipe",),
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        type=Path,
        required=True,
        metavar="FILE",
        help="networks that `ddfnet train classification` left, *.safetensors or *.ckpt",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="PATH",
        help="a folder with val/CLASS or test/CLASS, torchvision's root, an archive of CIFAR-10, or shards",
    )
    parser.add_argument(
        "--source",
        default="folder",
        metavar="NAME",
        help="folder, cifar10, shards, or a class of torchvision.datasets (%(default)s)",
    )
    parser.add_argument("--part", metavar="NAME", help="split of the data, or the shards (default: val, else test)")
    parser.add_argument(
        "--allow-pipe",
        action="store_true",
        help="take shards of any address that webdataset knows, such as pipe:COMMAND, for which it runs commands",
    )
    parser.add_argument("--batch-size", type=positive_int, default=128, metavar="N", help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read images (%(default)s)")
    parser.add_argument(
        "--on-bad-image", choices=("stop", "skip"), default="stop", help="at a broken image (%(default)s)"
    )


def _run(options: argparse.Namespace) -> Iterator[EvaluationTable]:
    from ddfnet.tasks.classification.evaluation import evaluate

    yield evaluate(
        options.checkpoint,
        options.data,
        options.source,
        options.part,
        batch_size=options.batch_size,
        workers=options.workers,
        on_bad_image=options.on_bad_image,
        allow_pipe=options.allow_pipe,
    )


SPEC = TaskSpec(
    name="classification",
    summary="accuracy of timm's networks on labelled images",
    training=_training,
    evaluation=Evaluation(
        "Shows each network the images as in its training, and prints top-1 and top-5 accuracy.", _add_arguments, _run
    ),
    modules=("timm", "torchvision", "webdataset"),
    configs=Path(__file__).parent / "configs",
)
