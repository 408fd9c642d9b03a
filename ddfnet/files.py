"""Atomic file writes: a file is written completely or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
        temporary = target.with_name(f".{secrets.token_hex(8)}.part")
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
