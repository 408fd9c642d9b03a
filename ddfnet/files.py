"""Atomic file writes: a file is written completely or not at all, and what a killed process left is removed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_PART = re.compile(r"\.(.+)-([0-9]+)-([0-9]+)-[0-9a-f]{16}\.part")  # machine, process, its start, and random digits


@contextmanager
def atomic_open(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path``; it replaces ``path`` when the block succeeds, and vanishes when it fails.

    The new file keeps the permissions of the file that it replaces; otherwise it has those of any new file. A symbolic
    link stays, and its target is replaced. A device or a pipe cannot be replaced, so it is written to directly.

    Args:
        path: file to write; its folder must exist.

    Yields:
        Binary stream of the temporary file.

    Raises:
        OSError: ``cannot write PATH: reason``, in one line; the old file is unchanged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_open(Path(folder) / "a") as stream:
        ...         _ = stream.write(b"all of it")
        ...     (Path(folder) / "a").read_text()
        'all of it'
    """
    try:
        if path.is_dir():
            raise OSError("it is a folder")
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
            return
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise OSError(f"there is no folder {target.parent}")
        temporary = target.with_name(_part_name())
        try:
            with temporary.open("xb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            temporary.replace(target)
        finally:  # Ctrl-C too
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write ``content`` to a file with `atomic_open`; text is encoded as UTF-8."""
    with atomic_open(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def remove_dead_parts(folder: Path) -> None:
    """Remove the temporary files of `atomic_open` in a folder whose processes were killed.

    Those of a process that may be alive stay: of any on another machine that shares the folder, and of any from before
    this machine was started. Where the system does not tell its processes apart (all but Linux), all stay.
    """
    machine = _machine()
    if machine is None:
        return
    try:
        for entry in os.scandir(folder):
            found = _PART.fullmatch(entry.name)
            if found and found[1] == machine and not _is_alive(int(found[2]), found[3]):
                Path(entry).unlink(missing_ok=True)
    except OSError:  # there is no such folder, or its files are of another user
        pass


def _part_name() -> str:
    """Return a new name that says whose file it is."""
    process = os.getpid()
    return f".{_machine() or 'unknown'}-{process}-{_start_of(process) or 0}-{secrets.token_hex(8)}.part"


def _machine() -> str | None:
    """Return a name of what numbers processes: this machine since it was started, and the namespace of a container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None
    return f"{boot}-{namespace}"


def _start_of(process: int) -> str | None:
    """Return when a process was started, in ticks since the machine was, or None where that cannot be read."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # behind the program's name, which may be anything


def _is_alive(process: int, started: str) -> bool:
    """Return False where this process has ended for sure; another one may have its number by now."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user has it
        pass
    return _start_of(process) in (started, None)
