"""Start of `ddfnet upsample`: wrong arguments, files and pairs are found before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ddfnet.cli._common import SUMMARIES
from ddfnet.cli.main import main
from tests.upsampling import pair

HEAVY = ("torch", "scipy", "safetensors", "numpy", "tqdm", "PIL", "ddfnet.ops", "ddfnet.tasks")
SECONDS = 0.3  # processor time, for everything


def start(*arguments: object) -> tuple[int, str, list[str], float]:
    """Run the command in a new process: its status, its last line, heavy modules, and the processor's seconds."""
    code = (
        "import os, sys\n"
        "from ddfnet_command import main\n"
        "status = main()\n"
        f"print(status, sum(os.times()[:2]), *sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    status, seconds, *modules = done.stdout.splitlines()[-1].split()
    return int(status), done.stderr.strip(), modules, float(seconds)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--help",), 0, ""),
        (("fly",), 2, "invalid choice: 'fly'"),
        (("upsample", "--help"), 0, ""),
        (("upsample", "depth", "--tile", "0"), 2, "argument --tile: must be a whole number from 1 on, got '0'"),
        (
            ("upsample", "nowhere.png", "--guide", "rgb/a.jpg", "-o", "out.png"),
            1,
            "nowhere.png: no such file or folder",
        ),
        (("upsample", "depth/a.png", "--guide", "nowhere.jpg", "-o", "out.png"), 1, "nowhere.jpg: no such file"),
        (("upsample", "depth/a.png", "--guide", "rgb/a.jpg", "-o", "no/out.png"), 1, "there is no folder no"),
        (
            ("upsample", "depth/a.png", "--guide", "rgb/a.jpg", "-o", "out.jpg"),
            1,
            "out.jpg: a depth map's name must end",
        ),
        (("upsample", "rgb", "--guide", "depth", "-o", "out"), 1, "rgb: no depth maps in this folder"),
        (("upsample", "depth", "--guide", "other", "-o", "out"), 1, "depth/a.png: there is no guide of the same name"),
    ],
)
def test_a_mistake_is_answered_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], status: int, said: str
) -> None:
    pair(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.jpg").write_bytes((tmp_path / "rgb" / "a.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    got, error, modules, seconds = start(*arguments)
    assert got == status and said in error, error
    assert modules == [] and not (tmp_path / "out").exists()
    assert seconds < SECONDS


def test_the_summaries_are_those_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """A command that is not imported is in the help with the line that it would give itself."""
    assert main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {summary}" in said for name, summary in SUMMARIES.items())


@pytest.mark.parametrize("command", SUMMARIES)
def test_each_command_adds_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: ddfnet {command}" in capsys.readouterr().out
