"""`ddfnet upsample` of folders: which files are a pair, several at a time, and what goes on where one fails."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from PIL import Image

from ddfnet.depth import io
from tests.upsampling import Run, arguments, depth_map, names, nearest, pair, refused


@pytest.mark.parametrize("jobs", [1, 3])
def test_folders_pair_by_stem(folder: Path, calls: list, run: Run, jobs: int) -> None:
    io.write(folder / "depth" / "e.npy", depth_map(dtype="float32"))
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

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", counts)
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

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", waits)
    assert run(*arguments(folder, "--jobs", 4)).status == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_rest_goes_on(folder: Path, calls: list, run: Run, jobs: int) -> None:
    depth, rgb = folder / "depth", folder / "rgb"
    (depth / "a.png").write_bytes(b"")
    io.write(depth / "b.png", depth_map((30, 40)))
    io.write(depth / "lonely.png", depth_map())
    Image.new("RGB", (32, 24)).save(rgb / "single.png")
    pair(folder, "twice")
    io.write(depth / "twice.npy", depth_map())
    done = run(*arguments(folder, "--jobs", jobs))
    assert done.status == 1 and done.out == f"2 of 7 written to {folder / 'out'}\n"
    assert names(folder / "out") == ["c.png", "d.png"]
    head, *lines = done.err.splitlines()
    assert head == "ddfnet: error: 5 of 7 failed:"
    expected = (
        f"{depth}/a.png: the file is empty",
        f"{depth}/lonely.png: there is no guide of the same name in {rgb}",
        f"{depth}/twice.npy: which depth map is meant? twice.png has the same name; take one away, or give --pairs",
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

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", fails_once)
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
    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", nearest)
    done = run(*arguments(folder))
    assert done.status == 130 and "of 5 written" in done.out
    assert all(io.read(path).values.shape == (24, 32) for path in (folder / "out").iterdir())
    assert f"{folder}/depth/0.png: there is no guide" in done.err


def test_notes_are_gathered(folder: Path, calls: list, run: Run) -> None:
    for name in "abcd":
        io.write(folder / "depth" / f"{name}.png", depth_map(dtype="uint8"))
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
    refused(
        run(depth, "--guide", folder / "nowhere", "-o", folder / "out"), folder / "nowhere", "no such file or folder"
    )
    refused(run(depth, "--guide", folder / "empty", "-o", folder / "out"), folder / "empty", "no images in this folder")
    refused(run(depth, "--guide", rgb, "-o", folder / "file"), folder / "file", "a folder is required")
    refused(run(depth, "--guide", rgb, "-o", depth, "--overwrite"), depth, "would replace inputs")
    refused(run(depth, "--guide", rgb, "-o", folder / "file" / "out"), folder / "file" / "out")
    refused(run(*arguments(folder, "--mask", folder / "nowhere")), folder / "nowhere", "no such file or folder")


def test_a_model_of_another_kind_is_named_once(folder: Path, run: Run) -> None:
    (folder / "m.safetensors").write_bytes(b"no weights")
    refused(run(*arguments(folder, "--model", folder / "m.safetensors")), f"--model {folder}/m.safetensors: ")


def test_results_that_would_replace_each_other_are_refused(tmp_path: Path, calls: list, run: Run) -> None:
    """Names collide: the preview of a has that of the result of a-preview."""
    for name in ("a", "a-preview"):
        pair(tmp_path, name)
    done = run(*arguments(tmp_path, "--preview", tmp_path / "out"))
    refused(done, "a-preview.png", "give --preview another folder")
    assert not calls
