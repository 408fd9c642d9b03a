"""Reading of files: whatever fails is one line with the file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from ddfnet.errors import DataError

_Read = TypeVar("_Read")
BROKEN = ": a broken or oversized file"


def read_file(path: Path, decode: Callable[[BinaryIO], _Read], *, broken: str = BROKEN) -> _Read:
    """Decode a file.

    Args:
        path: the file.
        decode: reader of its content.
        broken: as for `reading`.

    Raises:
        DataError: the file is missing, empty or no file, or decoding it fails, see `reading`.
    """
    with _open_file(path) as stream, reading(path, broken=broken):
        return decode(stream)


@contextmanager
def reading(name: str | Path, *, broken: str = BROKEN) -> Iterator[None]:
    """Make a `DataError` with the name of a file of every error in the block.

    Args:
        name: name of the file.
        broken: words between the name and the reason of a decoder that fails.

    Raises:
        DataError: ``NAME: REASON`` for a reason that the block gives, or for memory that is short; ``NAME`` with
            ``broken`` and the reason for any other error.

    Example:
        >>> with reading("a.png"):
        ...     raise OSError("broken data stream")
        Traceback (most recent call last):
        ...
        ddfnet.errors.DataError: a.png: a broken or oversized file: broken data stream
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {one_line(error)}") from None
    except MemoryError:
        mend = "close other programs, or crop it"
        raise DataError(f"{name}: reading it takes more memory than is free; {mend}") from None
    except Exception as error:  # decoders raise more kinds for broken files than they document
        raise DataError(f"{name}{broken}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """Return the text of an error in one line of at most 400 characters, all of them printable.

    Files have names in them, of channels for example, which may be anything.
    """
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:400]


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: a file is required, this is {'a folder' if path.is_dir() else 'a device'}")
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                raise DataError(f"{path}: the file is empty")
            yield stream
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
