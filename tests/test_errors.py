"""Checks that a command makes before it begins, so that no work is lost at its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddfnet.errors import UserError, writable_file


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
