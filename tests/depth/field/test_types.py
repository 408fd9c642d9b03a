"""Steps of the input's type: whole millimetres leave terraces, so a format of floats gets floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddfnet
from ddfnet.depth import io
from ddfnet.depth.network import GuidedUpsampler
from tests.upsampling import Run, depth_map, pair, refused

HALVES = np.kron([[100.5, 200.25], [300.75, 0.0]], np.ones((12, 16)))  # a result between the steps, and a hole


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Give results between whole numbers in place of the network's, in the type that was asked for."""
    seen = []

    def upsampled(depth: np.ndarray, guide: np.ndarray, **options: Any) -> np.ndarray:
        seen.append(depth)
        if depth.dtype.kind == "f":
            return np.where(HALVES == 0, np.nan, HALVES).astype(depth.dtype)
        return HALVES.round().astype(depth.dtype)

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", upsampled)
    return seen


@pytest.mark.parametrize("name", ["a.pfm", "a.tif", "a.npy", "a.npz", "a.dpt", "a.exr", "a.h5"])
def test_a_format_of_floats_gets_floats(tmp_path: Path, between: list, run: Run, name: str) -> None:
    if package := io.format_of(name).package:
        pytest.importorskip(package[0])
    depth, guide = pair(tmp_path)
    done = run(depth, "--guide", guide, "-o", tmp_path / name)
    assert done.status == 0 and "float32, 25.0% missing" in done.out
    found = io.read(tmp_path / name).values
    assert found.dtype == np.float32
    assert np.array_equal(found, np.where(HALVES == 0, np.nan, HALVES).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize(("name", "dtype"), [("a.png", None), ("a.tif", "same"), ("a.npy", "uint16"), ("a.pgm", None)])
def test_whole_numbers_where_they_are_asked_for_or_all_there_is(
    tmp_path: Path, between: list, run: Run, name: str, dtype: str | None
) -> None:
    if package := io.format_of(name).package:
        pytest.importorskip(package[0])
    depth, guide = pair(tmp_path)
    done = run(depth, "--guide", guide, "-o", tmp_path / name, *(("--dtype", dtype) if dtype else ()))
    assert done.status == 0 and "uint16, 25.0% missing" in done.out
    found = io.read(tmp_path / name).values
    assert found.dtype == np.uint16 and np.array_equal(found, HALVES.round())


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_other_types_as_16_bits(tmp_path: Path, between: list, run: Run, dtype: str) -> None:
    values = depth_map(dtype=dtype) + (0 if dtype == "uint8" else 900)
    depth, guide = pair(tmp_path, ending=".npy", depth=values.astype(dtype))
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.png", "--dtype", "uint16").status == 0
    found = io.read(tmp_path / "a.png").values
    assert found.dtype == np.uint16 and np.array_equal(found, HALVES.round())


def test_a_depth_is_never_rounded_to_what_means_missing(tmp_path: Path, run: Run, monkeypatch) -> None:
    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", lambda *_, **__: np.full((24, 32), 0.25))
    depth, guide = pair(tmp_path, ending=".npy", depth=depth_map(dtype="float64") + 1000)
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.png", "--dtype", "uint16").status == 0
    assert (io.read(tmp_path / "a.png").values == 1).all()


def test_metres_are_not_rounded_to_whole_ones(tmp_path: Path, between: list, run: Run) -> None:
    depth, guide = pair(tmp_path, ending=".npy", depth=depth_map(dtype="float32") / 100)
    outcome = run(depth, "--guide", guide, "-o", tmp_path / "a.png", "--dtype", "uint16")
    refused(outcome, depth, "whole numbers are too coarse for depth of 1.235 in the middle")
    assert not between


def test_what_16_bits_do_not_hold(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", lambda *_, **__: np.full((24, 32), 70000.0))
    depth, guide = pair(tmp_path, ending=".npy", depth=np.full((6, 8), 70000, np.int32))
    outcome = run(depth, "--guide", guide, "-o", tmp_path / "a.png", "--dtype", "uint16")
    refused(outcome, depth, "uint16 holds 0 to 65535, depth is 70000 to 70000; give --dtype float32")
    assert not (tmp_path / "a.png").exists()


def test_large_integers_stay_exact(tmp_path: Path, calls: list, run: Run) -> None:
    values = np.full((6, 8), 2**24 + 1, np.int32)  # float32 has no such number
    depth, guide = pair(tmp_path, ending=".npy", depth=values)
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.npy").status == 0
    found = io.read(tmp_path / "a.npy").values
    assert found.dtype == np.float64 and (found == 2**24 + 1).all()


def test_a_plane_in_millimetres_has_no_terraces(tmp_path: Path, run: Run, network: Path) -> None:
    """With any network: its averages lie between the steps, and stay there."""
    plane = np.broadcast_to(1000 + np.arange(16, dtype=np.uint16), (12, 16))
    depth, guide = pair(tmp_path, depth=np.ascontiguousarray(plane))
    from PIL import Image

    Image.effect_noise((64, 48), 60).convert("RGB").save(guide)
    for name, steps in (("a.png", 16), ("a.tif", 40)):
        assert run(depth, "--guide", guide, "-o", tmp_path / name, "--model", network).status == 0
        found = np.unique(io.read(tmp_path / name).values)
        assert (len(found) <= 16) if name == "a.png" else (len(found) > steps)


@pytest.mark.parametrize(("name", "dtype"), [("a.tif", "float32"), ("a.png", "uint16"), ("a.exr", "float32")])
def test_a_map_of_full_size_changes_its_type_alone(
    tmp_path: Path, run: Run, network: Path, name: str, dtype: str
) -> None:
    if package := io.format_of(name).package:
        pytest.importorskip(package[0])
    values = depth_map((24, 32))
    depth, guide = pair(tmp_path, depth=values)
    assert run(depth, "--guide", guide, "-o", tmp_path / name, "--model", network).status == 0
    found = io.read(tmp_path / name).values
    assert found.dtype == dtype and np.array_equal(found, values)


@pytest.mark.parametrize("low", [1, 60000])
def test_edges_of_16_bits_are_rounded_and_never_wrap_around(low: int) -> None:
    """A resize that converts its float result plainly cuts off, and makes black of white beside an edge."""
    depth = np.tile(np.repeat(np.array([low, 65535], np.uint16), 4), (8, 2))
    guide = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    network = GuidedUpsampler(4, channels=4, guide_channels=4).eval()
    whole = ddfnet.upsample_depth(depth, guide, model=network)
    exact = ddfnet.upsample_depth(depth.astype(np.float64), guide, model=network)
    assert whole.dtype == np.uint16 and len(np.unique(whole)) > 2
    assert np.array_equal(whole, exact.round()) and not np.array_equal(whole, np.floor(exact))
