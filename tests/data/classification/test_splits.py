"""Splits of all sources, and the two sources that come inside other packages."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddfnet.data.classification import cifar10, digits
from ddfnet.data.classification.splits import Split, Splits
from ddfnet.data.depth import photographs
from ddfnet.errors import DataError


def splits(count: int = 50) -> Splits:
    images = torch.randint(256, (count, 3, 5, 4), dtype=torch.uint8)
    images[:, 1] //= 3
    part = Split(images, torch.arange(count))
    return Splits("noise", part, part, ("a", "b"), "Noise.")


def test_normalisation_is_that_of_the_training_part() -> None:
    own = splits()
    mean, deviation = own.normalisation()
    values = own.train.images.double().transpose(0, 1).flatten(1) / 255
    assert mean == pytest.approx(values.mean(1).tolist())
    assert deviation == pytest.approx(values.std(1, correction=0).tolist())


def test_few_are_chosen_from_everywhere_and_always_the_same() -> None:
    few = splits().subset(10, 5)
    assert (len(few.train), len(few.test)) == (10, 5)
    assert few.train.labels.max() > 20, "a sorted set must not lose its last classes"
    assert torch.equal(few.train.labels, splits().subset(10, 5).train.labels)
    assert few.origin == "Noise. Only 10 and 5 of them, chosen at random, were used."


def test_digits() -> None:
    pytest.importorskip("sklearn")
    own, again = digits.load(), digits.load()
    assert own.train.images.shape == (1347, 1, 8, 8) and own.test.images.shape == (450, 1, 8, 8)
    assert torch.equal(own.test.images, again.test.images)
    assert own.test.labels.bincount().tolist() == pytest.approx([45] * 10, abs=2)
    together = torch.cat([own.train.images, own.test.images]).flatten(1)
    assert together.max() == 240  # 16 times 15
    assert not own.flip, "a mirrored digit is another sign"


def test_digits_are_all_there_once() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    own = digits.load()
    together = torch.cat([own.train.images, own.test.images]).flatten(1).long()
    expected = torch.from_numpy(datasets.load_digits().data).long() * 15
    assert sorted(together.tolist()) == sorted(expected.tolist())


def test_cifar10_that_is_not_there(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    with pytest.raises(DataError, match=r"no intact cifar-10-batches-py in .*; give torchvision.s root, or an archive"):
        cifar10.load(tmp_path)


def test_photographs_come_with_scikit_image() -> None:
    pytest.importorskip("skimage")
    found = photographs.load(48)
    assert [photo.name for photo in found] == ["chelsea", "coffee", "astronaut"]
    for photo in found:
        assert photo.image.shape == (3, 48, 48) and photo.image.dtype == torch.uint8
        assert photo.image.float().std() > 20
        assert "CC0" in photo.credit or "public domain" in photo.credit


def test_photographs_that_a_packager_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(photographs, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"without its chelsea\.png"):
        photographs.load(48)
