"""`ddfnet upsample`: files in, files out, and one line for whatever is wrong; with a stand-in for the network."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("PIL")
pytest.importorskip("tqdm")
pytest.importorskip("safetensors")

import numpy as np
import torch
from PIL import Image

from ddfnet.cli import depth_job, depth_pairs, upsample
from ddfnet.cli import main as command_line
from ddfnet.cli.errors import UserError
from ddfnet.data import depth_files
from ddfnet.models import guided_files
from ddfnet.models.guided import GuidedUpsampler

Run = Callable[..., "Outcome"]
Outcome = SimpleNamespace  # status, out, err


def nearest(depth, guide, *, valid=None, ratio=None, offset=None, model="auto", tile=None, fill=False):
    """The stand-in: each pixel of the guide gets the sample of its block, 0 or nan where that is not valid."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(guide.shape, depth.shape, strict=False))
    missing = 0 if depth.dtype.kind in "iu" else np.nan
    return np.where(valid, depth, np.array(missing, depth.dtype))[rows[:, None], columns]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the stand-in was called with."""
    seen: list[dict[str, Any]] = []

    def recorded(depth, guide, **options):
        seen.append({"depth": depth, "guide": guide, **options})
        return nearest(depth, guide, **options)

    monkeypatch.setattr("ddfnet.depth.upsample_depth", recorded)
    return seen


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    parser = command_line._Parser(prog="ddfnet")
    upsample.add(parser.add_subparsers(required=True))
    monkeypatch.setattr(command_line, "_parser", lambda: parser)

    def run(*arguments: object) -> Outcome:
        status = command_line.main(["upsample", *map(str, arguments)])
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small network that was never trained: what is promised holds for it all the same."""
    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    guided_files.save(GuidedUpsampler(4, channels=4, guide_channels=4), path, {})
    return path


def depth_map(size: tuple[int, int] = (6, 8), dtype: str = "uint16") -> np.ndarray:
    return (np.arange(size[0] * size[1]).reshape(size) + 100).astype(dtype)


def pair(folder: Path, name: str = "a", ending: str = ".png", depth: np.ndarray | None = None) -> tuple[Path, Path]:
    """A depth map of 8 x 6 in depth/ and a photograph of 32 x 24 in rgb/."""
    paths = folder / "depth" / f"{name}{ending}", folder / "rgb" / f"{name}.jpg"
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    depth_files.write(paths[0], depth_map() if depth is None else depth)
    Image.effect_noise((32, 24), 60).convert("RGB").save(paths[1])
    return paths


def refused(outcome: Outcome, *said: object) -> None:
    """It ended with status 1 and one line that says this."""
    assert (outcome.status, outcome.out) == (1, "")
    [line] = outcome.err.splitlines()
    assert line.startswith("ddfnet: error: ")
    for part in said:
        assert str(part) in line


# --- one depth map ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [(".png", "uint16"), (".tif", "uint16"), (".tiff", "float32"), (".npy", "float64"), (".pfm", "float32")],
)
def test_type_and_unit_are_kept(tmp_path: Path, calls: list, run: Run, ending: str, dtype: str) -> None:
    values = depth_map(dtype=dtype)
    depth, guide = pair(tmp_path, ending=ending, depth=values)
    done = run(depth, "--guide", guide, "-o", tmp_path / f"out{ending}")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"{tmp_path / f'out{ending}'}: 32 x 24, {dtype}, in ")
    result = depth_files.read(tmp_path / f"out{ending}").values
    assert result.dtype == values.dtype and np.array_equal(result, np.kron(values, np.ones((4, 4), dtype)))


def test_options_reach_the_function(tmp_path: Path, calls: list, run: Run, network: Path) -> None:
    depth, guide = pair(tmp_path)
    assert run(depth, "--guide", guide, "-o", tmp_path / "a.png").status == 0
    chosen = ("--fill", "--offset", "1.5,2", "--tile", 256, "--model", network)
    assert run(depth, "--guide", guide, "-o", tmp_path / "b.png", *chosen).status == 0
    names = ("fill", "offset", "tile", "model")
    assert [calls[0][name] for name in names] == [False, None, None, "auto"]
    assert [calls[1][name] for name in names] == [True, (1.5, 2.0), 256, calls[1]["model"]]
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
        depth, "--guide", guide, "-o", out, "--invalid", -1, "--invalid", 9999.9, "--mask", tmp_path / "mask.npy"
    )
    assert done.status == 0 and np.array_equal(calls[0]["valid"], mask)
    assert done.err == f"ddfnet: note: {depth}: nan or inf counts as missing\n"
    assert "12.5% missing" in done.out  # 6 of 48
    assert np.isnan(depth_files.read(out).values).sum() == 6 * 16


