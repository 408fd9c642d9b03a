"""Classification part of the demo: three networks that differ in one layer, trained alike, and their scores."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ddfnet.data.classification import cifar10, digits, fashion_mnist, folder
from ddfnet.data.classification.splits import Splits
from ddfnet.demo import predicted_filters
from ddfnet.models.resnet import MIXERS
from ddfnet.table import table
from ddfnet.tasks.classification import comparison
from ddfnet.tasks.classification.comparison import SMALL, MixerScores

_EPOCHS = {"digits": 30, "fashion-mnist": 3, "cifar10": 10}  # a folder: 20
_TITLES = {"conv": "3x3 convolution", "depthwise": "depthwise 3x3 convolution", "ddf": "decoupled dynamic filter"}
_BATCH_SIZE = 64


@dataclass(frozen=True)
class Trained:
    """Networks after training: the one with DDF, the scores of all, and the settings."""

    splits: Splits
    network: nn.Module
    rows: list[MixerScores]
    settings: dict[str, Any]

    def headers(self) -> list[str]:
        times = [f"ms per image, batch {size}" for size in self.rows[0].milliseconds]
        return ["3x3 layer", "test accuracy", "parameters", "MACs", *times]

    def cells(self) -> list[list[str]]:
        return [
            [
                _TITLES[row.mixer],
                f"{row.test_accuracy:.2%}",
                f"{row.parameters:,}",
                f"{row.macs / 1e6:.2f} M",
                *(f"{value:.3f}" for value in row.milliseconds.values()),
            ]
            for row in self.rows
        ]

    def table(self) -> str:
        return table(self.headers(), self.cells())

    def results(self) -> dict[str, Any]:
        """Return the entries of results.json."""
        splits = self.splits
        return {
            "data": {
                "name": splits.name,
                "origin": splits.origin,
                "train": len(splits.train),
                "test": len(splits.test),
            },
            "settings": self.settings,
            "mixers": [asdict(row) for row in self.rows],
        }

    def shown(self) -> dict[str, Any]:
        """Return the contents of the page besides the results."""
        best = max(row.test_accuracy for row in self.rows)
        return {
            "headers": self.headers(),
            "rows": self.cells(),
            "size": "x".join(map(str, self.splits.size)),
            "small": min(self.splits.size) < SMALL,
            "one_image": 1 / len(self.splits.test),
            "half_interval": 1.96 * math.sqrt(best * (1 - best) / len(self.splits.test)),
            "training": [f"{_TITLES[row.mixer]} {row.training_seconds:.0f} s" for row in self.rows],
            **predicted_filters.shown(self.network, self.splits, size=96 if self.settings["short"] else 256),
        }


def load(options: argparse.Namespace) -> Splits:
    """Load the images that the options name.

    Raises:
        DataError: images are missing or broken.
    """
    if options.data == "digits":
        splits = digits.load()
    elif options.data == "fashion-mnist":
        splits = fashion_mnist.load(options.root, download=options.download)
    elif options.data == "cifar10":
        splits = cifar10.load(options.root, download=options.download)
    else:
        splits = folder.load(Path(options.data), size=options.size)
    return splits.subset(512, 128) if options.short else splits


def compare(splits: Splits, options: argparse.Namespace) -> Trained:
    """Train the networks and measure them, with messages about the progress."""
    epochs = options.epochs or (8 if options.short else _EPOCHS.get(splits.name, 20))
    print(f"{splits.name}: {len(splits.train)} images for training, {len(splits.test)} for testing, {epochs} epochs")
    trained = {}
    for number, mixer in enumerate(MIXERS, start=1):
        print(f"training {number} of {len(MIXERS)}: {_TITLES[mixer]}", flush=True)
        trained[mixer] = comparison.train(
            mixer, splits, epochs=epochs, batch_size=_BATCH_SIZE, seed=options.seed, progress_bar=sys.stdout.isatty()
        )
    shape = (splits.channels, *splits.size)
    settings = {"epochs": epochs, "batch_size": _BATCH_SIZE, "seed": options.seed, "short": options.short}
    rows = comparison.score(trained, shape, rounds=5 if options.short else 50)
    return Trained(splits, trained["ddf"][0], rows, settings)
