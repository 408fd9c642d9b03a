"""Sentinels: values that seem to mean missing are named, and maps of confidences are masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddfnet.depth import io
from ddfnet.depth.valid import missing_values, seeming
from tests.upsampling import Run, depth_map, pair, refused


def notes(values: np.ndarray, missing: tuple[float, ...] = (0,)) -> list[str]:
    valid = np.isfinite(values) & ~np.isin(values, missing)
    return seeming(values, valid, missing)


def holding(value: float, dtype: str, count: int = 12) -> np.ndarray:
    values = depth_map(dtype=dtype)
    values.ravel()[:count] = value
    return values


@pytest.mark.parametrize(
    ("dtype", "value", "named"),
    [
        ("float32", 1e10, "--invalid 1e+10"),  # Blender
        ("float64", 1e10, "--invalid 1e+10"),
        ("float32", 65535, "--invalid 65535"),
        ("int32", 65535, "--invalid 65535"),
        ("uint16", 65535, "--invalid 65535"),
        ("uint8", 255, "--invalid 255"),
        ("int16", 32767, "--invalid 32767"),
        ("float16", 65504, "--invalid 65504"),
        ("float32", np.finfo(np.float32).max, "--invalid 3.4028234663852886e+38"),
    ],
)
def test_values_that_are_known(dtype: str, value: float, named: str) -> None:
    [note] = notes(holding(value, dtype))
    assert "counts as a depth in 25.0% of the pixels" in note and note.endswith(f"give {named}")
    text = named.split()[-1]
    assert not notes(holding(value, dtype), missing_values(invalid=[float(text)]))  # the typed text is that value


def test_one_far_from_all_others_is_enough() -> None:
    [note] = notes(holding(65535, "uint16", count=1))
    assert note.startswith("65535, the largest value of its type, counts as a depth in 2.1% of the pixels")
    values = np.tile(np.arange(1000, 60000, 59, dtype=np.uint16), (10, 1))
    values[0, 0] = 65535  # a map that is scaled to the whole range has one such pixel
    assert not notes(values)


def test_0_stays_missing_beside_what_is_named() -> None:
    values = holding(65535, "uint16")
    values[5, 7] = 0
    assert notes(values)[0].endswith("give --invalid 0 --invalid 65535")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_ordinary_maps_have_no_note(dtype: str) -> None:
    assert not notes(depth_map(dtype=dtype))
    assert not notes(np.full((6, 8), 65535, dtype))  # all of it: a flat map
    assert not notes(np.zeros((6, 8), dtype))


def test_what_is_beyond_a_thousand_medians() -> None:
    values = depth_map(dtype="float32")
    values[0, :3] = 5e6, 6e6, 7e6
    [note] = notes(values)
    assert note.startswith("6.25% of the pixels are more than 1000 times as far as the median, 12")
    assert "up to 7000000" in note and note.endswith("give --invalid 7000000, or a --mask")


def test_the_command_says_it(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path, depth=holding(65535, "uint16"))
    done = run(depth, "--guide", guide, "-o", tmp_path / "a.png")
    assert done.status == 0 and "65535, the largest value of its type, counts as a depth in 25.0%" in done.err
    done = run(depth, "--guide", guide, "-o", tmp_path / "b.png", "--invalid", "65535")
    assert done.err == "" and "25.0% missing" in done.out


def test_what_is_negative_is_named_beside_0(tmp_path: Path, calls: list, run: Run) -> None:
    values = holding(-1, "float32")
    values[5, 7] = 0
    depth, guide = pair(tmp_path, ending=".npy", depth=values)
    outcome = run(depth, "--guide", guide, "-o", tmp_path / "a.npy")
    refused(outcome, depth, "12 pixels are, down to -1; give --invalid 0 --invalid -1 if that means missing")


# --- confidences ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("least", "counts"), [(None, {1, 2}), (2, {2}), (1, {1, 2}), (0, {0, 1, 2})])
def test_a_mask_of_confidences(tmp_path: Path, calls: list, run: Run, least: int | None, counts: set[int]) -> None:
    confidence = np.arange(48).reshape(6, 8).astype(np.uint8) % 3  # ARKit's 0, 1 and 2
    depth, guide = pair(tmp_path)
    io.write(tmp_path / "confidence.png", confidence)
    chosen = ("--mask", tmp_path / "confidence.png", *(("--least", least) if least is not None else ()))
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.png", *chosen).status == 0
    assert np.array_equal(calls[0]["valid"], np.isin(confidence, list(counts)))


def test_least_needs_a_mask(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path)
    refused(run(depth, "--guide", guide, "-o", tmp_path / "a.png", "--least", 2), "--least needs a --mask")