def test_eight_bits_are_allowed_and_said(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path, depth=depth_map(dtype="uint8"))
    done = run(depth, "--guide", guide, "-o", tmp_path / "out.png")
    assert done.status == 0 and depth_files.read(tmp_path / "out.png").values.dtype == np.uint8
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
    assert depth_files.read(out).values.shape == (24, 32)
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


# --- bad input ----------------------------------------------------------------------------------------------


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
        (metres, photograph, "out.png", "PNG holds uint8 or uint16, the depth map is float32; use .tif"),
        (depth, guide, "out.pfm", "PFM holds float32"),
        (depth, guide, "out.jpg", "must end in .png"),
        (depth, guide, "nowhere/out.png", "there is no folder"),
    ):
        refused(run(source, "--guide", colours, "-o", tmp_path / name), tmp_path / name, said)
    refused(run(depth, "--guide", guide, "-o", tmp_path / "a.png", "--preview", tmp_path / "a.jpg"), "is a .png file")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)
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
    job = depth_pairs.Job(Path("d"), Path("g"), None, Path("o"), None)
    depth_job.check_sizes(job, small, large, stretch=False)


@pytest.mark.parametrize("small", [(93, 63), (60, 93), (66, 93), (63, 99), (125, 247)])
def test_sizes_that_do_not_fit(small: tuple[int, int]) -> None:
    job = depth_pairs.Job(Path("d"), Path("g"), None, Path("o"), None)
    with pytest.raises(UserError, match="aspect ratio is required; it is 741 x 500"):
        depth_job.check_sizes(job, small, (500, 741), stretch=False)
    depth_job.check_sizes(job, small, (500, 741), stretch=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("offset must be positive"), "a.png: offset must be positive"),
        (MemoryError(), "a.png: not enough memory; give a --tile"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "a.png: not enough memory"),
    ],
)
def test_errors_of_the_function(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "ddfnet.depth", SimpleNamespace(upsample_depth=fails))
    depth, guide = pair(tmp_path)
    refused(run(depth, "--guide", guide, "-o", tmp_path / "out.png"), said)


@pytest.mark.parametrize("text", ["", "1,2,3", "x", "nan", "1,inf"])
def test_offsets_that_are_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number, or two as Y,X"):
        upsample.numbers(text)
    assert upsample.numbers("3") == 3.0 and upsample.numbers("3,-1.5") == (3.0, -1.5)


# --- folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c", "d"):
        pair(tmp_path, name)
    return tmp_path


def arguments(folder: Path, *more: object) -> tuple[object, ...]:
    return folder / "depth", "--guide", folder / "rgb", "-o", folder / "out", *more


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("jobs", [1, 3])
def test_folders_pair_by_stem(folder: Path, calls: list, run: Run, jobs: int) -> None:
    depth_files.write(folder / "depth" / "e.npy", depth_map(dtype="float32"))
    Image.new("L", (32, 24)).save(folder / "rgb" / "e.webp")
    (folder / "depth" / "notes.txt").touch()
    (folder / "depth" / "._a.png").touch()
    done = run(*arguments(folder, "--jobs", jobs))
    assert (done.status, done.err) == (0, "") and done.out == f"5 of 5 written to {folder / 'out'}\n"
    assert names(folder / "out") == ["a.png", "b.png", "c.png", "d.png", "e.npy"]


def test_jobs_share_torchs_threads(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = torch.get_num_threads(), []

    def counts(depth, guide, **options):
        seen.append(torch.get_num_threads())
        return nearest(depth, guide, **options)

    monkeypatch.setitem(sys.modules, "ddfnet.depth", SimpleNamespace(upsample_depth=counts))
    torch.set_num_threads(6)
    try:
        assert run(*arguments(folder, "--jobs", 3)).status == 0
        assert seen == [2] * 4
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))  # a new thread has the default
        later.start()
        later.join()
        assert seen[-1] == torch.get_num_threads() == 6
    finally:
        torch.set_num_threads(before)


