"""Archives of CIFAR-10: damaged ones, and those that hold something else."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")

from PIL import Image

from ddfnet.data.classification import cifar10
from ddfnet.data.classification.splits import Splits
from ddfnet.errors import DataError


def jpeg(seed: int, size: int = 32) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "jpeg")
    return stream.getvalue()


def names(prefix: str = "") -> list[str]:
    return [f"{prefix}{part}/{label}/{number}.jpg" for part in ("train", "test") for label in "ab" for number in "01"]


def archive(file: Path, more: dict[str, bytes] | None = None, prefix: str = "") -> Path:
    content = {name: jpeg(seed) for seed, name in enumerate(names(prefix))} | (more or {})
    with tarfile.open(file, "w:gz" if file.suffix == ".gz" else "w") as written:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            written.addfile(member, io.BytesIO(data))
    return file


def assert_same(found: Splits, expected: Splits) -> None:
    assert found.classes == expected.classes
    for one, other in ((found.train, expected.train), (found.test, expected.test)):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def test_any_damage_of_a_gzipped_archive_is_found(tmp_path: Path) -> None:
    file = archive(tmp_path / "c.tar.gz")
    whole, expected, rng = file.read_bytes(), cifar10.load(file), np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(whole)
        broken[int(rng.integers(len(whole)))] = int(rng.integers(256))
        file.write_bytes(broken)
        try:
            assert_same(cifar10.load(file), expected)
        except DataError as error:
            assert "\n" not in str(error)


def test_what_an_archive_may_hold_besides(tmp_path: Path) -> None:
    expected = cifar10.load(archive(tmp_path / "a.tar"))
    more = {f"{part}/a/._0.jpg": b"Mac OS X" for part in ("train", "test")} | {"README": b"text"}
    assert_same(cifar10.load(archive(tmp_path / "b.tar", more)), expected)
    assert_same(cifar10.load(archive(tmp_path / "c.tar", prefix="./")), expected)


def test_a_link(tmp_path: Path) -> None:
    file = tmp_path / "c.tar"
    with tarfile.open(archive(file), "a") as written:
        member = tarfile.TarInfo("train/a/2.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        written.addfile(member)
    with pytest.raises(DataError, match=r"train/a/2.jpg must be a file, got a link or a device"):
        cifar10.load(file)


def test_an_image_of_another_size_is_the_last_that_is_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("L", (9000, 9000)).save(stream, "png")
    file = archive(tmp_path / "c.tar", {"train/a/2.jpg": stream.getvalue(), "train/a/3.jpg": b"no image"})
    with pytest.raises(DataError) as raised:
        cifar10.load(file)
    assert str(raised.value) == f"{file}/train/a/2.jpg must have 32x32 pixels, got 9000x9000"


def test_a_large_file_in_a_small_archive(tmp_path: Path) -> None:
    file = tmp_path / "c.tar.gz"
    with gzip.open(file, "wb", compresslevel=1) as stream:
        member = tarfile.TarInfo("train/a/0.jpg")
        member.size = 1 << 40
        stream.write(member.tobuf(tarfile.GNU_FORMAT))
        stream.write(bytes(1 << 20))
    with pytest.raises(DataError, match=r"train/a/0.jpg must have at most 268435456 bytes, got 1099511627776"):
        cifar10.load(file)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no intact cifar-10-batches-py"):
        cifar10.load(tmp_path / "nothing.tar")
