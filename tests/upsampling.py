"""Files, a stand-in for the network, and a check of what is said, for the tests of `ddfnet upsample`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("PIL")
pytest.importorskip("tqdm")
pytest.importorskip("safetensors")

import numpy as np
from PIL import Image

from ddfnet.depth import io
from ddfnet.errors import DataError

Run = Callable[..., "Outcome"]
Outcome = SimpleNamespace  # status, out, err


def nearest(depth, guide, *, valid=None, **options):
    """Give each pixel, in place of the network, the sample of its block, 0 or nan where that is not valid."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(guide.shape, depth.shape, strict=False))
    missing = 0 if depth.dtype.kind in "iu" else np.nan
    return np.where(valid, depth, np.array(missing, depth.dtype))[rows[:, None], columns]


def message(path: Path, read: Callable[..., object] = io.read, **options: str) -> str:
    """Return the one line that reading this file fails with; it names the file."""
    with pytest.raises(DataError) as raised:
        read(path, **options)
    text = str(raised.value)
    assert str(path) in text and "\n" not in text and len(text) < 500
    return text


def depth_map(size: tuple[int, int] = (6, 8), dtype: str = "uint16") -> np.ndarray:
    return (np.arange(size[0] * size[1]).reshape(size) + 100).astype(dtype)


def pair(folder: Path, name: str = "a", ending: str = ".png", depth: np.ndarray | None = None) -> tuple[Path, Path]:
    """Write a depth map of 8 x 6 to depth/ and a guide of 32 x 24 to rgb/."""
    paths = folder / "depth" / f"{name}{ending}", folder / "rgb" / f"{name}.jpg"
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    io.write(paths[0], depth_map() if depth is None else depth)
    Image.effect_noise((32, 24), 60).convert("RGB").save(paths[1])
    return paths


def refused(outcome: Outcome, *said: object) -> None:
    """Check that a command ended with status 1 and one line that says this."""
    assert (outcome.status, outcome.out) == (1, "")
    [line] = outcome.err.splitlines()
    assert line.startswith("ddfnet: error: ")
    for part in said:
        assert str(part) in line


def arguments(folder: Path, *more: object) -> tuple[object, ...]:
    return folder / "depth", "--guide", folder / "rgb", "-o", folder / "out", *more


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