def test_jobs_run_at_the_same_time(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(4, timeout=60)

    def waits(depth, guide, **options):
        together.wait()
        return nearest(depth, guide, **options)

    monkeypatch.setitem(sys.modules, "ddfnet.depth", SimpleNamespace(upsample_depth=waits))
    assert run(*arguments(folder, "--jobs", 4)).status == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_rest_goes_on(folder: Path, calls: list, run: Run, jobs: int) -> None:
    depth, rgb = folder / "depth", folder / "rgb"
    (depth / "a.png").write_bytes(b"")
    depth_files.write(depth / "b.png", depth_map((30, 40)))
    depth_files.write(depth / "lonely.png", depth_map())
    Image.new("RGB", (32, 24)).save(rgb / "single.png")
    pair(folder, "twice")
    depth_files.write(depth / "twice.npy", depth_map())
    done = run(*arguments(folder, "--jobs", jobs))
    assert done.status == 1 and done.out == f"2 of 7 written to {folder / 'out'}\n"
    assert names(folder / "out") == ["c.png", "d.png"]
    head, *lines = done.err.splitlines()
    assert head == "ddfnet: error: 5 of 7 failed:"
    expected = (
        f"{depth}/a.png: the file is empty",
        f"{depth}/lonely.png: there is no guide of the same name in {rgb}",
        f"{depth}/twice.npy: which depth map is meant? twice.png has the same name; take one away",
        f"{rgb}/b.jpg: a guide at least as large as the depth map is required; it is 32 x 24, {depth}/b.png is 40 x 30",
        f"{rgb}/single.png: there is no depth map of the same name in {depth}",
    )
    assert lines == [f"  {line}" for line in expected]


def test_a_bug_in_one_is_not_the_end_of_all(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = iter(range(4))

    def fails_once(depth, guide, **options):
        if next(turn) == 1:
            raise KeyError("x")
        return nearest(depth, guide, **options)

    monkeypatch.setitem(sys.modules, "ddfnet.depth", SimpleNamespace(upsample_depth=fails_once))
    done = run(*arguments(folder))
    assert done.status == 1 and "3 of 4 written" in done.out
    assert "KeyError: 'x' (a bug: on this file alone the command shows where)" in done.err


def test_a_second_run_takes_up_where_the_first_stopped(folder: Path, calls: list, run: Run) -> None:
    assert run(*arguments(folder)).status == 0
    (folder / "out" / "b.png").unlink()
    done = run(*arguments(folder))
    assert done.out == f"1 of 4 written to {folder / 'out'}, 3 there already (--overwrite replaces them)\n"
    assert len(calls) == 5
    assert run(*arguments(folder, "--overwrite")).out == f"4 of 4 written to {folder / 'out'}\n"


def test_an_interrupt_keeps_what_is_whole(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "depth" / "0.png").touch()
    turn = iter(range(9))

    def interrupted(self: object, *_: object) -> None:
        if next(turn) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm.update", interrupted)
    monkeypatch.setitem(sys.modules, "ddfnet.depth", SimpleNamespace(upsample_depth=nearest))
    done = run(*arguments(folder))
    assert done.status == 130 and "of 5 written" in done.out
    assert all(depth_files.read(path).values.shape == (24, 32) for path in (folder / "out").iterdir())
    assert f"{folder}/depth/0.png: there is no guide" in done.err


def test_notes_are_gathered(folder: Path, calls: list, run: Run) -> None:
    for name in "abcd":
        depth_files.write(folder / "depth" / f"{name}.png", depth_map(dtype="uint8"))
    [note] = run(*arguments(folder)).err.splitlines()
    start = ", ".join(str(folder / "depth" / f"{name}.png") for name in "abc")
    assert note.startswith(f"ddfnet: note: {start} and 1 more: 8-bit depth")


def test_masks_and_previews_of_folders(folder: Path, calls: list, run: Run) -> None:
    (folder / "masks").mkdir()
    for name in "abc":
        Image.new("1", (8, 6), 1).save(folder / "masks" / f"{name}.png")
    done = run(*arguments(folder, "--mask", folder / "masks", "--preview", folder / "seen"))
    assert done.status == 1 and f"{folder}/depth/d.png: there is no mask of the same name" in done.err
    assert names(folder / "seen") == ["a-preview.png", "b-preview.png", "c-preview.png"]
    assert run(*arguments(folder, "--mask", folder / "masks" / "a.png")).status == 0  # one for all


def test_bad_folders(folder: Path, calls: list, run: Run) -> None:
    depth, rgb = folder / "depth", folder / "rgb"
    (folder / "empty").mkdir()
    (folder / "file").touch()
    refused(run(folder / "empty", "--guide", rgb, "-o", folder / "out"), folder / "empty", "no depth maps")
    refused(run(depth, "--guide", rgb / "a.jpg", "-o", folder / "out"), rgb / "a.jpg", "a folder is required")
    refused(run(depth, "--guide", rgb, "-o", folder / "file"), folder / "file", "a folder is required")
    refused(run(depth, "--guide", rgb, "-o", depth, "--overwrite"), depth, "would replace inputs")
    refused(run(depth, "--guide", rgb, "-o", folder / "file" / "out"), folder / "file" / "out")
    refused(run(*arguments(folder, "--mask", folder / "nowhere")), folder / "nowhere", "no such file or folder")


# --- the preview -------------------------------------------------------------------------------------------------


def test_a_preview_shows_all_six(tmp_path: Path, calls: list, run: Run) -> None:
    depth, guide = pair(tmp_path)
    assert run(depth, "--guide", guide, "-o", tmp_path / "out.png", "--preview", tmp_path / "seen.png").status == 0
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"
        page = np.asarray(picture)
    photograph = np.asarray(Image.open(guide).convert("RGB"))
    enlarged = np.kron(photograph, np.ones((23, 23, 1), np.uint8))  # 32 x 23 = 736 of at most 760
    assert (page[34 : 34 + len(enlarged), 14 : 14 + enlarged.shape[1]] == enlarged).all()
    assert page.shape[1] == 3 * 736 + 4 * 14


# --- with a network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ending", "dtype"), [(".png", "uint8"), (".png", "uint16"), (".tif", "float32")])
def test_a_network_keeps_the_range_and_the_type(
    tmp_path: Path, run: Run, network: Path, ending: str, dtype: str
) -> None:
    values = depth_map(dtype=dtype)
    values[2, 3] = 0
    depth, guide = pair(tmp_path, ending=ending, depth=values)
    more = ("--model", network, "--preview", tmp_path / "seen.png")
    done = run(depth, "--guide", guide, "-o", tmp_path / f"out{ending}", *more)
    assert done.status == 0, done.err
    result = depth_files.read(tmp_path / f"out{ending}").values
    assert result.shape == (24, 32) and result.dtype == dtype
    assert result.min() >= values[values > 0].min() and result.max() <= values.max()
    assert (tmp_path / "seen.png").stat().st_size > 1000


def test_jobs_do_not_change_the_results(folder: Path, run: Run, network: Path) -> None:
    for jobs in (1, 3):
        out = folder / str(jobs)
        assert run(*arguments(folder)[:3], "-o", out, "--jobs", jobs, "--model", network).status == 0
    for name in "abcd":
        first, second = (depth_files.read(folder / jobs / f"{name}.png").values for jobs in "13")
        assert np.array_equal(first, second)


def test_a_model_of_another_kind_is_named_once(folder: Path, run: Run) -> None:
    (folder / "m.safetensors").write_bytes(b"no weights")
    refused(run(*arguments(folder, "--model", folder / "m.safetensors")), f"--model {folder}/m.safetensors: ")


def test_results_that_would_replace_each_other_are_refused(tmp_path: Path, calls: list, run: Run) -> None:
    """The preview of a is called as the result of a-preview is."""
    for name in ("a", "a-preview"):
        pair(tmp_path, name)
    done = run(*arguments(tmp_path, "--preview", tmp_path / "out"))
    refused(done, "a-preview.png", "give --preview another folder")
    assert not calls
