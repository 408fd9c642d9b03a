"""Fashion-MNIST's idx files, plain or gzipped, and messages about bad ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from ddfnet.data.classification import fashion_mnist
from ddfnet.errors import DataError


def idx(values: torch.Tensor) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.dim()]) + sizes + values.to(torch.uint8).numpy().tobytes()


def write(folder: Path, *, zipped: bool) -> dict[str, torch.Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for part, count in (("train", 7), ("t10k", 3)):
        written[part] = torch.randint(256, (count, 28, 28))
        labels = torch.arange(count) + 1
        for name, values in ((f"{part}-images-idx3-ubyte", written[part]), (f"{part}-labels-idx1-ubyte", labels)):
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                (folder / name).write_bytes(idx(values))
    return written


@pytest.fixture(autouse=True)
def no_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["root", "root/FashionMNIST/raw", "debian"])
def test_read_from_each_place(tmp_path: Path, place: str, zipped: bool) -> None:
    written = write(tmp_path / place, zipped=zipped)
    splits = fashion_mnist.load(tmp_path / "root")
    assert splits.train.images.dtype == torch.uint8
    assert torch.equal(splits.train.images[:, 0].long(), written["train"])
    assert torch.equal(splits.test.images[:, 0].long(), written["t10k"])
    assert splits.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert len(splits.classes) == 10 and splits.size == (28, 28) and splits.channels == 1


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte\(.gz\) in .*root.* --root, or add --download"):
        fashion_mnist.load(tmp_path / "root")


def test_a_file_is_missing(tmp_path: Path) -> None:
    write(tmp_path, zipped=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\(.gz\) is missing"):
        fashion_mnist.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:200], r"train-images-idx3-ubyte.gz cannot be read: "),
        (lambda content: b"<html>", r"train-images-idx3-ubyte.gz cannot be read: "),
        (lambda content: gzip.compress(b"<html>"), "train-images-idx3-ubyte.gz is no idx file of bytes"),
        (
            lambda content: gzip.compress(gzip.decompress(content)[:-1]),
            r"train-images-idx3-ubyte.gz says \[7, 28, 28\] and holds 5487 bytes: it is cut short or damaged",
        ),
    ],
)
def test_damaged(tmp_path: Path, damage, message: str) -> None:
    write(tmp_path, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=message) as raised:
        fashion_mnist.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_images_without_labels(tmp_path: Path) -> None:
    write(tmp_path, zipped=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(torch.arange(3)))
    with pytest.raises(DataError, match=r"train has images \(7, 28, 28\) and labels \(3,\)"):
        fashion_mnist.load(tmp_path)


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    with pytest.raises(DataError, match="the download to .* failed: no network"):
        fashion_mnist.load(tmp_path, download=True)
