"""Depth maps of the image's own size: those without holes, and those that were enlarged by nearest neighbour before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddfnet.cli.main import main
from ddfnet.depth import io
from ddfnet.depth.enlarged import find_blocks
from tests.upsampling import Run

RANDOM = np.random.default_rng(0)
SMALL = RANDOM.integers(500, 5000, (24, 32), dtype=np.uint16)


def pillow(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(values).resize(size[::-1], Image.Resampling.NEAREST))


def torchs(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize as ``interpolate`` and OpenCV's INTER_NEAREST do."""
    tensor = torch.from_numpy(values.astype(np.float64))[None, None]
    return torch.nn.functional.interpolate(tensor, size=size, mode="nearest")[0, 0].numpy().astype(values.dtype)


@pytest.mark.parametrize("enlarge", [pillow, torchs])
@pytest.mark.parametrize("size", [(48, 64), (180, 240), (120, 123), (77, 111), (30, 40)])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_samples_come_back(enlarge, size: tuple[int, int], dtype: str) -> None:
    """At 2x, 7.5x, another ratio for each axis, ratios that are no fraction of small numbers, 1.25x."""
    small = SMALL.astype(dtype)
    found = find_blocks(enlarge(small, size))
    assert found is not None and found.samples == (24, 32)
    assert np.array_equal(found.take(enlarge(small, size)), small)


def test_holes_are_values_like_others() -> None:
    small = np.where(RANDOM.random((24, 32)) < 0.3, np.nan, SMALL).astype(np.float32)
    found = find_blocks(np.kron(small, np.ones((5, 5), np.float32)))
    assert str(found) == "32 x 24 samples, each 5 x 5 pixels"
    assert np.array_equal(found.take(np.kron(small, np.ones((5, 5)))), small, equal_nan=True)


Y, X = np.mgrid[:60, :80]
NOT_ENLARGED = {
    "noise": RANDOM.integers(500, 5000, (60, 80)),
    "a plane": 1000 + 3 * Y + X,
    "a plane in coarse steps": (1000 + 0.3 * Y + 0.2 * X).astype(np.int64),
    "one value": np.full((60, 80), 7),
    "a ramp along one axis": 1000 + Y,
    "a disc": np.where((Y - 30) ** 2 + (X - 40) ** 2 < 400, 900, 0),
    "two boxes": np.kron(np.array([[1, 2], [3, 4]]), np.ones((30, 40), int)),
    "enlarged along one axis alone": np.repeat(RANDOM.integers(500, 5000, (60, 20)), 4, axis=1),
    "one sample": np.full((1, 1), 3),
}


@pytest.mark.parametrize("name", NOT_ENLARGED)
def test_other_maps_have_no_blocks(name: str) -> None:
    assert find_blocks(NOT_ENLARGED[name]) is None


def full(tmp_path: Path, values: np.ndarray, ending: str = ".png") -> tuple[Path, Path]:
    io.write(tmp_path / f"d{ending}", values)
    Image.effect_noise(values.shape[::-1], 60).convert("RGB").save(tmp_path / "g.png")
    return tmp_path / f"d{ending}", tmp_path / "g.png"


def test_where_nothing_is_missing_nothing_is_done(tmp_path: Path, calls: list, run: Run) -> None:
    values = RANDOM.integers(500, 5000, (48, 64), dtype=np.uint16)
    depth, guide = full(tmp_path, values)
    done = run(depth, "--guide", guide, "-o", tmp_path / "o.png", "--preview", tmp_path / "p.png")
    line = "nothing is missing: it has the guide's size and no holes, so the result is a copy"
    assert done.status == 0 and done.err == f"ddfnet: note: {depth}: {line}\n" and not calls
    assert np.array_equal(io.read(tmp_path / "o.png").values, values) and (tmp_path / "p.png").exists()


