"""Table of the upsamplers, as its script makes it of the committed results."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("timm")
pytest.importorskip("lightning")

HERE = Path(__file__).parents[2] / "reproduce" / "table6"


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """Import the script; it writes to a folder of the test."""
    before = list(sys.path)
    spec = importlib.util.spec_from_file_location("table6_collect", HERE / "collect.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    yield module
    sys.path[:] = before
    sys.modules.pop("reporting", None)


def test_the_table_that_is_kept(collect: ModuleType, tmp_path: Path) -> None:
    kept = HERE / "results" / "bccd.json"
    if kept.exists():
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / "bccd.json").write_text(kept.read_text())
    collect.main()
    assert (tmp_path / "table.md").read_text() == (HERE / "table.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text()) == json.loads((HERE / "results.json").read_text())


def test_means_and_deviations_of_the_seeds(collect: ModuleType) -> None:
    def row(upsampler: str, precision: float) -> dict[str, object]:
        costs = {"parameters": 10, "upsampler_parameters": 1, "upsampler_macs": 2.0, "seconds": 3.0}
        return {"upsampler": upsampler, "precision": {"AP": precision}, "classes": {"cell": precision}} | costs

    results = {
        "networks": [{"file": f"runs/ddf-{seed}/model.safetensors", "card": {"seed": seed}} for seed in range(2)],
        "rows": [row("ddf", 0.4), row("ddf", 0.5)],
    }
    found = collect.runs(results)["ddf"]
    assert found["precision"]["AP"]["by_seed"] == {"0": 0.4, "1": 0.5} and "AP_S" not in found["precision"]
    assert collect.percent(found["precision"]["AP"]) == "45.0 ± 7.1"
    assert collect.bccd_row("ddf", found, 12)[:2] == ["ddf", "45.0 ± 7.1"]
    assert collect.bccd_row("nearest", None, 3) == ["nearest", "not run yet", ""]
