"""`ddfnet upsample` says in one line what is wrong with its input, its output and its options."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddfnet.cli import upsample
from ddfnet.depth import batch, pairing
from ddfnet.errors import UserError
from tests.upsampling import Run, arguments, depth_map, pair, refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depth": np.zeros((6, 8), np.uint16)}, "depth/a.png: no valid pixel"),
        ({"depth": depth_map((30, 40))}, "rgb/a.jpg: a guide at least as large"),
        ({"depth": depth_map((6, 12))}, "rgb/a.jpg: a guide of the depth map's aspect ratio"),
        ({"depth": np.full((6, 8), np.nan, np.float32), "ending": ".tif"}, "depth/a.tif: no valid pixel"),
        (
            {"depth": depth_map(dtype="int32") - 101, "ending": ".npy"},
            "depth/a.npy: depth must not be negative, 1 pixels",
        ),
    ],
)
def test_bad_pairs(tmp_path: Path, calls: list, run: Run, change: dict[str, Any], said: str) -> None:
    depth, guide = pair(tmp_path, **change)
    out = tmp_path / f"out{depth.suffix}"
    refused(run(depth, "--guide", guide, "-o", out), tmp_path / said)
    assert not calls and not out.exists()


def test_bad_files(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path)
    out = ("-o", tmp_path / "out.png")
    colour, empty, nowhere = tmp_path / "colour.png", tmp_path / "empty.png", tmp_path / "nowhere.png"
    Image.new("RGB", (8, 6)).save(colour)
    empty.touch()
    for path, said in ((colour, "one channel"), (empty, "the file is empty"), (nowhere, "no such file")):
        refused(run(path, "--guide", guide, *out), path, said)
    for path in (empty, nowhere):
        refused(run(depth, "--guide", path, *out), path)
        refused(run(depth, "--guide", guide, *out, "--mask", path), path)
        refused(run(depth, "--guide", guide, *out, "--model", path), path)
    Image.new("L", (9, 6)).save(tmp_path / "mask.png")
    refused(
        run(depth, "--guide", guide, *out, "--mask", tmp_path / "mask.png"), "mask.png: the mask must have", "8 x 6"
    )
    refused(run(depth, "--guide", guide.parent, *out), guide.parent, "is a folder")
    assert not calls and not out[1].exists()


def test_bad_outputs(tmp_path: Path, calls: list, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    depth, guide = pair(tmp_path)
    metres, photograph = pair(tmp_path, "metres", ".tif", depth_map(dtype="float32"))
    for source, colours, name, said in (
        (metres, photograph, "out.png", "PNG holds uint8 or uint16, the depth map is float32; use .pfm, .tif"),
        (metres, photograph, "out.pgm", "PGM holds uint8 or uint16"),
        (depth, guide, "out.jpg", "must end in .png"),
        (depth, guide, "nowhere/out.png", "there is no folder"),
    ):
        refused(run(source, "--guide", colours, "-o", tmp_path / name), tmp_path / name, said)
    refused(run(depth, "--guide", guide, "-o", tmp_path / "a.png", "--preview", tmp_path / "a.jpg"), "is a .png file")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    refused(run(depth, "--guide", guide, "-o", tmp_path / "out.png"), tmp_path / "out.png", "Permission denied")
    assert not calls


@pytest.mark.parametrize(
    ("small", "large"),
    [
        ((6, 8), (24, 32)),
        *[(small, (500, 741)) for small in ((63, 93), (62, 92), (63, 92), (500, 741), (1, 1), (167, 247))],
        ((2, 20), (23, 160)),  # 8x, rounded down
        ((3, 20), (17, 160)),  # 8x, rounded up
    ],
)
def test_sizes_that_fit_by_rounding(small: tuple[int, int], large: tuple[int, int]) -> None:
    job = pairing.Job(Path("d"), Path("g"), None, Path("o"), None)
    notes: list[str] = []
    batch.check_sizes(job, small, large, notes, stretch=False)
    assert notes == []


@pytest.mark.parametrize("small", [(93, 63), (60, 93), (66, 93), (63, 99), (125, 247)])
def test_sizes_that_do_not_fit(small: tuple[int, int]) -> None:
    job = pairing.Job(Path("d"), Path("g"), None, Path("o"), None)
    with pytest.raises(UserError, match="aspect ratio is required; it is 741 x 500"):
        batch.check_sizes(job, small, (500, 741), [], stretch=False)
    batch.check_sizes(job, small, (500, 741), [], stretch=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("offset must be positive"), "a.png: offset must be positive"),
        (MemoryError(), "a.png: not enough memory; give --tile 512"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "a.png: not enough memory"),
    ],
)
def test_errors_of_the_function(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", fails)
    depth, guide = pair(tmp_path)
    refused(run(depth, "--guide", guide, "-o", tmp_path / "out.png"), said)


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ((), "give --tile 512"),
        (("--tile", 1024, "--jobs", 2), "give --tile 512"),
        (("--tile", 512, "--jobs", 2), "give fewer --jobs than 2"),
        (("--tile", 256), "the guide, the result and about 1 GiB are needed"),
    ],
)
def test_where_memory_is_short_what_helps_is_said(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, given: tuple[object, ...], mend: str
) -> None:
    def short(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", short)
    done = run(*arguments(folder, *given))
    assert done.status == 1 and done.err.count(f": not enough memory; {mend}") == 4


def test_tiles_are_not_advised_where_nothing_is_enlarged(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", short)
    values = np.full((24, 32), 1000, np.uint16)
    values[3:5, 7:9] = 0
    depth, guide = pair(tmp_path, depth=values)
    refused(
        run(depth, "--guide", guide, "-o", tmp_path / "out.png"), "not enough memory; filling takes several such maps"
    )


def test_a_file_that_memory_is_too_short_for_is_not_called_broken(
    folder: Path, calls: list, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddfnet.depth.io.pillow import Png

    def short(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Png, "read", short)
    done = run(*arguments(folder))
    said = [line.rpartition(".png: ")[2] for line in done.err.splitlines()[1:]]
    assert done.status == 1 and len(said) == 4
    assert all("memory" in line and not {"broken", "bug", "MemoryError"} & set(line.split()) for line in said)


def test_samples_beside_the_photograph(tmp_path: Path, run: Run, network: Path) -> None:
    depth, guide = pair(tmp_path)
    outcome = run(depth, "--guide", guide, "-o", tmp_path / "out.png", "--model", network, "--ratio", 8)
    refused(outcome, depth, "the guide's pixels 0 to 23, along y they put 6 on 3.5 to 43.5")
    assert not (tmp_path / "out.png").exists()


def test_a_preview_that_cannot_be_written_leaves_the_result(
    tmp_path: Path, calls: list, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Image.Image, *_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddfnet.depth.preview.preview", lambda *_, **__: Image.new("RGB", (1, 1)))
    depth, guide = pair(tmp_path, ending=".npy")
    monkeypatch.setattr(Image.Image, "save", full)
    out, seen = tmp_path / "out.npy", tmp_path / "seen.png"
    refused(run(depth, "--guide", guide, "-o", out, "--preview", seen), f"cannot write {seen}: No space left on device")
    assert out.exists() and not seen.exists()


@pytest.mark.parametrize(("given", "parsed"), [((), None), (("--fill",), "guided"), (("--fill", "nearest"), "nearest")])
def test_kinds_of_filling(tmp_path: Path, run: Run, given: tuple[str, ...], parsed: str | None) -> None:
    seen: list[batch.Settings] = []
    depth, guide = pair(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "upsample_files", lambda _, settings: seen.append(settings) or batch.Outcome("done"))
        assert run(depth, "--guide", guide, "-o", tmp_path / "out.png", *given).status == 0
    assert seen[0].fill == parsed


def test_a_file_behind_fill_is_no_kind_of_filling(tmp_path: Path, run: Run) -> None:
    depth, guide = pair(tmp_path)
    done = run("--fill", depth, "--guide", guide, "-o", tmp_path / "out.png")
    assert done.status == 2 and f"must be guided, nearest or none, got '{depth}'; " in done.err
    assert run("--fill=guided", depth, "--guide", guide, "-o", tmp_path / "out.jpg").status == 1


@pytest.mark.parametrize("text", ["", "1,2,3", "x", "nan", "1,inf"])
def test_offsets_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number, or two as Y,X"):
        upsample.numbers(text)
    assert upsample.numbers("3") == 3.0 and upsample.numbers("3,-1.5") == (3.0, -1.5)