def test_that_needs_no_network(tmp_path: Path) -> None:
    """Torch alone takes longer to import than all that is done."""
    depth, guide = full(tmp_path, RANDOM.integers(500, 5000, (48, 64), dtype=np.uint16))
    code = "import sys; from ddfnet_command import main; print(main(), {'torch', 'scipy'} & set(sys.modules))"
    arguments = ["upsample", depth, "--guide", guide, "-o", tmp_path / "o.png"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 set()", done.stderr


def test_a_hole_is_still_filled(tmp_path: Path, calls: list, run: Run) -> None:
    values = RANDOM.integers(500, 5000, (48, 64), dtype=np.uint16)
    values[10, 10] = 0
    depth, guide = full(tmp_path, values)
    done = run(depth, "--guide", guide, "-o", tmp_path / "o.png")
    assert done.status == 0 and len(calls) == 1 and "nothing is missing" not in done.err


@pytest.mark.parametrize("hole", [False, True])
def test_an_enlargement_is_said_and_undone_when_asked(tmp_path: Path, calls: list, run: Run, hole: bool) -> None:
    small = SMALL.copy()
    if hole:
        small[3, 4] = 0
    depth, guide = full(tmp_path, pillow(small, (180, 240)))
    mask = np.ones((180, 240), np.uint8)
    mask[:8] = 0  # a row of samples
    io.write(tmp_path / "mask.png", mask)
    done = run(depth, "--guide", guide, "-o", tmp_path / "a.png")
    offer = (
        "it was enlarged by nearest neighbour, from 32 x 24 samples, each 7.5 x 7.5 pixels; --undo-nearest upsamples"
    )
    assert done.status == 0 and offer in done.err
    assert [call["depth"].shape for call in calls] == ([(180, 240)] if hole else [])
    calls.clear()
    done = run(depth, "--guide", guide, "-o", tmp_path / "b.png", "--undo-nearest", "--mask", tmp_path / "mask.png")
    assert done.status == 0 and "so it is taken as 32 x 24 samples" in done.err
    valid = small > 0
    valid[0] = False
    assert np.array_equal(calls[0]["depth"], small) and np.array_equal(calls[0]["valid"], valid)
    assert io.read(tmp_path / "b.png").values.shape == (180, 240)


def test_where_there_are_no_blocks_the_option_says_so(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = full(tmp_path, RANDOM.integers(500, 5000, (48, 64), dtype=np.uint16))
    done = run(depth, "--guide", guide, "-o", tmp_path / "o.png", "--undo-nearest")
    assert done.status == 0 and "--undo-nearest: no blocks of equal pixels on a grid were found" in done.err
    assert not calls and "--undo-nearest=3 would take blocks of 3 x 3 pixels" in done.err


def test_blocks_on_no_grid_are_taken_by_their_size(tmp_path: Path, calls: list, run: Run) -> None:
    """A row of samples is painted by up to a pixel to either side, as a slanted wall is by RealSense's align."""
    small = RANDOM.integers(500, 5000, (16, 20), dtype=np.uint16)
    rows = [np.roll(np.repeat(row, 3), number // 6 - 1) for number, row in enumerate(small)]
    values = np.repeat(np.stack(rows), 3, axis=0)
    assert find_blocks(values) is None
    depth, guide = full(tmp_path, values)
    done = run(depth, "--guide", guide, "-o", tmp_path / "o.png", "--undo-nearest", 3)
    assert done.status == 0 and "so it is taken as 20 x 16 samples, each 3 x 3 pixels" in done.err
    assert np.array_equal(calls[0]["depth"], small)


@pytest.mark.parametrize("text", ["0.5", "x", "nan", "inf", "-3"])
def test_block_sizes_that_are_none(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    depth, guide = full(tmp_path, SMALL)
    arguments = ("upsample", depth, "--guide", guide, "-o", tmp_path / "o.png", f"--undo-nearest={text}")
    assert main([*map(str, arguments)]) == 2
    assert f"argument --undo-nearest: must be a number of pixels from 1 on, got '{text}'" in capsys.readouterr().err
