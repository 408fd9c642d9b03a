"""Communication figures of docs/scale.md against their formulas."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

pytest.importorskip("timm")

ROOT = Path(__file__).parents[2]


def test_the_page_and_the_results_are_what_the_script_gives() -> None:
    spec = importlib.util.spec_from_file_location("communication", ROOT / "reproduce" / "scale" / "communication.py")
    assert spec is not None and spec.loader is not None
    communication = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(communication)
    assert communication.all_reduce(1000, 1) == communication.sharded(1000, 1) == 0
    assert communication.all_reduce(1000, 4) == 6000, "bytes: each GPU sends 3/4 of the gradients twice"
    results = {name: communication.network(name) for name in communication.NETWORKS}
    kept = json.loads((ROOT / "reproduce" / "scale" / "results.json").read_text())
    assert kept["networks"] == json.loads(json.dumps(results))
    page = (ROOT / "docs" / "scale.md").read_text()
    assert communication.page(page, communication.tables(results)) == page
