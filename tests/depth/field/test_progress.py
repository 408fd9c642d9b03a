"""Progress of a single map: by tiles, on a terminal, from the second second on."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest

from ddfnet.depth import progress
from tests.cli.conftest import network
from tests.upsampling import Run, pair

__all__ = ["network"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(tmp_path: Path, run: Run, network: Path, monkeypatch: pytest.MonkeyPatch):
    def shown(stream: io.StringIO, seconds: float) -> str:
        monkeypatch.setattr(progress, "_SECONDS", seconds)
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr("tqdm.std.TMonitor", None, raising=False)
        depth, guide = pair(tmp_path)
        out = tmp_path / "out.png"
        status = run(depth, "--guide", guide, "-o", out, "--model", network, "--tile", 8, "--overwrite").status
        assert status == 0
        return stream.getvalue()

    return shown


def test_tiles_of_all_passes_are_shown(shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of 8 x 6 samples in tiles of two by two has 12, for the maps and for the maps transposed."""
    from tqdm import tqdm

    monkeypatch.setattr(tqdm, "__init__", _eager(tqdm.__init__))
    text = shown(Terminal(), 1e-9)
    assert "1/24" in text and "24/24" in text


def test_nothing_is_shown_of_a_short_run(shown) -> None:
    assert shown(Terminal(), 2.0) == ""


def test_nothing_is_shown_without_a_terminal(shown) -> None:
    assert shown(io.StringIO(), 1e-9) == ""


def test_without_a_bar_the_items_are_as_they_were() -> None:
    items = [1, 2]
    assert progress.track(items) is items
    assert np.iterable(items)


def _eager(plain):
    """Make a bar show each step, however little time it took."""

    def init(self, *arguments, **options):
        plain(self, *arguments, mininterval=0, miniters=1, **options)

    return init
