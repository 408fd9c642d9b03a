"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A stream to a temporary file beside ``path``, which takes its place when the block ends well and else vanishes.

    The file has the permissions of the one that it replaces, or those of any new file. A link stays, and what it points
    to is replaced. A device or a pipe, which nothing can take the place of, is written to directly.

    Args:
        path: of the file; its folder must exist.

    Yields:
        The stream, of bytes.

    Raises:
        OSError: ``cannot write PATH: why``, in one line; the file is as it was.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole(Path(folder) / "a") as stream:
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


def write(path: Path, content: str | bytes) -> None:
    """Write a file of this content, text as UTF-8, as `whole` does."""
    with whole(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)
