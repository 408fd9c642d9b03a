"""Damaged archives and annotations: the right images, or an error of one line; soon, and in little memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import resource
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchvision")
pytest.importorskip("webdataset")
pytest.importorskip("defusedxml")

import torch
from PIL import Image

from ddfnet.data.archives import members
from ddfnet.data.classification import cifar10, fashion_mnist
from ddfnet.data.classification.webdataset import EncodedImage, samples
from ddfnet.data.depth import middlebury15
from ddfnet.data.detection import coco, voc
from ddfnet.errors import DataError
from tests.depth_archives import disparity, middlebury
from tests.detection_folders import coco as make_coco
from tests.detection_folders import voc as make_voc
from tests.detection_folders import voc_xml
from tests.fuzzing import Cases

SECONDS, MEBIBYTES = 5, 512
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@contextmanager
def bounded() -> Iterator[None]:
    """Check the time of a case, and the memory that the process has come to need."""
    start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEBIBYTES * 1024


def refuses(read: Callable[[], Any]) -> Any:
    """Return what is read, or None for an error that is documented."""
    with bounded():
        try:
            return read()
        except DataError as error:
            assert "\n" not in str(error) and str(error)
            return None


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes, cut a piece out, cut the end off, or put bytes in."""
    broken, place = bytearray(content), int(rng.integers(len(content)))
    match int(rng.integers(6)):
        case 0:
            broken[place] ^= 1 << int(rng.integers(8))
        case 1:
            for _ in range(int(rng.integers(1, 20))):
                broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
        case 2:
            del broken[place:]
        case 3:
            del broken[place : place + int(rng.integers(1, 2000))]
        case 4:
            broken[place:place] = rng.bytes(int(rng.integers(1, 600)))
        case 5:  # numbers of a header are digits
            broken[place] = int(rng.choice(list(b"0179 \0\xff\x80-")))
    return bytes(broken)


