"""`ddfnet upsample` with a network in place of the stand-in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ddfnet.depth import io
from tests.upsampling import Run, arguments, depth_map, pair


@pytest.mark.parametrize(("ending", "dtype"), [(".png", "uint8"), (".png", "uint16"), (".tif", "float32")])
def test_a_network_keeps_the_range_and_the_type(
    tmp_path: Path, run: Run, network: Path, ending: str, dtype: str
) -> None:
    values = depth_map(dtype=dtype)
    values[2, 3] = 0
    depth, guide = pair(tmp_path, ending=ending, depth=values)
    more = ("--model", network, "--fill", "--preview", tmp_path / "seen.png")
    done = run(depth, "--guide", guide, "-o", tmp_path / f"out{ending}", *more)
    assert done.status == 0, done.err
    result = io.read(tmp_path / f"out{ending}").values
    assert result.shape == (24, 32) and result.dtype == dtype
    assert result.min() >= values[values > 0].min() and result.max() <= values.max()  # the hole is filled
    assert (tmp_path / "seen.png").stat().st_size > 1000


def test_jobs_do_not_change_the_results(folder: Path, run: Run, network: Path) -> None:
    for jobs in (1, 3):
        out = folder / str(jobs)
        assert run(*arguments(folder)[:3], "-o", out, "--jobs", jobs, "--model", network).status == 0
    for name in "abcd":
        first, second = (io.read(folder / jobs / f"{name}.png").values for jobs in "13")
        assert np.array_equal(first, second)


def test_it_starts_without_the_libraries_of_other_commands(tmp_path: Path, network: Path) -> None:
    """Each takes longer to import than a small map to upsample."""
    depth, guide = pair(tmp_path)
    arguments = ["upsample", depth, "--guide", guide, "-o", tmp_path / "out.png", "--model", network]
    code = (
        "import sys\n"
        "from ddfnet.cli.main import main\n"
        "status = main(sys.argv[1:])\n"
        "print(status, sorted({'timm', 'torchvision', 'lightning', 'matplotlib', 'scipy', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
