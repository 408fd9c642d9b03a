"""Checks that a command makes before it begins, so that no work is lost at its end."""

from __future__ import annotations

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
    monkeypatch.setattr(Path, "touch", denied)
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