def tar(files: dict[str, bytes], form: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def image(seed: int, kind: str = "png") -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def pick(rng: np.random.Generator, files: dict[str, bytes]) -> tuple[str, bytes, bytes]:
    """Return the suffix of a compression, and an archive in it, whole and damaged."""
    suffix = str(rng.choice(list(COMPRESSIONS)))
    form = int(rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    plain = tar(files, form)
    if rng.random() < 0.3:  # within the compression, whose checks then say nothing
        return suffix, COMPRESSIONS[suffix](plain), COMPRESSIONS[suffix](damage(plain, rng))
    return suffix, COMPRESSIONS[suffix](plain), damage(COMPRESSIONS[suffix](plain), rng)


def test_members_of_archives(cases: Cases) -> None:
    """Compare every file of an archive whose compression was damaged: no byte may differ."""
    for rng in cases:
        files = {f"{'folder/' * int(rng.integers(30))}{n}": rng.bytes(int(rng.integers(2000))) for n in range(4)}
        suffix, whole, _ = pick(rng, files)
        broken = damage(whole, rng)
        ahead = bool(rng.random() < 0.5)
        found = refuses(lambda: dict(members(io.BytesIO(broken), "a", ahead=ahead)))  # noqa: B023
        assert found is None or not suffix or found == files


def test_archives_of_cifar10(cases: Cases, tmp_path: Path) -> None:
    files = {f"{part}/{label}/0.png": image(n) for n, label in enumerate("ab") for part in ("train", "test")}
    file = tmp_path / "c.tar"
    file.write_bytes(tar(files, tarfile.GNU_FORMAT))
    expected = cifar10.load(file)
    for rng in cases:
        _, whole, broken = pick(rng, files)
        file.write_bytes(broken)
        found = refuses(lambda: cifar10.load(file))
        if found is not None and len(found.train) == len(expected.train) and broken != whole:
            assert found.train.images.shape == expected.train.images.shape
            assert found.train.labels.max() < len(found.classes)


def test_archives_that_are_read_in_place(cases: Cases, tmp_path: Path) -> None:
    """Damage headers more often than their share of the bytes: a wrong place must not pass for a depth map."""
    file = tmp_path / "m.tar"
    for rng in cases:
        form = int(rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
        broken = bytearray(tar(middlebury(), form))
        if rng.random() < 0.5:
            starts = [place for place in range(0, len(broken), 512) if broken[place + 257 : place + 262] == b"ustar"]
            place = int(rng.choice(starts)) + int(rng.integers(512))
            broken[place] = int(rng.choice(list(b"0179 \0\xff\x80-")))
        else:
            broken = bytearray(damage(bytes(broken), rng))
        file.write_bytes(broken)
        for index, name in enumerate(middlebury15.NAMES):
            scene = refuses(lambda: middlebury15.load(file)[index])  # noqa: B023
            assert scene is None or np.array_equal(scene.depth.numpy(), disparity(name))


def test_shards(cases: Cases, tmp_path: Path) -> None:
    files = {f"{n}.{kind}": content for n in range(3) for kind, content in (("png", image(n)), ("cls", b"1"))}
    for rng in cases:
        suffix, whole, broken = pick(rng, files)
        file = tmp_path / f"a.tar{suffix}"
        file.write_bytes(broken)

        def read() -> list[tuple[Any, int]]:
            return [EncodedImage(sample)() for sample in samples([str(file)])]  # noqa: B023

        found = refuses(read)
        assert found is None or all(isinstance(label, int) for _, label in found)
        file.write_bytes(whole)
        assert [label for _, label in read()] == [1, 1, 1]


def test_idx_files(cases: Cases, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    contents = {
        f"{part}-{kind}": header + rng.bytes(size) if "images" in kind else header + bytes(range(5))
        for part in ("train", "t10k")
        for kind, header, size in (
            ("images-idx3-ubyte", b"\0\0\x08\x03\0\0\0\x05\0\0\0\x1c\0\0\0\x1c", 5 * 28 * 28),
            ("labels-idx1-ubyte", b"\0\0\x08\x01\0\0\0\x05", 5),
        )
    }
    for rng in cases:
        for name, content in contents.items():
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, 1, mtime=0))
        expected = fashion_mnist.load(tmp_path)
        name = str(rng.choice(list(contents)))
        plain = rng.random() < 0.3
        file = tmp_path / (name if plain else f"{name}.gz")
        file.write_bytes(damage(contents[name] if plain else gzip.compress(contents[name], 1, mtime=0), rng))
        found = refuses(lambda: fashion_mnist.load(tmp_path))
        if found is not None and not plain:
            assert torch.equal(found.train.images, expected.train.images)
            assert torch.equal(found.test.labels, expected.test.labels)
        file.unlink()


VALUES = (
    "null",
    "true",
    "-1",
    "1e400",
    "-0.0",
    "NaN",
    "-Infinity",
    '"7"',
    "[]",
    "{}",
    "[[[]]]",
    "1" * 500,
    '"\\u0000"',
)


def changed_json(value: Any, rng: np.random.Generator) -> str:
    """Write JSON with one value replaced by one of another kind."""
    leaves: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            leaves.append((node, key))
            walk(node[key])

    walk(value)
    node, key = leaves[int(rng.integers(len(leaves)))]
    if rng.random() < 0.2 and isinstance(node, dict):
        del node[key]
        return json.dumps(value)
    node[key] = "@"
    return json.dumps(value).replace('"@"', str(rng.choice(VALUES)))


def test_annotations_of_coco(cases: Cases, tmp_path: Path) -> None:
    root = make_coco(tmp_path / "coco", {"val": 2})
    file = root / "annotations" / "instances_val.json"
    whole = file.read_bytes()
    for rng in cases:
        changed = changed_json(json.loads(whole), rng).encode() if rng.random() < 0.7 else damage(whole, rng)
        file.write_bytes(changed)
        how = str(rng.choice(["stop", "skip"]))
        found = refuses(lambda: coco.load_part(root, "val", on_bad_box=how))  # noqa: B023
        assert_sane(found)


def test_annotations_of_voc(cases: Cases, tmp_path: Path) -> None:
    root = make_voc(tmp_path / "voc", {"val": 2})
    file = root / "Annotations" / "val0.xml"
    words = ("", "-1", "nan", "inf", "1e308", "9" * 400, "<a/>", "&lt;", "&a;", "\u0663", " 3 ", "1_0", "0x10", "\0")
    for rng in cases:
        whole = voc_xml("val0", [("red", (3, 4, 20, 30)), ("blue", (30, 4, 50, 30))])
        changed = whole.encode()
        if rng.random() < 0.6:
            texts = [part for part in whole.replace("<", ">").split(">") if part and "/" not in part]
            changed = whole.replace(texts[int(rng.integers(len(texts)))], str(rng.choice(words)), 1).encode()
        file.write_bytes(changed if rng.random() < 0.5 else damage(changed, rng))
        how = str(rng.choice(["stop", "skip"]))
        assert_sane(refuses(lambda: voc.load(root, "val", on_bad_box=how)))  # noqa: B023


def assert_sane(found: Any) -> None:
    """Check that all boxes lie within their images and have areas and known classes."""
    if found is None:
        return
    assert len(found.sizes) == len(found.files) and (found.sizes >= 1).all()
    for index in range(len(found)):
        corners, labels, _, area = found.objects(index)
        height, width = found.sizes[index].tolist()
        assert torch.isfinite(corners).all() and torch.isfinite(area).all()
        assert (corners >= 0).all() and (corners[:, 2] <= width).all() and (corners[:, 3] <= height).all()
        assert (corners[:, :2] < corners[:, 2:]).all() and (labels < len(found.classes)).all()
