"""Checks that a command makes before it begins, so that no work is lost at its end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ddfnet.errors import UserError, keep_inputs, writable_file


def test_trying_a_file_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    assert writable_file(tmp_path / "old").read_text() == "old"
    assert not writable_file(tmp_path / "new").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_file_is_written_beside_itself_and_its_folder_must_allow_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "old").touch()
    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(UserError, match=f"cannot write to the folder {tmp_path}: Permission denied"):
        writable_file(tmp_path / "old")


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard", "dots"])
def test_a_result_that_is_an_input_by_any_path_is_refused(tmp_path: Path, link: str) -> None:
    file, other = tmp_path / "input", tmp_path / "other"
    file.write_text("input")
    if link == "symbolic":
        other.symlink_to(file)
    elif link == "hard":
        other.hardlink_to(file)
    elif link == "dots":
        other = tmp_path / ".." / tmp_path.name / "input"
    output = file if link == "itself" else other
    with pytest.raises(UserError, match="would replace an input; write to another name"):
        keep_inputs(output, [None, tmp_path / "no such file", file])


def test_a_result_that_is_no_input_is_returned(tmp_path: Path) -> None:
    for name in ("input", "old"):
        (tmp_path / name).touch()
    inputs = [tmp_path / "input", tmp_path / "none", None, "resnet18", "x" * 5000, "\0"]
    assert keep_inputs(tmp_path / "old", inputs) == tmp_path / "old"
    assert keep_inputs(tmp_path / "new", inputs) == tmp_path / "new"


def test_a_file_that_cannot_be_is_refused_and_none_is_made(tmp_path: Path) -> None:
    for name, said in (("no/new", "there is no folder"), ("a" * 300, "name too long"), ("folder", "Is a directory")):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(UserError, match=said):
            writable_file(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_many_processes_can_try_one_new_folder_and_file_at_once(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nsys.modules['ddfnet_command'] = None\n"  # without torch
        "from ddfnet.errors import writable_file, writable_folder\nsys.stdin.read()\n"
        "for i in range(200):\n"
        "    folder = writable_folder(Path(sys.argv[1]) / str(i) / 'new')\n"
        "    writable_file(folder / 'a')\n"
    )
    call = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(call, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for process in started:
        process.stdin.close()  # type: ignore[union-attr]
    assert [process.stderr.read() for process in started] == [""] * 4  # type: ignore[union-attr]
    assert [process.wait() for process in started] == [0] * 4
    assert not list(tmp_path.glob("*/new/*")) and len(list(tmp_path.iterdir())) == 200
