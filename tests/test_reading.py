"""Reading of files: whatever fails is one line with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddfnet.errors import DataError
from ddfnet.reading import read_file, reading


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path, said in (
        (tmp_path / "missing", "cannot be read: No such file or directory"),
        (tmp_path / "empty", "the file is empty"),
        (tmp_path, "a file is required, this is a folder"),
        (Path("/dev/null"), "a file is required, this is a device"),
        (tmp_path / ("a" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(DataError) as raised:
            read_file(path, lambda stream: stream.read())
        assert str(raised.value) == f"{path}: {said}"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("of no use"), "a: of no use"),
        (IndexError("out\nof range"), "a: a broken or oversized file: out of range"),
        (ValueError("a\x1b[31m\x07"), "a: a broken or oversized file: a?[31m?"),
        (KeyError(), "a: a broken or oversized file: KeyError"),
        (OSError("x" * 999), f"a: a broken or oversized file: {'x' * 400}"),
        (MemoryError("1 TiB"), "a: reading it takes more memory than is free; close other programs, or crop it"),
    ],
)
def test_what_is_said_of_an_error(error: Exception, said: str) -> None:
    with pytest.raises(DataError) as raised, reading("a"):
        raise error
    assert str(raised.value) == said
    with pytest.raises(KeyboardInterrupt), reading("a"):
        raise KeyboardInterrupt
