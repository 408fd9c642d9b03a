"""`ddfnet scenes render`: a folder of rendered rooms, made once, and what can go wrong meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("embreex")
pytest.importorskip("trimesh")
pytest.importorskip("cv2")
pytest.importorskip("skimage")

from ddfnet.cli.main import main
from ddfnet.data.depth import folder as folders
from ddfnet.data.depth.rooms import rendered
from ddfnet.data.depth.rooms.render import Rendered
from ddfnet.data.depth.rooms.windows import RoomWindows
from tests.furniture_catalogues import write_catalogue

Fails = Callable[..., str]


@pytest.fixture
def furniture(tmp_path: Path) -> Path:
    folder = tmp_path / "furniture"
    folder.mkdir()
    write_catalogue(folder / "a.sh3f")
    return folder


def arguments(output: Path, furniture: Path, *others: str, count: int = 2) -> tuple[str, ...]:
    return (
        *("scenes", "render", "--count", str(count), "--size", "96x64", "--output", str(output)),
        *("--furniture", str(furniture), *others),
    )


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_scenes_are_rendered_and_read_as_a_folder(
    tmp_path: Path, furniture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(arguments(output, furniture)) == 0
    assert capsys.readouterr().out == f"{output}: 2 scenes, 5 models; 0 skipped, see scenes.json\n"
    scenes = folders.load(output, "mm")
    assert [scene.name for scene in scenes] == ["000000", "000001"]
    for scene in scenes:
        assert scene.size == (64, 96)
        assert scene.valid.all()
        assert 300 < scene.depth.min() < scene.depth.max() < 12000
    facts = json.loads((output / "scenes.json").read_text())
    assert facts["size"] == [96, 64] and facts["seed"] == 0
    assert "Test#table (Table), A. Maker, CC-BY-3.0" in facts["models"]
    assert RoomWindows(output, 3, 48)[2]["guide"].shape == (3, 48, 48)


def test_several_processes_make_the_same_files(tmp_path: Path, furniture: Path) -> None:
    assert main(arguments(tmp_path / "one", furniture)) == 0
    assert main(arguments(tmp_path / "two", furniture, "--jobs", "2")) == 0
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_folder_is_continued(tmp_path: Path, furniture: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "out"
    assert main(arguments(whole, furniture, count=3)) == 0
    assert main(arguments(output, furniture, count=1)) == 0
    kept = output / "depth" / "000000.png"
    os.utime(kept, (1, 1))
    assert main(arguments(output, furniture, count=3)) == 0
    assert kept.stat().st_mtime == 1
    (output / "depth" / "000001.png").unlink()
    assert main(arguments(output, furniture, count=3)) == 0
    assert files(output) == files(whole)


def test_scenes_of_another_seed_are_not_mixed(tmp_path: Path, furniture: Path, fails: Fails) -> None:
    output = tmp_path / "out"
    assert main(arguments(output, furniture, count=1)) == 0
    line = fails(1, *arguments(output, furniture, "--seed", "1", count=1))
    assert line == f"ddfnet: error: {output} has rooms with other seed; choose another folder, or take it away"


def test_a_broken_model_is_skipped_named_and_counted(
    tmp_path: Path, furniture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_catalogue(furniture / "a.sh3f", files={"test/shelves/box.obj": "nothing"})
    output = tmp_path / "out"
    assert main(arguments(output, furniture, count=4)) == 0
    assert capsys.readouterr().out == f"{output}: 4 scenes, 5 models; 1 skipped, see scenes.json\n"
    skipped = json.loads((output / "scenes.json").read_text())["skipped"]
    assert skipped.keys() == {"Test#shelves"}
    assert "it has no face that can be seen" in skipped["Test#shelves"]


def test_missing_furniture(tmp_path: Path, fails: Fails) -> None:
    line = fails(1, *arguments(tmp_path / "out", tmp_path / "none"))
    assert line == (
        f"ddfnet: error: {tmp_path / 'none'}: furniture catalogues (*.sh3f) are required there, got none; run: apt-get "
        "install sweethome3d-furniture, or name a folder that has them"
    )


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_missing_photographs(tmp_path: Path, furniture: Path, fails: Fails, jobs: str) -> None:
    options = ("--photographs", str(tmp_path / "none"), "--jobs", jobs)
    line = fails(1, *arguments(tmp_path / "out", furniture, *options))
    assert line == f"ddfnet: error: {tmp_path / 'none'}: no such photograph or folder of photographs"
    assert not (tmp_path / "out").exists()


def test_a_full_disk(tmp_path: Path, furniture: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    write, output = rendered.atomic_write, tmp_path / "out"

    def full(file: Path, content: bytes) -> None:
        if file.name == "000001.png":
            raise OSError(f"cannot write {file}: No space left on device")
        write(file, content)

    monkeypatch.setattr(rendered, "atomic_write", full)
    line = fails(1, *arguments(output, furniture))
    assert line == (
        f"ddfnet: error: cannot write {output}/depth/000001.png: No space left on device; free some space and run the "
        "command again: it continues where it ended"
    )
    monkeypatch.undo()
    assert main(arguments(output, furniture)) == 0
    assert len(files(output)) == 5


def test_a_missing_library(tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddfnet.cli.scenes._MODULES", ("embreex", "no_such_library"))
    line = fails(1, *arguments(tmp_path / "out", tmp_path))
    assert line == "ddfnet: error: no_such_library not installed; run: pip install 'ddfnet[rooms]'"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "640"], "argument --size: width x height, 32 to 4096 pixels each, as 640x480, got '640'"),
        (["--size", "640x10"], "argument --size: width x height, 32 to 4096 pixels each, as 640x480, got '640x10'"),
        (["--seed", "-1"], "argument --seed: must be a whole number from 0 to 4294967295, got '-1'"),
        (["--seed", "x"], "argument --seed: must be a whole number from 0 to 4294967295, got 'x'"),
        (["--jobs", "0"], "argument --jobs: must be a whole number from 1 on, got '0'"),
    ],
)
def test_wrong_usage(tmp_path: Path, fails: Fails, options: list[str], message: str) -> None:
    assert message in fails(2, *arguments(tmp_path / "out", tmp_path, *options))


def test_depth_is_rounded_to_millimetres(tmp_path: Path) -> None:
    for name in ("rgb", "depth"):
        (tmp_path / name).mkdir()
    depth = np.linspace(0.5, 9, 12, dtype=np.float32).reshape(3, 4)
    rendered.save(tmp_path, 5, Rendered(np.zeros((3, 4, 3), np.uint8), depth, 90))
    assert files(tmp_path).keys() == {"rgb/000005.jpg", "depth/000005.png"}
    [scene] = folders.load(tmp_path)
    assert np.abs(scene.depth.numpy() / 1000 - depth).max() <= 0.000501


def test_a_broken_list_of_facts(tmp_path: Path, furniture: Path, fails: Fails) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "scenes.json").write_text("[]")
    line = fails(1, *arguments(output, furniture))
    assert line.startswith(f"ddfnet: error: {output}/scenes.json: cannot be read: ")
