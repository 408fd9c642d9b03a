"""0 can be a depth: it is the farthest point of inverse depth, of disparity and of relative depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import ddfnet
from ddfnet.depth import io
from ddfnet.depth.network import GuidedUpsampler
from tests.upsampling import Run, depth_map, pair

NETWORK = GuidedUpsampler(4, channels=4, guide_channels=4).eval()
GUIDE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
SKY = depth_map(dtype="float32")
SKY[:3] = 0  # inverse depth: the upper half is sky


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ((), {0}),
        (("--zero", "valid"), set()),
        (("--invalid", 100), {100}),
        (("--invalid", 0, "--invalid", 100), {0, 100}),
        (("--invalid", 100, "--zero", "missing"), {0, 100}),
        (("--invalid", 100, "--zero", "valid"), {100}),
    ],
)
def test_which_values_are_missing(tmp_path: Path, calls: list, run: Run, options: tuple, missing: set[int]) -> None:
    values = SKY.copy()
    values[5, 5] = 100
    depth, guide = pair(tmp_path, ending=".npy", depth=values)
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.npy", *options).status == 0
    assert np.array_equal(calls[0]["valid"], ~np.isin(values, list(missing)))


def test_a_note_where_invalid_makes_0_a_depth(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path, ending=".npy", depth=SKY)
    done = run(depth, "--guide", guide, "-o", tmp_path / "a.npy", "--invalid", 7)
    assert "0 counts as a depth, in 50.0% of the pixels; if it is none, give --zero missing too" in done.err
    done = run(depth, "--guide", guide, "-o", tmp_path / "b.npy", "--invalid", 7, "--zero", "valid")
    assert done.err == ""


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_sky_stays_at_0(fill: bool, dtype: str) -> None:
    """A filled one would take the depth of what stands before it."""
    depth = SKY.astype(dtype)
    result = ddfnet.upsample_depth(depth, GUIDE, valid=np.ones(depth.shape, bool), model=NETWORK, fill=fill)
    assert (result[:4] == 0).all() and (result[-4:] > 100).all() and np.isfinite(result).all()


def test_without_a_mask_0_is_missing_and_with_one_it_decides_alone() -> None:
    depth = torch.from_numpy(SKY)
    guide, everywhere = torch.from_numpy(GUIDE), torch.ones(depth.shape, dtype=torch.bool)
    missing = ddfnet.upsample_depth(depth, guide, model=NETWORK)
    assert missing[:4].isnan().all() and (missing[missing.isfinite()] >= 100).all()
    assert (ddfnet.upsample_depth(depth, guide, valid=everywhere, model=NETWORK)[:4] == 0).all()
    hidden = np.ma.masked_equal(SKY, 147)
    assert np.isnan(ddfnet.upsample_depth(hidden, GUIDE, model=NETWORK)[:4]).all()  # a NumPy mask is no `valid`


def test_no_number_is_never_a_depth() -> None:
    depth = SKY.copy()
    depth[:, :4] = np.nan
    result = ddfnet.upsample_depth(depth, GUIDE, valid=np.ones(depth.shape, bool), model=NETWORK)
    assert np.isnan(result[:, :4]).all() and (result[:4, -4:] == 0).all()


@pytest.mark.parametrize(("name", "said"), [("a.png", "missing pixels are 0 in uint16"), ("a.npy", None)])
def test_a_note_where_missing_and_the_depth_0_look_alike(
    tmp_path: Path, calls: list, run: Run, name: str, said: str | None
) -> None:
    values = depth_map()
    values[0], values[5] = 0, 7
    depth, guide = pair(tmp_path, depth=values)
    done = run(depth, "--guide", guide, "-o", tmp_path / name, "--zero", "valid", "--invalid", 7)
    assert done.status == 0 and (said in done.err if said else done.err == "")
    found = io.read(tmp_path / name).values
    assert (found[:4] == 0).all() and ((found[20:] == 0) if said else np.isnan(found[20:])).all()
