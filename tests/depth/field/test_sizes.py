"""Pairs of sizes that cameras and networks have, whose aspect ratios differ a little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfnet.depth import batch, io, pairing
from ddfnet.errors import UserError
from tests.upsampling import Run

JOB = pairing.Job(Path("d"), Path("g"), None, Path("o"), None)
TAKEN = {  # width and height of the depth map and of the guide: the difference of the aspect ratios
    "ScanNet": ((640, 480), (1296, 968), "0.4%"),
    "RealSense D435": ((848, 480), (1280, 720), "0.6%"),
    "RealSense D435, full HD": ((848, 480), (1920, 1080), "0.6%"),
    "multiples of 14": ((518, 392), (640, 480), "0.9%"),
    "multiples of 14, full HD": ((518, 294), (1920, 1080), "0.9%"),
    "multiples of 32": ((672, 384), (1920, 1080), "1.6%"),
    "at the limit": ((1019, 1000), (2000, 2000), "1.9%"),
}
REFUSED = [
    ((1021, 1000), (2000, 2000)),
    ((640, 480), (1280, 720)),
    ((512, 424), (1920, 1080)),
    ((640, 360), (640, 480)),
]


@pytest.mark.parametrize("name", TAKEN)
def test_a_small_difference_is_taken_with_a_note(name: str) -> None:
    (width, height), (guide_width, guide_height), error = TAKEN[name]
    for depth, guide in (
        ((height, width), (guide_height, guide_width)),
        ((width, height), (guide_width, guide_height)),  # held upright
    ):
        notes: list[str] = []
        batch.check_sizes(JOB, depth, guide, notes, stretch=False)
        assert notes == [f"its aspect ratio and the guide's differ by {error}; they are taken for the same view"]
        batch.check_sizes(JOB, depth, guide, (quiet := []), stretch=True)
        assert not quiet


@pytest.mark.parametrize(("depth", "guide"), REFUSED)
def test_a_larger_one_is_refused(depth: tuple[int, int], guide: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="a guide of the depth map's aspect ratio is required"):
        batch.check_sizes(JOB, depth[::-1], guide[::-1], [], stretch=False)


def test_the_samples_are_spread_over_the_guide(tmp_path: Path, calls: list, run: Run) -> None:
    values = np.arange(1, 48 * 64 + 1, dtype=np.uint16).reshape(48, 64)
    io.write(tmp_path / "d.png", values)
    Image.new("RGB", (129, 96)).save(tmp_path / "g.png")  # 0.8 %, more than rounding explains
    done = run(tmp_path / "d.png", "--guide", tmp_path / "g.png", "-o", tmp_path / "o.png")
    assert done.status == 0 and io.read(tmp_path / "o.png").values.shape == (96, 129)
    assert calls[0]["ratio"] is None and np.array_equal(calls[0]["depth"], values)
