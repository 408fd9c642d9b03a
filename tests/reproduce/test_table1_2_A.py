"""Tables of reproduce/table1-2-A: the formulas are those of the layers, and claims follow from figures."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ddfnet.bench import documents, layer
from ddfnet.bench.memory import Memory
from ddfnet.bench.registry import LAYER_GROUPS, LayerCase
from ddfnet.bench.result import Result
from ddfnet.bench.timing import Timing

HERE = Path(__file__).parents[2] / "reproduce" / "table1-2-A"
MACHINE = {"cpu": "a processor", "torch": "2.14", "threads": 2, "cpu_kernel": "cpu", "commit": "abc"}
MS = {
    "ddf": 1.0,
    "conv": 4.0,
    "depthwise": 0.5,
    "operator": 0.75,
    "pac": 20.0,
    "dynamic-depthwise": 8.0,
    "dynamic": 9.0,
}


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collect_costs", HERE / "collect.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


def write(
    folder: Path, group: str, ms: Callable[[str, LayerCase], float], skipped: dict[str, str] | None = None
) -> None:
    """Write a file of made-up times; each adds a hundred times as many MiB."""
    results = []
    for case in LAYER_GROUPS[group]:
        names = [name for name in layer.NAMES if name != layer.FUSED and name not in (skipped or {})]
        timings = tuple(
            Timing(name, "channels_last", *[ms(name, case)] * 3, ms(name, case) / ms("conv", case), 1.0, 9.0)
            for name in names
        )
        added = tuple(Memory(name, "channels_last", 100 * ms(name, case), 1.0) for name in names)
        results.append(Result(case, "forward", "ddf", "conv", timings, skipped or {}, 0.1, memory=added))
    (folder / "results").mkdir(exist_ok=True)
    document = documents.Document("layer", f"ddfnet bench layer --group {group}", 5, "cpu", "cpu", MACHINE, results)
    documents.write(folder / "results" / f"{group}.json", document)


def verdicts(folder: Path) -> dict[str, tuple[str, str]]:
    claims = json.loads((folder / "results.json").read_text())["claims"]
    return {claim["claim"]: (claim["verdict"], claim["figures"]) for claim in claims}


def test_the_formulas_are_the_layers(collect: ModuleType) -> None:
    """Parameters as counted, and of the FLOPs those that torch counts: of convolutions, products and our operator.

    Weighting windows is not among them, nor are distances, our norms and our biases.
    """
    case = LayerCase("map", 40, 12, 2)
    sizes = collect.Sizes.of(case)
    assert (sizes.n, sizes.c, sizes.batch) == (288, 40, 2)
    not_counted = {
        "dynamic-depthwise": 2 * 288 * 40 * 9,  # the windows' weighted sum
        "pac": 4 * 288 * 40 * 9,  # distances, and the windows' weights
    }
    for name, row in collect.ROWS.items():
        made = layer.make(name, 40)
        parameters = sum(parameter.numel() for parameter in made.parameters())
        ours = 9 + 8 + 360 + 360 if name == "ddf" else 0  # three biases, and FilterNorm's scale
        assert row.parameters(40) == parameters - ours, name
        with FlopCounterMode(display=False) as counter:
            made(torch.randn(case.shape))
        assert row.flops(sizes) == counter.get_total_flops() + not_counted.get(name, 0), name
        assert collect.formula_costs(name, case)["parameters"] == parameters
    assert collect.ROWS["dynamic"].filters(sizes) == 288 * 40 * 40 * 9
    assert collect.ROWS["ddf"].filters(sizes) == (288 + 2 * 40) * 9


def test_the_papers_memory_is_beyond_input_and_output(collect: ModuleType) -> None:
    assert collect.paper_added("depthwise") == pytest.approx(236.0 - 234.375)


def test_all_that_holds(collect: ModuleType, tmp_path: Path) -> None:
    for group in ("table1", "table2"):
        write(tmp_path, group, lambda name, case: 200.0 if name == "dynamic" else MS[name])
    write(tmp_path, "tableA", lambda name, case: 5.0 if name == "ddf" and case.size < 28 else MS[name])
    collect.main(tmp_path)
    found = verdicts(tmp_path)
    assert {verdict for verdict, _ in found.values()} == {"holds"}
    assert found["Table 2: DDF takes a tenth of PAC's time or less (0.065)"][1] == "0.05"
    assert found["Table A: the layer is slower at 7 and 14 pixels"][1] == (
        "1.25 at 7, 1.25 at 14, 0.25 at 28, 0.25 at 56, 0.25 at 112"
    )
    text = (tmp_path / "table.md").read_text()
    assert "| convolution | 7.5 | 1 | 122 | 142 | 0 | 4 | 1 | 400 |" in text
    assert "| 7 | 0.21 | 0.238 | 4.43 | 0.571 | 4 | 0.125 | 1.25 | 0.188 |" in text
    assert re.search(r"^\| 224 .*( \| not run){4} \|$", text, re.MULTILINE)
    assert "`ddfnet bench layer --group table2`: a processor, 2 threads, cpu, torch 2.14, commit abc" in text


@pytest.mark.parametrize(
    ("group", "ms", "claim"),
    [
        ("table1", {"ddf": 4.5}, "Table 1: DDF takes less time than a convolution"),
        ("table1", {"dynamic": 3.0}, "Table 1: a convolution takes less time than a full dynamic filter"),
        ("table1", {"dynamic": 90.0}, "Table 1: DDF adds a hundredth of the full dynamic filter's memory or less"),
        ("table2", {"pac": 9.0}, "Table 2: DDF takes a tenth of PAC's time or less (0.065)"),
        ("table2", {"pac": 9.0}, "Table 2: DDF adds a tenth of PAC's memory or less (0.0036)"),
        ("table2", {"conv": 0.9}, "Table 2: DDF takes less time than a convolution (0.40)"),
        ("table2", {"depthwise": 0.3}, "Table 2: DDF takes 3 times a depthwise convolution's time or less (3.0)"),
        ("tableA", {"operator": 4.5}, "Table A: the operator is faster than a convolution at every size"),
        ("tableA", {"ddf": 4.5}, "Table A: the layer is faster from 28 pixels on"),
        ("tableA", {"ddf": 3.5}, "Table A: the layer is slower at 7 and 14 pixels"),
        (
            "tableA",
            {"depthwise": 0.3},
            "Table A: the operator takes 2.4 times a depthwise convolution's time or less (1.7 to 2.4)",
        ),
    ],
)
def test_what_does_not_hold(collect: ModuleType, tmp_path: Path, group: str, ms: dict[str, float], claim: str) -> None:
    write(tmp_path, group, lambda name, case: (MS | ms)[name])
    collect.main(tmp_path)
    found = verdicts(tmp_path)
    assert found[claim][0] == "does not hold"
    table = f"Table {group[-1]}"
    assert all(
        verdict == "not run" for each, (verdict, _) in found.items() if table not in each and "Table 1: p" not in each
    )


def test_what_was_left_out_says_why(collect: ModuleType, tmp_path: Path) -> None:
    write(tmp_path, "table2", lambda name, case: MS[name], {"dynamic": "would need 794 GiB of 21 GiB"})
    collect.main(tmp_path)
    assert "| not run: would need 794 GiB of 21 GiB |  |  |" in (tmp_path / "table.md").read_text()


def test_nothing_run_yet(collect: ModuleType, tmp_path: Path) -> None:
    collect.main(tmp_path)
    found = verdicts(tmp_path)
    assert found.pop("Table 1: parameters are the formulas', within 5 %") == ("holds", "+3.1% for DDF")
    assert set(found.values()) == {("not run", "")}


def test_what_run_sh_times() -> None:
    """Each group and each competitor that it names is there."""
    script = (HERE / "run.sh").read_text()
    lines = re.findall(r"^ +(\w+)\) bench (\w+) \d+ (\S+)", script, re.MULTILINE)
    assert [(part, group) for part, group, _ in lines] == [(name, name) for name in ("table1", "table2", "tableA")]
    for _, group, names in lines:
        assert group in LAYER_GROUPS
        assert set(names.split(",")) <= set(layer.NAMES)


def test_the_results_that_are_kept_are_of_the_files(collect: ModuleType) -> None:
    if not (HERE / "results.json").exists():
        pytest.skip("not run yet")
    read = {name: documents.read(HERE / "results" / f"{name}.json") for name in collect.TABLES}
    results = collect.collect(read)
    assert json.loads((HERE / "results.json").read_text()) == json.loads(json.dumps(results))
    assert (HERE / "table.md").read_text() == "\n".join(collect.tables(results)) + "\n"
