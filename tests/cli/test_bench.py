"""`ddfnet bench op`: the table, the file, and the refusals."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddfnet.cli.main import main

Fails = Callable[..., str]

QUICK = ("bench", "op", "--case", "tiny", "--rounds", "2", "--no-compile")


def test_table_and_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results.json"
    assert main([*QUICK, "--backward", "--json", str(file)]) == 0
    text = capsys.readouterr().out
    assert text.count("tiny: 2x8x12x12, 3x3, float32") == 2
    assert f"torch {torch.__version__}" in text
    assert "cpu: " in text and "kernel" in text
    document = json.loads(file.read_text())
    assert document["rounds"] == 2
    assert document["machine"]["threads"] == torch.get_num_threads()
    forward, both = document["results"]
    assert (forward["direction"], both["direction"]) == ("forward", "forward+backward")
    for result in (forward, both):
        assert [timing["competitor"] for timing in result["timings"]] == ["ddf", "depthwise", "conv", "unfold"]
        assert 0 < result["error"] < 1
        for timing in result["timings"]:
            assert 0 < timing["p20"] <= timing["median"] <= timing["p80"]
            assert timing["median"] <= timing["other_median"]
            assert f"{timing['median']:.3f}" in text
        assert result["timings"][1]["ratio"] == 1


def test_dtype_and_several_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            ["bench", "op", "--group", "tiny", "--case", "tiny", "--rounds", "1", "--no-compile", "--dtype", "bfloat16"]
        )
        == 0
    )
    assert capsys.readouterr().out.count("tiny: 2x8x12x12, 3x3, bfloat16 forward") == 1, "named twice, timed once"


def test_threads_are_those_asked_for(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        assert main([*QUICK, "--threads", "1", "--json", str(tmp_path / "r.json")]) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert json.loads((tmp_path / "r.json").read_text())["machine"]["threads"] == 1


def test_an_unknown_case(fails: Fails) -> None:
    assert "argument --case: invalid choice: 'huge' (choose from " in fails(2, "bench", "op", "--case", "huge")


def test_zero_rounds(fails: Fails) -> None:
    assert "argument --rounds: must be a whole number from 1 on, got '0'" in fails(2, "bench", "op", "--rounds", "0")


def test_a_file_that_cannot_be_written_is_refused_before_timing(tmp_path: Path, fails: Fails) -> None:
    file = tmp_path / "missing" / "results.json"
    assert fails(1, *QUICK, "--json", str(file)) == (f"ddfnet: error: cannot write {file}: No such file or directory")
    assert fails(1, *QUICK, "--json", str(tmp_path)) == f"ddfnet: error: cannot write {tmp_path}: Is a directory"


def test_a_device_that_is_not_there(fails: Fails) -> None:
    assert fails(1, *QUICK, "--device", "warp").startswith("ddfnet: error: no device 'warp' here: ")


def test_a_wrong_operator_is_not_timed(tmp_path: Path, fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    from ddfnet.ops import backends, reference

    right = reference.ddf

    class Wrong:
        @staticmethod
        def ddf(input: torch.Tensor, *args: object) -> torch.Tensor:
            return right(input, *args) * (1 if input.dtype == torch.float64 else 1.001)

    monkeypatch.setattr(backends, "kernels", lambda device: Wrong)
    file = tmp_path / "results.json"
    line = fails(1, *QUICK, "--json", str(file))
    assert line.startswith("ddfnet: error: ddf (contiguous) does not agree with the float64 reference on tiny: ")
    assert line.endswith("nothing is reported")
    assert not file.exists()


def test_a_checkout_without_symbolic_links_keeps_the_other_commands(monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "ddfnet.benchmarks.registry", None)
    assert main(["bench"]) == 1
    assert "ddfnet/benchmarks is a symbolic link" in capsys.readouterr().err
    assert main(["env"]) == 0
