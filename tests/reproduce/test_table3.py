"""Comparison on CIFAR-10: networks of its rows, claims that follow from its figures, and missing results."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("timm")
pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

import timm
import torch

import ddfnet
import ddfnet.models

HERE = Path(__file__).parents[2] / "reproduce" / "table3"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def paths() -> Iterator[None]:
    """Import a script; they import each other from their folder."""
    before, known = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = before
    for name in set(sys.modules) - known:
        if name in ("rows", "collect", "figures"):
            del sys.modules[name]


def costs() -> dict[str, Any]:
    return json.loads((HERE / "costs.json").read_text())


def write(runs: Path, name: str, seed: int, top1: float) -> None:
    folder = runs / f"{name}-{seed}"
    (folder / "csv" / "version_0").mkdir(parents=True)
    lines = ["epoch,loss,step,top1", "0,2.1,9,", f"0,,9,{top1 / 2}", f"1,,19,{top1}", f"2,,20,{top1}"]
    (folder / "csv" / "version_0" / "metrics.csv").write_text("\n".join(lines))
    card = {"command": "c", "machine": {}, "seed": seed, "seconds": 1.0, "epochs": 2, "steps": 20}
    (folder / "model.json").write_text(json.dumps(card | {"metrics": {"top1": top1, "val_loss": 1.0}}))


def test_each_row_is_a_network_of_its_stated_costs() -> None:
    rows = script("rows").ROWS
    for name, row in rows.items():
        network = timm.create_model("small_resnet23", num_classes=10, **row.options)
        cost = ddfnet.profiler.estimate(network.eval(), (1, 3, 32, 32))
        stated = costs()["rows"][name]
        assert (stated["parameters"], stated["macs"]) == (cost.parameters, cost.predicted.macs), name
    assert costs()["rows"].keys() == rows.keys()


def test_what_run_sh_trains(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from ddfnet.cli import lightning_cli
    from ddfnet.tasks import TASKS

    rows = script("rows")
    monkeypatch.setattr(sys, "argv", ["rows.py"])
    rows.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * (len(rows.ROWS) + len(rows.REMEDIES) + 1), "one remedy is for the convolution too"
    assert len({line.split()[1] for line in lines}) == len(lines)
    for line in lines[1:3] + lines[-6:]:
        words = ["--config", str(HERE / "cifar10.yaml"), *line.split()[2:]]
        cli = lightning_cli.build(TASKS["classification"], words)
        assert cli.config["model"]["network"] == "small_resnet23"
        assert cli.model.model_args["num_classes"] == 10
    assert cli.model.warmup_epochs == 3, "the last remedy"


def test_nothing_run_yet(tmp_path: Path) -> None:
    collect = script("collect")
    results = collect.collect(tmp_path, costs(), {})
    assert all(row["mean"] is None for row in results["rows"].values())
    assert {claim["verdict"] for claim in results["claims"]} == {"not run"}
    lines = collect.table(results)
    assert sum("| not run |" in line for line in lines) == len(script("rows").ROWS)
    figures = script("figures")
    assert not figures.accuracy(results["rows"], tmp_path / "a.svg") and not list(tmp_path.glob("*.svg"))


@pytest.mark.parametrize(
    ("top1", "verdicts"),
    [
        ({}, ["holds", "holds", "holds", "holds"]),
        ({"conv": 0.899}, ["does not hold", "holds", "holds", "holds"]),
        ({"channel": 0.905, "reduction-0.4": 0.91}, ["holds", "does not hold", "holds", "does not hold"]),
        ({"sigmoid": 0.95}, ["holds", "holds", "does not hold", "holds"]),
    ],
)
def test_claims_and_figures(tmp_path: Path, top1: dict[str, float], verdicts: list[str]) -> None:
    collect, figures, names = script("collect"), script("figures"), script("rows").ROWS
    better = {"ddf": 0.9, "reduction-0.1": 0.899, "reduction-0.4": 0.901}
    for name in names:
        for seed in range(3):
            write(tmp_path, name, seed, top1.get(name, better.get(name, 0.88)) + 0.001 * seed)
    results = collect.collect(tmp_path, costs(), {})
    ddf = results["rows"]["ddf"]
    assert ddf["mean"] == pytest.approx(90.1) and ddf["std"] == pytest.approx(0.1)
    assert ddf["by_seed"]["2"]["curve"] == pytest.approx([0.451, 0.902])
    assert [claim["verdict"] for claim in results["claims"]] == verdicts
    assert "90.10 ± 0.10" in "\n".join(collect.table(results))
    for draw, name in ((figures.curves, "curves.svg"), (figures.accuracy, "accuracy.svg")):
        assert draw(results["rows"], tmp_path / name)
        assert "<svg" in (tmp_path / name).read_text()


def test_a_few_runs(tmp_path: Path) -> None:
    collect = script("collect")
    write(tmp_path, "ddf", 0, 0.9)
    (tmp_path / "none-1.log").write_text(
        "...\nddfnet: error: the loss of step 40 is nan; the last good checkpoint is x\n"
    )
    write(tmp_path, "ddf-warmup-3", 0, 0.91)
    results = collect.collect(tmp_path, costs(), {})
    assert collect.accuracy(results["rows"]["ddf"]) == "90.00 (1 of 3 seeds)"
    assert collect.accuracy(results["rows"]["none"]) == "1 ended in nan"
    assert {claim["verdict"] for claim in results["claims"]} == {"not run"}
    assert results["remedies"].keys() == {"warmup-3"}
    assert "| three epochs of warm-up, not one | not run | 91.00 (1 of 3 seeds) |" in collect.table(results)


def test_what_is_collected_is_not_trained_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, rows = script("collect"), script("rows")
    runs, others = tmp_path / "runs", tmp_path / "others"
    write(runs, "ddf", 0, 0.9)
    write(runs, "ddf-warmup-3", 1, 0.91)
    first = collect.collect(runs, costs(), {})
    assert collect.collect(tmp_path / "none", costs(), first) == first, "what is not there stays"
    write(others, "ddf", 0, 0.8)
    write(others, "ddf", 1, 0.7)
    second = collect.collect(others, costs(), first)
    assert second["rows"]["ddf"]["mean"] == pytest.approx(75), "what is there replaces"
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results.json")
    (tmp_path / "results.json").write_text(json.dumps(second))
    monkeypatch.setattr(sys, "argv", ["rows.py", "--missing"])
    rows.main()
    names = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    left = {f"{name}-{seed}" for _, name, seed, _ in rows.trainings()} - {"ddf-0", "ddf-1", "ddf-warmup-3-1"}
    assert len(names) == len(left) and set(names) == left


def test_the_results_that_are_kept_are_of_these_rows() -> None:
    kept, rows = json.loads((HERE / "results.json").read_text()), script("rows").ROWS
    assert kept["rows"].keys() == rows.keys()
    assert (HERE / "table.md").read_text() == "\n".join(script("collect").table(kept)) + "\n"


def test_the_classifier_that_is_kept() -> None:
    from ddfnet.pretrained import load, read_header

    file = HERE / "model.safetensors"
    network, header = load(file), read_header(file)
    assert header.init_args == {"name": "small_resnet23", "num_classes": 10, "options": {"mixer": "ddf"}}
    assert network(torch.randn(2, 3, 32, 32)).isfinite().all()
    card, evaluated = (json.loads((HERE / name).read_text()) for name in ("model.json", "evaluated.json"))
    [row] = evaluated["rows"]
    assert row["top1"] == pytest.approx(card["metrics"]["top1"], abs=1e-3) and row["images"] == 10_000
    kept = json.loads((HERE / "results.json").read_text())["rows"]["ddf"]["by_seed"][str(card["seed"])]
    assert card["metrics"]["top1"] == kept["top1"]
    assert file.stat().st_size < 8e6
