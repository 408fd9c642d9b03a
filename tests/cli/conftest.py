from __future__ import annotations

from collections.abc import Callable

import pytest

from ddfnet.cli.main import main


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line on stderr of a command that must end with this status: ``fails(1, "demo", ...)``."""

    def run(status: int, *arguments: str) -> str:
        assert main(arguments) == status
        captured = capsys.readouterr()
        [line] = captured.err.splitlines()
        return line

    return run
