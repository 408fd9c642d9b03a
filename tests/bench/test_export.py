"""Benchmark of exported networks: its competitors, and a wrong network that is not timed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("timm")
pytest.importorskip("onnxruntime")

import torch

from ddfnet.bench import check, documents, export
from ddfnet.bench.equality import WrongResultError
from ddfnet.bench.registry import NetworkCase
from ddfnet.cli.main import main

TINY = NetworkCase("tiny", 2, 32, "small_resnet23", "resnet18")


def test_the_command_writes_a_file_that_the_check_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddfnet.cli.bench.export.NETWORKS", {"tiny": TINY})
    monkeypatch.setattr(export, "_PAUSE", 0.0)
    file = tmp_path / "export.json"
    assert main(["bench", "export", "--case", "tiny", "--rounds", "1", "--json", str(file)]) == 0
    document = documents.read(file)
    [result] = document.results
    assert document.what == "export" and 0 < result.error < 1
    assert [timing.competitor for timing in result.timings] == ["onnxruntime", "eager"]
    assert result.timing("onnxruntime").ratio > 0
    assert check._MEASURES["export"] is not None


def test_a_wrong_network_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zeros:
        def load(self, file: Path) -> object:
            return lambda given: [torch.zeros(2, 1000)]

    monkeypatch.setattr(export, "export", lambda *args, **options: None)
    monkeypatch.setattr(export, "get_format", lambda *args: Zeros())
    with pytest.raises(WrongResultError, match="onnxruntime does not agree"):
        export.measure(TINY, rounds=1)
