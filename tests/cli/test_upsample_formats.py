"""Registry of depth file formats: the docs, the help and the command line take from it what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

pytest.importorskip("PIL")

import numpy as np

from ddfnet.cli.main import main
from ddfnet.depth import io
from ddfnet.depth.io import FORMATS, DepthFormat, formats, register_format
from ddfnet.depth.io.registry import NUMBERS
from ddfnet.errors import DataError
from tests.upsampling import depth_map, pair

GUIDE = Path(__file__).parents[2] / "docs" / "guided.md"
OWN = [format for format in formats() if type(format).__module__.startswith(io.__name__)]


@pytest.fixture
def text() -> Iterator[type[DepthFormat]]:
    """Register a format of text files."""

    @register_format
    class Text(DepthFormat):
        name, suffixes, dtypes, description = "text", (".txt", ".asc"), ("float64",), "rows of numbers"

        def read(self, stream: BinaryIO) -> Any:
            if stream.read(1) == b"#":
                raise DataError("comments are not read")
            stream.seek(0)
            return np.loadtxt(stream, ndmin=2)

        def write(self, stream: BinaryIO, values: Any) -> None:
            np.savetxt(stream, values)

    yield Text
    for suffix in Text.suffixes:
        del FORMATS[suffix]


def row(format: DepthFormat) -> str:
    """Return a format's row of the docs' table."""
    types = "all" if format.dtypes == NUMBERS else ", ".join(format.dtypes)
    readers = [
        program if read == format.dtypes else f"{program} ({different(read, format.dtypes)})"
        for program, read in format.programs.items()
    ]
    extra = format.package[1] if format.package else "upsample"
    suffixes = ", ".join(f"`{each}`" for each in format.suffixes)
    cells = (format.name, suffixes, types, format.description, ", ".join(readers) or "-", f"`{extra}`")
    return f"| {' | '.join(cells)} |"


def different(some: tuple[str, ...], types: tuple[str, ...]) -> str:
    left_out = [name for name in types if name not in some]
    return f"not {', '.join(left_out)}" if len(left_out) < len(some) else ", ".join(some)


def test_the_docs_table_is_the_registry() -> None:
    head = "| format | suffixes | types | read | read back by | extra |\n|---|---|---|---|---|---|\n"
    _, _, table = GUIDE.read_text().partition(head)
    assert table.partition("\n\n")[0].splitlines() == [row(format) for format in OWN]
    assert f"*All* is {', '.join(NUMBERS)}." in " ".join(GUIDE.read_text().split())


def test_the_help_names_every_format(text: type[DepthFormat], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upsample", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for format in formats():
        assert f"{format.name} ({format.description})" in said
    assert "text (rows of numbers)" in said


@pytest.mark.parametrize("format", OWN, ids=lambda format: format.name)
def test_every_type_of_a_format_comes_back(tmp_path: Path, format: DepthFormat) -> None:
    if format.package:
        pytest.importorskip(format.package[0])
    for suffix in format.suffixes:
        for dtype in format.dtypes:
            path = tmp_path / f"{dtype}{suffix}"
            values = np.arange(35).reshape(7, 5).astype(dtype)
            io.write(path, values)
            found = io.read(path)
            assert found.format == format.name
            assert found.values.dtype == dtype and np.array_equal(found.values, values)


def test_a_new_format_is_read_checked_and_written(tmp_path: Path, text: type[DepthFormat]) -> None:
    path = tmp_path / "a.TXT"
    io.write(path, depth_map(dtype="float64"))
    assert np.array_equal(io.read(path).values, depth_map(dtype="float64"))
    assert np.array_equal(io.read_mask(path), depth_map() != 0)
    with pytest.raises(
        DataError, match=r"holds uint8 or uint16, the depth map is float64; use .tif, .npy, .npz, .h5 or .txt$"
    ):
        io.check_holds("a.png", "float64")
    with pytest.raises(
        DataError, match=r"holds float64, the depth map is uint16; use .png, .tif, .npy, .npz, .pgm or .h5$"
    ):
        io.check_holds("a.asc", "uint16")
    for content, said in ((b"", "the file is empty"), (b"# 1", "comments are not read"), (b"1 2\n3", "a broken or")):
        path.write_bytes(content)
        with pytest.raises(DataError) as raised:
            io.read(path)
        assert str(raised.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize("values", [np.zeros((2, 3, 2)), np.zeros((0, 3)), np.zeros((2, 2), complex)])
def test_no_format_gives_the_tool_another_kind_of_array(
    tmp_path: Path, text: type[DepthFormat], monkeypatch: pytest.MonkeyPatch, values: Any
) -> None:
    monkeypatch.setattr(text, "read", lambda self, stream: values)
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(DataError, match=r"a\.txt: a depth map must be "):
        io.read(tmp_path / "a.txt")


def test_the_command_takes_a_new_format(tmp_path: Path, text: type[DepthFormat], calls: list, run: Any) -> None:
    values = depth_map(dtype="float64")
    depth, guide = pair(tmp_path, ending=".txt", depth=values)
    assert run(depth, "--guide", guide, "-o", tmp_path / "out.asc").status == 0
    assert np.array_equal(io.read(tmp_path / "out.asc").values, np.kron(values, np.ones((4, 4))))
    assert run(depth.parent, "--guide", guide.parent, "-o", tmp_path / "out").status == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("suffix", "said"), [(".png", "the suffix .png is taken by PNG"), ("txt", "with a dot"), (".TXT", "lower case")]
)
def test_suffixes_that_are_refused(suffix: str, said: str) -> None:
    before = dict(FORMATS)
    with pytest.raises(ValueError, match=said):
        register_format(type("Other", (type(FORMATS[".npy"]),), {"suffixes": (".abc", suffix)}))
    assert before == FORMATS
