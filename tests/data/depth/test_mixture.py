"""Mixtures of two data sets of scenes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ddfnet.data.depth.mixture import Mixture

LENGTH = 200


class Named(Dataset[dict[str, Tensor]]):
    """Data set whose samples say whose they are."""

    def __init__(self, name: int) -> None:
        self.name = name

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"from": torch.tensor([self.name, index])}


def sources(share: float, seed: int = 0) -> list[int]:
    mixture = Mixture(Named(0), Named(1), LENGTH, share=share, seed=seed)
    samples = [mixture[index]["from"].tolist() for index in range(len(mixture))]
    assert [index for _, index in samples] == list(range(LENGTH))
    return [name for name, _ in samples]


def test_the_share_of_the_first() -> None:
    assert sources(0.0) == [1] * LENGTH
    assert sources(1.0) == [0] * LENGTH
    assert 0.15 < sources(0.25).count(0) / LENGTH < 0.35


def test_draws_depend_on_the_seed() -> None:
    assert sources(0.5) == sources(0.5)
    assert sources(0.5) != sources(0.5, seed=1)


def test_an_index_beyond_the_length() -> None:
    with pytest.raises(IndexError, match="sample 5 of 5"):
        Mixture(Named(0), Named(1), 5, share=0.5, seed=0)[5]
