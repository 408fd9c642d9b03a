"""Atomic file writes: the old file survives whatever stops the writing."""

from __future__ import annotations

import multiprocessing
import os
import sys
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


# --- what killed processes leave ------------------------------------------------------------------------------------

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell their processes apart")


def _die_while_writing(path: Path) -> None:
    with files.atomic_open(path) as stream:
        stream.write(b"half of it")
        stream.flush()
        os._exit(1)


def left_by_a_dead_process(folder: Path) -> Path:
    """Return the part that a process left whose end nothing could be done at."""
    process = multiprocessing.get_context("fork").Process(target=_die_while_writing, args=(folder / "a",))
    process.start()
    process.join()
    [part] = folder.iterdir()
    return part


@linux
def test_parts_of_dead_processes_are_removed(tmp_path: Path) -> None:
    part = left_by_a_dead_process(tmp_path)
    (tmp_path / "mine.part").touch()
    (tmp_path / ".0123456789abcdef.part").touch()  # an earlier version did not say whose it is
    files.remove_dead_parts(tmp_path)
    assert not part.exists() and len(list(tmp_path.iterdir())) == 2


@linux
def test_parts_of_living_processes_stay(tmp_path: Path) -> None:
    with files.atomic_open(tmp_path / "a") as stream:
        stream.write(b"all of it")
        files.remove_dead_parts(tmp_path)
    assert (tmp_path / "a").read_bytes() == b"all of it"


@linux
def test_parts_of_another_machine_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes have numbers that none has here, or another one."""
    part = left_by_a_dead_process(tmp_path)
    for other in ("another-4026531836", None):
        monkeypatch.setattr(files, "_machine", lambda other=other: other)
        files.remove_dead_parts(tmp_path)
        assert part.exists()


@linux
def test_the_number_of_a_dead_process_can_be_that_of_a_living_one(tmp_path: Path) -> None:
    own = files._part_name()
    _, process, started = files._PART.fullmatch(own).groups()  # type: ignore[union-attr]
    older = tmp_path / own.replace(f"-{process}-{started}-", f"-{process}-{int(started) - 1}-")
    (tmp_path / own).touch()
    older.touch()
    files.remove_dead_parts(tmp_path)
    assert (tmp_path / own).exists() and not older.exists()


def test_a_folder_that_is_not_there_has_no_parts(tmp_path: Path) -> None:
    files.remove_dead_parts(tmp_path / "nowhere")


def test_a_name_says_whose_part_it_is_and_no_two_are_the_same() -> None:
    names = {files._part_name() for _ in range(100)}
    assert len(names) == 100 and all(f"-{os.getpid()}-" in name for name in names)
