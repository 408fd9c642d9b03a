"""What a user can put right: said in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


class DataError(ValueError):
    """Data that is missing, empty or broken: which file or folder, why, and the mend, in one line.

    A DataLoader's worker hands on an error with its own traceback as the text; of that the line alone is kept.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line.rpartition(f"{type(self).__name__}: ")[2].strip())


class UserError(Exception):
    """Ends the command with this line on stderr and exit status 1."""


def require(extra: str, modules: Iterable[str]) -> None:
    """Refuse, and say what to install, where modules of an extra are missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise UserError(f"{', '.join(missing)} not installed; run: pip install 'ddfnet[{extra}]'")


def writable_folder(folder: Path) -> Path:
    """This folder, made if need be; refused now rather than after the work whose results should go there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".ddfnet-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to the folder {folder}: {error.strerror}") from None
    return folder


def writable_file(file: Path) -> Path:
    """This file, if it can be written to; refused now rather than after the work whose results should go there."""
    existed = file.exists()
    try:
        with file.open("a"):
            pass
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}") from None
    if not existed:
        file.unlink()
    elif file.is_file():
        writable_folder(file.resolve().parent)  # in which `ddfnet.files.whole` writes the one that takes its place
    return file
