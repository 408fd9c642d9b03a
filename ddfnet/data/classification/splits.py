"""What every source of labelled pictures gives: a training and a test part, in memory, and how they were parted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Labelled:
    """Pictures (N, C, H, W), uint8, with their labels (N,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice | Tensor) -> Labelled:
        return Labelled(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Splits:
    """A data set in two parts.

    Args:
        name: what it is called in results.
        train: pictures (N, C, H, W), uint8, and labels (N,).
        test: as ``train``; never seen in training.
        classes: the name of each label.
        origin: where the pictures come from and how they were parted, as a sentence for whoever reads a result.
        flip: whether a mirrored picture still shows its class; training mirrors at random where it does.
    """

    name: str
    train: Labelled
    test: Labelled
    classes: tuple[str, ...]
    origin: str
    flip: bool = False

    @property
    def channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.train.images.shape[2:]
        return height, width

    def normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over the training part, for values from 0 to 1."""
        values = self.train.images.transpose(0, 1).flatten(1)
        parts = values.split(1 << 20, dim=1)  # a large set is not turned into floats at once
        mean = torch.stack([part.sum(1, dtype=torch.float64) for part in parts]).sum(0) / values.shape[1] / 255
        square = torch.stack([part.double().square().sum(1) for part in parts]).sum(0) / values.shape[1] / 255**2
        return mean.tolist(), (square - mean.square()).clamp_min(1e-8).sqrt().tolist()

    def few(self, train: int, test: int) -> Splits:
        """The same data set with this many pictures of each part, chosen at random, always the same."""

        def choose(part: Labelled, count: int) -> Labelled:
            return part[torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:count]]

        origin = f"{self.origin} Only {train} and {test} of them, chosen at random, were used."
        return replace(self, train=choose(self.train, train), test=choose(self.test, test), origin=origin)


def split(everything: Labelled, test_share: float) -> tuple[Labelled, Labelled]:
    """Part a data set that has no test part of its own: at random, always the same way, each class in proportion."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        range(len(everything)), test_size=test_share, random_state=0, stratify=everything.labels.numpy()
    )
    return everything[torch.tensor(train)], everything[torch.tensor(test)]
