"""Mixture of two data sets of scenes."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

Sample = dict[str, Tensor]


class Mixture(Dataset[Sample]):
    """Samples of one data set or of another: sample i is the sample i of the one that the seed and i draw.

    Args:
        first: a data set of samples by number.
        second: another one.
        length: number of samples; both have at least as many.
        share: share of the first.
        seed: seed of the draws.

    Example:
        >>> import torch
        >>> sets = [[{"depth": torch.full((1,), value)} for _ in range(100)] for value in (1.0, 2.0)]
        >>> mixture = Mixture(*sets, 100, share=0.25, seed=0)
        >>> sum(int(mixture[i]["depth"] == 1) for i in range(100))
        22
    """

    def __init__(
        self, first: Dataset[Sample], second: Dataset[Sample], length: int, *, share: float, seed: int
    ) -> None:
        self.first, self.second, self.length, self.share, self.seed = first, second, length, share, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        draw = np.random.default_rng((self.seed, index, 1)).random()  # both sets draw from (seed, index)
        return self.first[index] if draw < self.share else self.second[index]
