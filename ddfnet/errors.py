"""Errors that a user can mend: one line, without a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from ddfnet.files import remove_dead_parts


class DataError(ValueError):
    """Missing, empty or broken data: the file or folder, the reason and the mend, in one line.

    A DataLoader's worker passes an error on with its own traceback as the text; only the line itself is kept. A name of
    a file in it may have line breaks, which become blanks.
    """

    def __init__(self, line: str) -> None:
        super().__init__(" ".join(line.rpartition(f"{type(self).__name__}: ")[2].strip().splitlines()))


class UserError(Exception):
    """Error that ends a command: its line goes to stderr, and the exit status is 1."""


def listed(words: Sequence[str]) -> str:
    """Return words as "a, b or c"."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def require(extra: str, modules: Iterable[str]) -> None:
    """Raise a UserError that says what to install if modules of an extra are missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not installed; run: pip install 'ddfnet[{extra}]'")


def keep_inputs(output: Path, inputs: Iterable[str | Path | None]) -> Path:
    """Return ``output``; raise a UserError if it is one of the files that a command reads, by whatever path or link."""
    for file in inputs:
        if file is not None and _same_file(output, Path(file)):
            raise UserError(f"{output} would replace an input; write to another name")
    return output


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except (OSError, ValueError):  # one of them is not there, or is no name of a file
        return False


def writable_folder(folder: Path) -> Path:
    """Return ``folder``, created if needed; raise a UserError now if results could not be written to it later.

    What killed processes left there of their atomic writes is removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_nothing(folder)
    except OSError as error:
        raise UserError(f"cannot write to the folder {folder}: {error.strerror}") from None
    remove_dead_parts(folder)
    return folder


def writable_file(file: Path) -> Path:
    """Return ``file``; raise a UserError now if results could not be written to it later.

    A file that is not there is not made even for a moment: another process may be about to write it.
    """
    try:
        if file.exists():
            with file.open("a"):
                pass
            if not file.is_file():
                return file
        elif not (parent := file.resolve().parent).is_dir():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {parent}")
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    writable_folder(file.resolve().parent)  # `ddfnet.files.atomic_open` writes its temporary file there
    return file


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is short, that of a GPU included."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # Torch has no class of its own for it on the CPU.
    words = ("allocate memory", "out of memory", "bad_alloc")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error) for each in words)
    )


def _write_nothing(folder: Path) -> None:
    """Make a file that has no name where the system allows that, so that no other process meets it."""
    import tempfile

    with tempfile.TemporaryFile(dir=folder):
        pass
