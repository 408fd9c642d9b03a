"""`ddfnet bench check` and `ddfnet bench plot` on results files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddfnet.bench import check
from ddfnet.cli.main import main

Fails = Callable[..., str]


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a results file of this machine."""
    file = tmp_path_factory.mktemp("results") / "op.json"
    command = ["bench", "op", "--case", "tiny", "--rounds", "1", "--backward", "--only", "ddf", "--json", str(file)]
    assert main(command) == 0
    return file


def changed(file: Path, to: Path, change: Callable[[dict[str, Any]], object]) -> str:
    fields = json.loads(file.read_text())
    change(fields)
    to.write_text(json.dumps(fields))
    return str(to)


def ratio(value: float) -> Callable[[dict[str, Any]], None]:
    def change(fields: dict[str, Any]) -> None:
        for result in fields["results"]:
            result["timings"][0]["ratio"] = value

    return change


def test_ratios_that_hold(committed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = changed(committed, tmp_path / "slow.json", ratio(1000.0))
    assert main(["bench", "check", file, "--rounds", "1"]) == 0
    text = capsys.readouterr().out
    assert text.count("1000.00") == 2
    assert "no case is more than 15% slower than recorded" in text
    assert "note: " not in text, "the same machine"


def test_a_regression_is_named_with_status_1(
    committed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = changed(committed, tmp_path / "fast.json", ratio(1e-3))
    assert main(["bench", "check", file, "--rounds", "1"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("  slower") == 2
    [line] = captured.err.splitlines()
    assert line.endswith("slower than recorded, in two measurements: tiny forward, tiny forward+backward")


def test_another_machine_is_said(committed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(fields: dict[str, Any]) -> None:
        ratio(1000.0)(fields)
        fields["machine"]["cpu"] = "Another Processor"

    file = changed(committed, tmp_path / "other.json", change)
    assert main(["bench", "check", file, "--rounds", "1"]) == 0
    assert "note: another cpu, Another Processor there and " in capsys.readouterr().out


def test_another_kernel_cannot_be_compared(committed: Path, tmp_path: Path, fails: Fails) -> None:
    kernel = "cpu kernel (compiled kernel, avx9)"
    file = changed(committed, tmp_path / "other.json", lambda fields: fields.update(kernel=kernel))
    line = fails(1, "bench", "check", file)
    assert line.startswith(f"ddfnet: error: {file} was made by the {kernel} and this machine runs the ")
    assert "their ratios cannot be compared" in line


def test_the_threads_are_the_files(committed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, threads = torch.get_num_threads(), []
    monkeypatch.setattr(check, "check", lambda document, rounds: threads.append(torch.get_num_threads()) or iter(()))
    file = changed(committed, tmp_path / "other.json", lambda fields: fields["machine"].update(threads=before + 1))
    try:
        assert main(["bench", "check", file]) == 0
    finally:
        torch.set_num_threads(before)
    assert threads == [before + 1]


def test_a_check_of_what_is_wrong_by_now(committed: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddfnet.bench.equality import WrongResultError

    def wrong(document: object, rounds: int) -> None:
        raise WrongResultError("ddf", "tiny", "the output is off")

    monkeypatch.setattr(check, "check", wrong)
    assert "ddf does not agree with the float64 reference" in fails(1, "bench", "check", str(committed))


@pytest.mark.parametrize("command", ["check", "plot"])
def test_files_that_hold_no_results(command: str, tmp_path: Path, fails: Fails) -> None:
    missing, other = tmp_path / "missing.json", tmp_path / "other.json"
    line = fails(1, "bench", command, str(missing))
    assert line == f"ddfnet: error: cannot read {missing}: No such file or directory"
    assert fails(1, "bench", command, str(tmp_path)) == f"ddfnet: error: cannot read {tmp_path}: Is a directory"
    other.write_text("no JSON")
    assert fails(1, "bench", command, str(other)).startswith(f"ddfnet: error: {other} is no results file: ")
    other.write_text("{}")
    assert f"{other} is no results file of this version (no 'what')" in fails(1, "bench", command, str(other))
    assert "the following arguments are required: FILE" in fails(2, "bench", command)


def test_zero_rounds_of_a_check(committed: Path, fails: Fails) -> None:
    line = fails(2, "bench", "check", str(committed), "--rounds", "0")
    assert "argument --rounds: must be a whole number from 1 on, got '0'" in line


def test_a_plot(committed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "roofline.svg"
    assert main(["bench", "plot", str(committed), "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert ">forward+backward<" in file.read_text()


def test_plots_that_cannot_be(committed: Path, tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    command = ("bench", "plot", str(committed), "--out")
    before = committed.read_bytes()
    line = fails(1, *command, str(committed))
    assert line == f"ddfnet: error: {committed} would replace an input; write to another name"
    assert committed.read_bytes() == before
    missing = tmp_path / "missing" / "roofline.svg"
    assert (
        fails(1, *command, str(missing))
        == f"ddfnet: error: cannot write {missing}: there is no folder {missing.parent}"
    )
    assert "cannot draw" in fails(1, *command, str(tmp_path / "roofline.song"))
    file = changed(committed, tmp_path / "layer.json", lambda fields: [r.update(limit=None) for r in fields["results"]])
    assert "none of the results has a limit" in fails(1, "bench", "plot", file, "--out", str(tmp_path / "r.svg"))
    monkeypatch.setattr("ddfnet.errors.find_spec", lambda name: None)
    assert fails(1, *command, str(file)) == ("ddfnet: error: matplotlib not installed; run: pip install 'ddfnet[demo]'")


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ddfnet.files.os.fsync", full)
    file = tmp_path / "op.json"
    line = fails(1, "bench", "op", "--case", "tiny", "--rounds", "1", "--only", "ddf", "--json", str(file))
    assert line == f"ddfnet: error: cannot write {file}: No space left on device"
    assert not file.exists()
