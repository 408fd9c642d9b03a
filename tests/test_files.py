"""Atomic file writes: the old file survives whatever stops the writing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddfnet import files

FULL = OSError(28, "No space left on device")


def message(path: Path) -> str:
    """Return the error, without its beginning, for a file that cannot be written."""
    with pytest.raises(OSError) as raised:
        files.atomic_write(path, "new")
    text = str(raised.value)
    assert text.startswith(f"cannot write {path}: ") and "\n" not in text
    return text.removeprefix(f"cannot write {path}: ")


def test_the_name_is_taken_only_at_the_end(tmp_path: Path) -> None:
    with files.atomic_open(tmp_path / "a.bin") as stream:
        stream.write(b"part")
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"part" and len(list(tmp_path.iterdir())) == 1


def test_text_is_utf_8_and_bytes_are_as_they_are(tmp_path: Path) -> None:
    files.atomic_write(tmp_path / "a", "1 ± 2\n")
    files.atomic_write(tmp_path / "b", "1 ± 2\n".encode())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"1 \xc2\xb1 2\n"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ValueError("a bug"), FULL], ids=repr)
def test_a_block_that_stops_leaves_what_was_there(tmp_path: Path, stop: BaseException) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(type(stop)), files.atomic_open(tmp_path / "a") as stream:
        stream.write(b"half of it")
        raise stop
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("exists", [True, False])
def test_a_disk_that_is_full_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    def full(_: int) -> None:
        raise FULL

    if exists:
        (tmp_path / "a").write_text("old")
    monkeypatch.setattr(os, "fsync", full)  # where the system tells of what it has only promised to write
    assert message(tmp_path / "a") == "No space left on device"
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"] * exists


def test_what_cannot_be_written(tmp_path: Path) -> None:
    assert message(tmp_path / "nowhere" / "a") == f"there is no folder {tmp_path / 'nowhere'}"
    assert "name too long" in message(tmp_path / ("a" * 300))
    (tmp_path / "folder").mkdir()
    assert message(tmp_path / "folder") == "it is a folder"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "there" / "b")
    files.atomic_write(tmp_path / "a", "all of it")
    assert (tmp_path / "a").is_symlink() and (tmp_path / "there" / "b").read_text() == "all of it"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="files of Unix")
def test_a_device_is_written_to_and_stays() -> None:
    files.atomic_write(Path(os.devnull), "anything")
    assert Path(os.devnull).is_char_device()


@pytest.mark.skipif(os.name != "posix", reason="permissions of Unix")
@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_permissions_are_those_of_any_new_file_or_of_the_one_before(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.atomic_write(tmp_path / "new", "")
        (tmp_path / "private").touch(0o600)
        files.atomic_write(tmp_path / "private", "")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
