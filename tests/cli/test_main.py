"""Command line as a whole: exit statuses, one line per error, plugins, and core commands that need torch alone."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ddfnet
from ddfnet import errors
from ddfnet.cli.main import main

Fails = Callable[..., str]

EXTRAS = ("lightning", "torchmetrics", "torchvision", "timm", "sklearn", "skimage", "matplotlib", "PIL", "rich")


def bare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a Python without the extras."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({EXTRAS})); from ddfnet.cli.main import main; sys.exit(main())"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ddfnet {ddfnet.__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("demo", "bench", "env"))


def test_wrong_use_is_one_line_and_status_2(fails: Fails) -> None:
    assert fails(2) == ("ddfnet: error: the following arguments are required: COMMAND (see ddfnet --help)")
    assert "invalid choice: 'fly'" in fails(2, "fly")
    assert "unrecognized arguments: --fast" in fails(2, "env", "--fast")


@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_counts_must_be_positive(fails: Fails, value: str) -> None:
    message = f"argument --epochs: must be a whole number from 1 on, got '{value}'"
    assert fails(2, "demo", f"--epochs={value}") == f"ddfnet demo: error: {message} (see ddfnet demo --help)"


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ddfnet.cli.env.collect", interrupted)
    assert main(["env"]) == 130
    assert capsys.readouterr().err == ""


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ValueError("a bug")

    monkeypatch.setattr("ddfnet.cli.env.collect", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["env"])


def test_what_is_missing_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in ("jinja2", "sklearn") else object())
    with pytest.raises(errors.UserError) as raised:
        errors.require("demo", ["lightning", "sklearn", "jinja2"])
    assert str(raised.value) == "sklearn, jinja2 not installed; run: pip install 'ddfnet[demo]'"


def test_without_extras_the_demo_is_one_line(tmp_path: Path) -> None:
    done = bare("demo", "--output", str(tmp_path / "demo"))
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("ddfnet: error: lightning, ") and line.endswith("run: pip install 'ddfnet[demo]'")
    assert not (tmp_path / "demo").exists()


def test_without_extras_the_core_commands_work() -> None:
    for arguments, part in (
        (("env",), "served by"),
        (("bench", "op", "--case=tiny", "--rounds=1", "--no-compile"), "p80"),
    ):
        done = bare(*arguments)
        assert done.returncode == 0, done.stderr
        assert part in done.stdout


def test_python_m_ddfnet_passes_arguments_and_status_on() -> None:
    done = subprocess.run([sys.executable, "-m", "ddfnet", "demo", "--epochs", "0"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "must be a whole number from 1 on" in done.stderr


def test_a_plugin_is_imported_before_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "first_plugin.py").write_text("print('first')\n")
    (tmp_path / "second_plugin.py").write_text("print('second')\n")
    assert main(["--import", str(tmp_path / "first_plugin.py"), "--import", "second_plugin", "env"]) == 0
    assert capsys.readouterr().out.startswith("first\nsecond\nddfnet")


def test_a_plugin_that_cannot_be_imported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Fails
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "needs_more.py").write_text("import nowhere_at_all\n")
    (tmp_path / "argparse.py").touch()
    start = "ddfnet: error: --import"
    assert fails(1, "--import", "nowhere.py", "env") == f"{start} nowhere.py: no such file"
    assert fails(1, "--import", "nowhere", "env") == f"{start} nowhere: No module named 'nowhere'"
    needs_more = tmp_path / "needs_more.py"
    assert fails(1, "--import", str(needs_more), "env") == f"{start} {needs_more}: No module named 'nowhere_at_all'"
    taken = tmp_path / "argparse.py"
    line = f"{start} {taken}: the module argparse is {argparse.__file__} already; rename the file"
    assert fails(1, "--import", str(taken), "env") == line
    assert "--import: expected one argument" in fails(2, "env", "--import")
