"""Small data sets in memory: a training and a test split of labelled images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W), uint8, with their labels (N,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int | slice | Tensor) -> Split:
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Splits:
    """A data set in two splits.

    Args:
        name: name in results.
        train: images (N, C, H, W), uint8, and labels (N,).
        test: like ``train``; never seen in training.
        classes: the name of each label.
        origin: source and division of the images, as a sentence for readers of a result.
        flip: a mirrored image still shows its class; training then mirrors at random.
    """

    name: str
    train: Split
    test: Split
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
        """Return mean and standard deviation per channel over the training split, for values from 0 to 1."""
        values = self.train.images.transpose(0, 1).flatten(1)
        parts = values.split(1 << 20, dim=1)  # bounds the memory of the conversion to float
        mean = torch.stack([part.sum(1, dtype=torch.float64) for part in parts]).sum(0) / values.shape[1] / 255
        square = torch.stack([part.double().square().sum(1) for part in parts]).sum(0) / values.shape[1] / 255**2
        return mean.tolist(), (square - mean.square()).clamp_min(1e-8).sqrt().tolist()

    def subset(self, train: int, test: int) -> Splits:
        """Return the data set with so many images of each split, chosen at random with a fixed seed."""

        def choose(part: Split, count: int) -> Split:
            return part[torch.randperm(len(part), generator=torch.Generator().manual_seed(0))[:count]]

        origin = f"{self.origin} Only {train} and {test} of them, chosen at random, were used."
        return replace(self, train=choose(self.train, train), test=choose(self.test, test), origin=origin)


def stratified_split(everything: Split, test_share: float) -> tuple[Split, Split]:
    """Split a data set at random with a fixed seed, each class in proportion."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        range(len(everything)), test_size=test_share, random_state=0, stratify=everything.labels.numpy()
    )
    return everything[torch.tensor(train)], everything[torch.tensor(test)]
