"""`ddfnet upsample` of one depth map: its type, its unit, what is missing in it, and where the result goes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfnet.depth import io
from ddfnet.depth.network import GuidedUpsampler
from tests.upsampling import Run, depth_map, pair, refused


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        (".png", "uint16"),
        (".png", "uint8"),
        (".tiff", "float32"),
        (".npy", "float64"),
        (".exr", "float16"),
        (".pfm", "float32"),
    ],
)
def test_type_and_unit_are_kept(tmp_path: Path, calls: list, run: Run, ending: str, dtype: str) -> None:
    if ending == ".exr":
        pytest.importorskip("OpenEXR")
    values = depth_map(dtype=dtype)
    depth, guide = pair(tmp_path, ending=ending, depth=values)
    done = run(depth, "--guide", guide, "-o", tmp_path / f"out{ending}")
    assert done.status == 0 and ("8-bit depth" in done.err) == (dtype == "uint8")
    assert done.out.startswith(f"{tmp_path / f'out{ending}'}: 32 x 24, {dtype}, in ")
    result = io.read(tmp_path / f"out{ending}").values
    assert result.dtype == values.dtype and np.array_equal(result, np.kron(values, np.ones((4, 4), dtype)))


def test_options_reach_the_function(tmp_path: Path, calls: list, run: Run, network: Path) -> None:
    depth, guide = pair(tmp_path)
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.png").status == 0
    chosen = ("--fill", "--offset", "1.5,2", "--tile", 256, "--model", network, "--quality", "fast", "--sharpness", 3)
    assert run(depth, "--guide", guide, "-o", tmp_path / "b.png", *chosen).status == 0
    names = ("fill", "offset", "tile", "quality", "sharpness", "model")
    assert [calls[0][name] for name in names] == [None, None, None, "best", 1, "auto"]
    assert [calls[1][name] for name in names] == ["guided", (1.5, 2.0), 256, "fast", 3, calls[1]["model"]]
    assert isinstance(calls[1]["model"], GuidedUpsampler)
    assert calls[0]["guide"].shape == (24, 32, 3) and calls[0]["guide"].dtype == np.uint8


def test_what_counts_as_missing(tmp_path: Path, calls: list, run: Run) -> None:
    values = depth_map(dtype="float32")
    values[0, :5] = [0, np.nan, np.inf, -1, 9999.9]
    depth, guide = pair(tmp_path, ending=".tif", depth=values)
    mask = np.ones(values.shape, bool)
    mask[5, 7] = False
    np.save(tmp_path / "mask.npy", mask)
    mask[0, :5] = False
    out = tmp_path / "out.tif"
    done = run(
        *(depth, "--guide", guide, "-o", out, "--mask", tmp_path / "mask.npy"),
        *("--invalid", 0, "--invalid", -1, "--invalid", 9999.9),
    )
    assert done.status == 0 and np.array_equal(calls[0]["valid"], mask)
    assert done.err == f"ddfnet: note: {depth}: nan or inf counts as missing\n"
    assert "12.5% missing" in done.out  # 6 of 48
    assert np.isnan(io.read(out).values).sum() == 6 * 16


def test_the_largest_number_is_a_depth_unless_it_is_said_to_be_none(tmp_path: Path, calls: list, run: Run) -> None:
    values = depth_map()
    values[2, 3], values[5, 7] = 65535, 65534
    depth, guide = pair(tmp_path, depth=values)
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.png").status == 0
    assert run(depth, "--guide", guide, "-o", tmp_path / "b.png", "--invalid", "65535").status == 0
    assert calls[0]["valid"].all() and np.array_equal(calls[1]["valid"], values != 65535)


@pytest.mark.parametrize(("given", "taken"), [("--offset=-1,2", (-1, 2)), ("--offset=-1.5", -1.5), ("--ratio=4", 4)])
def test_numbers_for_each_axis_or_both(tmp_path: Path, calls: list, run: Run, given: str, taken: object) -> None:
    """A negative one with the equals sign, without which it would be taken for an option."""
    depth, guide = pair(tmp_path)
    assert run(depth, "--guide", guide, "-o", tmp_path / "out.png", given).status == 0
    assert calls[0][given[2:].partition("=")[0]] == taken


def test_eight_bits_are_allowed_and_said(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path, depth=depth_map(dtype="uint8"))
    done = run(depth, "--guide", guide, "-o", tmp_path / "out.png")
    assert done.status == 0 and io.read(tmp_path / "out.png").values.dtype == np.uint8
    [note] = done.err.splitlines()
    assert note.startswith(f"ddfnet: note: {depth}: 8-bit depth")


def test_a_folder_as_output_keeps_the_name(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path)
    (tmp_path / "out").mkdir()
    assert run(depth, "--guide", guide, "-o", tmp_path / "out", "--preview", tmp_path / "out").status == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["a-preview.png", "a.png"]  # noqa: PTH208


def test_what_exists_is_replaced_only_when_asked(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path)
    out = tmp_path / "out.png"
    out.write_bytes(b"precious")
    refused(run(depth, "--guide", guide, "-o", out), f"{out} exists; give --overwrite")
    assert out.read_bytes() == b"precious" and not calls
    assert run(depth, "--guide", guide, "-o", out, "--overwrite").status == 0
    assert io.read(out).values.shape == (24, 32)
    for source in (depth, guide):
        before = source.read_bytes()
        refused(run(depth, "--guide", guide, "-o", source, "--overwrite"), f"{source} would replace an input")
        assert source.read_bytes() == before
    refused(run(depth, "--guide", guide, "-o", tmp_path / "b.png", "--preview", tmp_path / "b.png"), "asked for twice")


def test_an_interrupt_leaves_nothing(tmp_path: Path, calls: list, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    depth, guide = pair(tmp_path)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)  # everything is written, but not yet under its name
    before = sorted(tmp_path.iterdir())
    assert run(depth, "--guide", guide, "-o", tmp_path / "out.png").status == 130
    assert sorted(tmp_path.iterdir()) == before


def test_a_preview_shows_all_six(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path)
    assert run(depth, "--guide", guide, "-o", tmp_path / "out.png", "--preview", tmp_path / "seen.png").status == 0
    with Image.open(tmp_path / "seen.png") as image:
        assert image.format == "PNG" and image.mode == "RGB"
        page = np.asarray(image)
    photograph = np.asarray(Image.open(guide).convert("RGB"))
    enlarged = np.kron(photograph, np.ones((23, 23, 1), np.uint8))  # 32 x 23 = 736 of at most 760
    assert (page[34 : 34 + len(enlarged), 14 : 14 + enlarged.shape[1]] == enlarged).all()
    assert page.shape[1] == 3 * 736 + 4 * 14
