from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from ddfnet.cli import main as command_line
from ddfnet.cli.main import main
from tests.stderr import lines

if TYPE_CHECKING:
    from tests.upsampling import Outcome, Run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with this status, and return its one line on stderr: ``fails(1, "demo", ...)``."""

    def run(status: int, *arguments: str) -> str:
        assert main(arguments) == status
        captured = capsys.readouterr()
        [line] = lines(captured.err)
        return line

    return run


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the first checkpoint of a run and its copy, and part of the next."""
    import torch

    save, calls = torch.save, count(1)

    class Full:
        """A file on a disk that has room for some bytes more."""

        def __init__(self, stream: BinaryIO) -> None:
            self.stream, self.room = stream, 4096

        def write(self, data: bytes) -> int:
            self.room -= len(data)
            if self.room < 0:
                raise OSError(28, "No space left on device")
            return self.stream.write(data)

        def flush(self) -> None:
            self.stream.flush()

    monkeypatch.setattr(torch, "save", lambda each, to: save(each, to if next(calls) <= 2 else Full(to)))


# --- ddfnet upsample ------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the arguments of the calls of the stand-in for the network."""
    from tests.upsampling import nearest

    seen: list[dict[str, Any]] = []

    def recorded(depth, guide, **options):
        seen.append({"depth": depth, "guide": guide, **options})
        return nearest(depth, guide, **options)

    monkeypatch.setattr("ddfnet.depth.upsample.upsample_depth", recorded)
    return seen


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs ``ddfnet upsample`` with its arguments."""
    from ddfnet.cli import upsample

    parser = command_line._Parser(prog="ddfnet")
    upsample.add(parser.add_subparsers(required=True))
    monkeypatch.setattr(command_line, "_parser", lambda command: parser)

    def run(*arguments: object) -> Outcome:
        status = main(["upsample", *map(str, arguments)])
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a small network that was never trained: the promises hold for it all the same."""
    from ddfnet.depth.network import GuidedUpsampler
    from ddfnet.pretrained import save

    path = tmp_path_factory.mktemp("network") / "small.safetensors"
    save(GuidedUpsampler(4, channels=4, guide_channels=4), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with four pairs, a to d."""
    from tests.upsampling import pair

    for name in ("a", "b", "c", "d"):
        pair(tmp_path, name)
    return tmp_path
