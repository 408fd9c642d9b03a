"""Small archives of the layouts of nyu8.tar and middlebury15.tar, for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ddfnet.data.depth.middlebury15 import NAMES


def encoded(values: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


def write_tar(file: Path, contents: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:
        for name, content in contents.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return file


def disparity(name: str, height: int = 18, width: int = 21) -> np.ndarray:
    """Draw a map of two surfaces, 40 + NN behind and 200 in front, with one 0, (H, W), uint8."""
    values = np.full((height, width), 40 + int(name), np.uint8)
    values[:, width // 2 :] = 200
    values[0, 0] = 0
    return values


def middlebury() -> dict[str, bytes]:
    """Return the files of a small middlebury15.tar, maps of 18x21 pixels."""
    files = {}
    for name in NAMES:
        values = disparity(name)
        files[f"middlebury15/Depth/{name}.png"] = encoded(values)
        files[f"middlebury15/RGB/{name}.png"] = encoded(np.stack([values, values // 2, 255 - values], axis=2))
    return files


def nyu(numbers: Sequence[int] = range(1449)) -> dict[str, bytes]:
    """Return the files of an nyu8.tar whose map N has the values 20 + N % 50, and 10 more in its right half."""
    guide, depths = _rooms()
    files = {"nyu8/nyu_labels40/0.png": depths[0]}
    for number in numbers:
        files[f"nyu8/nyu_images/{number}.jpg"] = guide
        files[f"nyu8/nyu_depths/{number}.png"] = depths[number % 50]
    return files


@cache
def _rooms() -> tuple[bytes, list[bytes]]:
    right = np.where(np.arange(640) >= 320, 10, 0).astype(np.uint8)
    red = np.zeros((480, 640, 3), np.uint8)
    red[:, 320:, 0] = 250
    depths = [np.broadcast_to(20 + shade + right, (480, 640)).astype(np.uint8) for shade in range(50)]
    return encoded(red, "JPEG"), [encoded(values) for values in depths]
