"""``ddfnet evaluate classification``: a trained network's accuracy on pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ddfnet.cli import evaluating
from ddfnet.cli.arguments import positive
from ddfnet.errors import UserError, require
from ddfnet.table import table

_MODULES = ("lightning", "torchmetrics", "safetensors", "timm", "torchvision", "webdataset")


def add(tasks: Any) -> None:
    parser = tasks.add_parser(
        "classification",
        help="accuracy of networks on labelled pictures",
        description="Shows each network the pictures as it was shown them in training, and prints the share that it "
        "names right, first or among its first five.",
    )
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
    parser.add_argument("--part", metavar="NAME", help="of the data, or the shards (default: val, or else test)")
    parser.add_argument("--batch-size", type=positive, default=128, metavar="N", help="(%(default)s)")
    parser.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that read pictures (%(default)s)"
    )
    parser.add_argument(
        "--on-bad-image", choices=("stop", "skip"), default="stop", help="at a broken picture (%(default)s)"
    )
    evaluating.add_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    require("train", _MODULES)
    evaluating.prepare(options)
    evaluating.once(options.checkpoint)

    from ddfnet.cli.quiet import quiet
    from ddfnet.errors import DataError
    from ddfnet.pretrained import read_card

    quiet()
    try:
        cards = {file: read_card(file) for file in options.checkpoint}
        rows = [_evaluate(file, options, (card or {}).get("classes")) for file, card in cards.items()]
    except (DataError, ValueError) as error:
        raise UserError(str(error)) from None
    headers = ["network", "pictures", "top-1", "top-5", "loss"]
    cells = [
        [row["file"], f"{row['pictures']}", f"{row['top1']:.2%}", f"{row['top5']:.2%}", f"{row['loss']:.4f}"]
        for row in rows
    ]
    print(table(headers, cells))
    networks = [{"file": str(file), "card": card} for file, card in cards.items()]
    data = {"path": options.data, "source": options.source, "part": options.part}
    evaluating.write(options, data=data, networks=networks, rows=rows)
    return 0


def _evaluate(file: Path, options: argparse.Namespace, classes: list[str] | None) -> dict[str, Any]:
    """What there is to say of one network, whose card names these classes.

    Raises:
        ValueError: the file is missing, broken or of another task, or was trained with other classes.
        DataError: pictures are wanting.
    """
    import lightning

    from ddfnet.pretrained import load, read_header
    from ddfnet.tasks.classification.data import ClassificationData
    from ddfnet.tasks.classification.module import Classifier

    network, header = load(file, "classification"), read_header(file)
    made_of: Any = header.init_args
    model = Classifier(network, made_of["num_classes"])
    data = ClassificationData(
        options.data,
        options.source,
        options.part,
        num_classes=made_of["num_classes"],
        batch_size=options.batch_size,
        on_bad_image=options.on_bad_image,
        workers=options.workers,
        **header.extra["preprocessing"],
    )
    trainer = lightning.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        use_distributed_sampler=False,
    )
    data.setup("validate")
    if classes and data.classes and classes != data.classes:
        first = next((a, b) for a, b in zip(classes, data.classes, strict=True) if a != b)
        raise ValueError(
            f"{options.data} must have the classes that {file} was trained with, got {first[1]!r} for {first[0]!r}"
        )
    [metrics] = trainer.validate(model, data, verbose=False)
    return {
        "file": str(file),
        "network": made_of,
        "parameters": sum(p.numel() for p in network.parameters()),
        "pictures": int(model.measured.compute()),
        "top1": metrics["top1"],
        "top5": metrics["top5"],
        "loss": metrics["val_loss"],
    }
