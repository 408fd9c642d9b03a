"""Tables of reproduce/table7: each protocol in a table of its own, and no deviation where there is one seed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "reproduce" / "table7" / "collect.py"


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(method: str, scene: str, factor: int, ratio: float, flying: float = 0.25) -> dict[str, Any]:
    return {"method": method, "scene": scene, "factor": factor, "ratio": ratio, "flying_near_edges": flying}


def write(folder: Path, name: str, rows: list[dict[str, Any]], protocol: str = "pac", **others: Any) -> None:
    results = {"command": f"ddfnet {name}", "machine": {"cores": 2}, "protocol": protocol, "rows": rows, **others}
    (folder / "results").mkdir(exist_ok=True)
    (folder / "results" / f"{name}.json").write_text(json.dumps(results))


def make(collect: ModuleType, folder: Path) -> None:
    collect.main(folder, folder / "results" / "cost.json")


def tables(folder: Path) -> dict[str, list[list[str]]]:
    """Return the cells of each table of table.md, by its title."""
    found = {}
    title = ""
    for line in (folder / "table.md").read_text().splitlines():
        if line.startswith("|"):
            found[title].append([cell.strip() for cell in line.strip("|").split("|")])
        elif line:
            title = line
            found[title] = []
    return {title: [rows[0], *rows[2:]] for title, rows in found.items()}


def test_a_table_for_each_protocol_and_measure(collect: ModuleType, tmp_path: Path) -> None:
    rows = [
        row(method, scene, factor, ratio + factor / 100, flying)
        for scene in ("motorcycle", "aloe")
        for factor in (4, 8)
        for method, ratio, flying in (("bilinear", 1.0, 0.5), ("guided/model", 0.7, 0.125))
    ]
    write(tmp_path, "pac", rows)
    write(tmp_path, "bicubic", [row("bilinear", "aloe", 4, 1.0)], "bicubic")
    write(tmp_path, "probe", [row("ddfnet, guide moved", "aloe", 4, 1.25)])
    make(collect, tmp_path)
    ratio, columns = "RMSE as a share of aligned bilinear's", ["motorcycle 4x", "motorcycle 8x", "aloe 4x", "aloe 8x"]
    assert tables(tmp_path) == {
        f"{ratio}, protocol `pac`": [
            ["method", *columns],
            ["bilinear", "1.040", "1.080", "1.040", "1.080"],
            ["guided/model", "0.740", "0.780", "0.740", "0.780"],
        ],
        "Share of the pixels near depth edges that fly, protocol `pac`": [
            ["method", *columns],
            ["bilinear", "50.0%", "50.0%", "50.0%", "50.0%"],
            ["guided/model", "12.5%", "12.5%", "12.5%", "12.5%"],
        ],
        f"{ratio}, protocol `bicubic`": [["method", "aloe 4x"], ["bilinear", "1.000"]],
        f"The network on one view alone, and with one of its sources taken away: {ratio}, protocol `pac`": [
            ["method", "aloe 4x"],
            ["ddfnet, guide moved", "1.250"],
        ],
    }
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept.keys() == {"pac", "bicubic", "probe"}
    assert kept["pac"] == {"command": "ddfnet pac", "machine": {"cores": 2}, "rows": rows}


def test_the_comparison_says_which_seeds_it_has(collect: ModuleType, tmp_path: Path) -> None:
    ratios = {"features-0": 0.8, "carried-0": 0.7, "carried-1": 0.72, "carried-2": 0.74}
    rows = [row("bilinear", "aloe", 8, 1.0)]
    rows += [row(f"{run}/model", "aloe", factor, ratio) for run, ratio in ratios.items() for factor in (4, 8)]
    networks = [
        {"name": f"{run}/model", "file": f"runs/ablation/{run}/model.safetensors", "parameters": 1000 + len(run)}
        for run in ratios
    ]
    write(tmp_path, "ablation", rows, networks=networks)
    make(collect, tmp_path)
    [table] = tables(tmp_path).values()
    assert table == [
        ["network", "parameters", "aloe", "seeds"],
        [collect.ROWS["carried"], "1,009", "0.720 ± 0.020", "0, 1, 2"],
        [collect.ROWS["features"], "1,010", "0.800 (one seed)", "0"],
    ]
    kept = json.loads((tmp_path / "results.json").read_text())["ablation"]
    assert kept["command"] == "ddfnet ablation"
    assert kept["rows"]["features"]["scenes"]["aloe"] == {"by_seed": {"0": 0.8}, "mean": 0.8, "std": None}


def test_an_unknown_row_of_the_comparison(collect: ModuleType, tmp_path: Path) -> None:
    networks = [{"name": "other-0/model", "file": "runs/ablation/other-0/model.safetensors", "parameters": 1}]
    write(tmp_path, "ablation", [row("other-0/model", "aloe", 8, 1.0)], networks=networks)
    with pytest.raises(SystemExit, match=r"rows of the comparison must be some of carried, .*, got other"):
        make(collect, tmp_path)


def test_cost(collect: ModuleType, tmp_path: Path) -> None:
    own = {"shape": "741x500", "factor": 8, "seconds": 0.5, "seconds_per_megapixel": 1.3495}
    rows = [
        {"method": "ddfnet", "mib_per_megapixel": 456.7, **own},
        {"method": "bilinear", "mib_per_megapixel": None, **own},
    ]
    write(tmp_path, "cost", rows)
    make(collect, tmp_path)
    assert tables(tmp_path) == {
        "Cost per megapixel": [
            ["method", "image", "factor", "seconds", "MiB"],
            ["ddfnet", "741x500", "8x", "1.35", "457"],
            ["bilinear", "741x500", "8x", "1.35", "not measured"],
        ]
    }


def test_nothing_there(collect: ModuleType, tmp_path: Path) -> None:
    make(collect, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text()) == {}
