"""Script of run.sh that makes results.json and table.md from the results of `ddfnet bench layer`.

Formulas stand beside measured values, the paper's figures beside ours. A missing file counts as not run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reporting import table  # noqa: E402

from ddfnet import files  # noqa: E402
from ddfnet.bench import documents, layer  # noqa: E402
from ddfnet.bench.registry import LAYER_GROUPS, LayerCase  # noqa: E402
from ddfnet.bench.result import Result  # noqa: E402

TABLES = ("table1", "table2", "tableA")
TAPS = 9
REDUCTION = 0.2  # the paper's sigma: width of the channel branch's bottleneck
MIB = 2**20
_NOT_RUN = "not run"

Results = dict[str, Any]


# --- by formula -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """Sizes of a map: pixels of the whole batch, channels, images."""

    n: int
    c: int
    batch: int

    @staticmethod
    def of(case: LayerCase) -> Sizes:
        batch, channels, rows, columns = case.shape
        return Sizes(batch * rows * columns, channels, batch)


@dataclass(frozen=True)
class Row:
    """Layer of c input and output channels with k*k taps.

    Args:
        title: title in tables.
        paper: formula of the parameters in the paper's table 1; "" without such a column.
        parameters: number of parameters for c channels.
        flops: FLOPs, two per multiply-add; for DDF, the paper's own count (section 4.1).
        filters: number of values that are generated from the map.
    """

    title: str
    paper: str
    parameters: Callable[[int], float]
    flops: Callable[[Sizes], float]
    filters: Callable[[Sizes], float]


def _bottleneck(c: int) -> float:
    """Count the weights of the two layers of the channel branch."""
    return REDUCTION * c**2 * (1 + TAPS)


ROWS = {
    "conv": Row("convolution", "c²k²", lambda c: c**2 * TAPS, lambda s: 2 * s.n * s.c**2 * TAPS, lambda s: 0),
    "depthwise": Row("depthwise convolution", "ck²", lambda c: c * TAPS, lambda s: 2 * s.n * s.c * TAPS, lambda s: 0),
    "dynamic": Row(
        "full dynamic filter: a filter per pixel and pair of channels",
        "c³k²",
        lambda c: c**3 * TAPS,
        lambda s: 2 * s.n * s.c**3 * TAPS + 2 * s.n * s.c**2 * TAPS,
        lambda s: s.n * s.c**2 * TAPS,
    ),
    "dynamic-depthwise": Row(
        "dynamic filter: a filter per pixel and channel",
        "",
        lambda c: c**2 * TAPS,
        lambda s: 2 * s.n * s.c**2 * TAPS + 2 * s.n * s.c * TAPS,
        lambda s: s.n * s.c * TAPS,
    ),
    "pac": Row(
        "pixel-adaptive convolution, by unfold",
        "",
        lambda c: c**2 * TAPS,
        # Distances are a difference, a square and a sum; then each window is weighted, and convolved.
        lambda s: 4 * s.n * s.c * TAPS + 2 * s.n * s.c**2 * TAPS,
        lambda s: s.n * TAPS,
    ),
    "ddf": Row(
        "DDF",
        "ck² + 0.2c²(1 + k²)",
        lambda c: c * TAPS + _bottleneck(c),
        lambda s: 5 * s.n * s.c * TAPS + 2 * s.batch * _bottleneck(s.c),
        lambda s: (s.n + s.batch * s.c) * TAPS,
    ),
}


def formula_costs(name: str, case: LayerCase) -> Results:
    """Return the costs of a layer on a map by formula, and its counted parameters."""
    row, sizes = ROWS[name], Sizes.of(case)
    with torch.device("meta"):
        made = layer.make(name, sizes.c)
    return {
        "parameters_by_formula": row.parameters(sizes.c),
        "parameters": sum(parameter.numel() for parameter in made.parameters()),
        "flops": row.flops(sizes),
        "filters_mib": 4 * row.filters(sizes) / MIB,
    }


# --- the paper's figures --------------------------------------------------------------------------------------------

PAPER_2 = {  # MiB allocated, input and output included, and ms, on a GPU
    "conv": (356.3, 7.5),
    "depthwise": (236.0, 1.0),
    "pac": (3406.4, 46.4),
    "ddf": (245.7, 3.0),
}
PAPER_A = {  # ms of convolution, depthwise convolution, DDF module, DDF operator, on a GeForce RTX 2080 Ti
    7: (0.21, 0.05, 0.93, 0.12),
    14: (0.40, 0.09, 0.96, 0.15),
    28: (2.31, 0.22, 1.29, 0.48),
    56: (4.09, 0.79, 2.60, 1.80),
    112: (16.04, 3.08, 9.07, 7.30),
    224: (82.57, 11.97, 37.11, 28.62),
}
KINDS = ("conv", "depthwise", "ddf", "operator")  # columns of table A


def paper_added(name: str) -> float:
    """Return the MiB of table 2 beyond input and output."""
    [case] = LAYER_GROUPS["table2"]
    sizes = Sizes.of(case)
    return PAPER_2[name][0] - 2 * 4 * sizes.n * sizes.c / MIB


# --- measured -------------------------------------------------------------------------------------------------------


def measured(result: Result) -> Results:
    """Return milliseconds, their ratio to the convolution, and added MiB of each competitor."""
    added = {memory.competitor: memory.added for memory in result.memory}
    return {
        timing.competitor: {
            "ms": timing.median,
            "memory_format": timing.memory_format,
            "over_conv": timing.ratio,
            "added_mib": added.get(timing.competitor),
        }
        for timing in result.timings
    }


def collect(read: Mapping[str, documents.Document]) -> Results:
    """Collect the formulas, and the results of the files that were read."""
    results: Results = {}
    for name in TABLES:
        document = read.get(name)
        found = {} if document is None else {result.case.name: result for result in document.results}
        cases = {}
        for case in LAYER_GROUPS[name]:
            own = found.get(case.name)
            rows = {} if own is None else measured(own)
            cases[case.name] = {"rows": rows, "skipped": {} if own is None else own.skipped}
            if name != "tableA":
                cases[case.name]["by_formula"] = {row: formula_costs(row, case) for row in ROWS}
        about = {} if document is None else {key: getattr(document, key) for key in ("command", "rounds", "machine")}
        results[name] = about | {"cases": cases}
    return results | {"claims": claims(results)}


# --- claims ---------------------------------------------------------------------------------------------------------


def claims(results: Results) -> list[dict[str, str]]:
    """Judge each claim of the paper, with the figures."""
    found = []
    for claim, figures, holds in [*_claims_1(results), *_claims_2(results), *_claims_a(results)]:
        verdict = _NOT_RUN if holds is None else "holds" if holds else "does not hold"
        found.append({"claim": claim, "verdict": verdict, "figures": figures})
    return found


_Claim = tuple[str, str, bool | None]


def _ratio(results: Results, group: str, case: LayerCase, names: tuple[str, str], key: str = "ms") -> float | None:
    """Return the ratio of two competitors' figures; None unless both were measured."""
    rows = results[group]["cases"][case.name]["rows"]
    above, below = (rows.get(name, {}).get(key) for name in names)
    return None if above is None or below is None else above / below


def _at_most(claim: str, value: float | None, bound: float) -> _Claim:
    """Return the claim that a ratio is at most a bound."""
    return (claim, "", None) if value is None else (claim, f"{value:.2g}", value <= bound)


def _claims_1(results: Results) -> Iterator[_Claim]:
    [case] = LAYER_GROUPS["table1"]
    costs = results["table1"]["cases"][case.name]["by_formula"]
    off = {name: row["parameters"] / row["parameters_by_formula"] - 1 for name, row in costs.items()}
    worst = max(off, key=lambda name: abs(off[name]))
    claim = "Table 1: parameters are the formulas', within 5 %"
    yield claim, f"{off[worst]:+.1%} for {ROWS[worst].title}", abs(off[worst]) <= 0.05
    for claim, names, key, bound in (
        ("DDF takes less time than a convolution", ("ddf", "conv"), "ms", 1),
        ("a convolution takes less time than a full dynamic filter", ("conv", "dynamic"), "ms", 1),
        ("DDF adds a hundredth of the full dynamic filter's memory or less", ("ddf", "dynamic"), "added_mib", 0.01),
    ):
        yield _at_most(f"Table 1: {claim}", _ratio(results, "table1", case, names, key), bound)


def _claims_2(results: Results) -> Iterator[_Claim]:
    [case] = LAYER_GROUPS["table2"]
    for claim, other, key, bound in (
        ("takes a tenth of PAC's time or less (0.065)", "pac", "ms", 0.1),
        ("adds a tenth of PAC's memory or less (0.0036)", "pac", "added_mib", 0.1),
        ("takes less time than a convolution (0.40)", "conv", "ms", 1),
        ("takes 3 times a depthwise convolution's time or less (3.0)", "depthwise", "ms", 3),
    ):
        yield _at_most(f"Table 2: DDF {claim}", _ratio(results, "table2", case, ("ddf", other), key), bound)


def _claims_a(results: Results) -> Iterator[_Claim]:
    for claim, names, holds in (
        ("the operator is faster than a convolution at every size", ("operator", "conv"), lambda _, value: value < 1),
        ("the layer is faster from 28 pixels on", ("ddf", "conv"), lambda size, value: size < 28 or value < 1),
        ("the layer is slower at 7 and 14 pixels", ("ddf", "conv"), lambda size, value: size >= 28 or value > 1),
        (
            "the operator takes 2.4 times a depthwise convolution's time or less (1.7 to 2.4)",
            ("operator", "depthwise"),
            lambda _, value: value <= 2.4,
        ),
    ):
        ratios = {case.size: _ratio(results, "tableA", case, names) for case in LAYER_GROUPS["tableA"]}
        known = {size: ratio for size, ratio in ratios.items() if ratio is not None}
        figures = ", ".join(f"{ratio:.2f} at {size}" for size, ratio in known.items())
        complete = len(known) == len(ratios)
        yield f"Table A: {claim}", figures, all(holds(*each) for each in known.items()) if complete else None


# --- writing --------------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Format a number with three digits, or as an integer."""
    return _NOT_RUN if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def tables(results: Results) -> list[str]:
    """Return the lines of table.md."""
    lines = ["| claim | here | by |", "|---|---|---|"]
    lines += [f"| {each['claim']} | **{each['verdict']}** | {each['figures']} |" for each in results["claims"]]
    for name, make in zip(TABLES, (_table_1, _table_2, _table_a), strict=True):
        lines += ["", *make(results[name]), *_about(results[name])]
    return lines


def _about(results: Results) -> list[str]:
    if "machine" not in results:
        return []
    machine = results["machine"]
    where = f"{machine['cpu']}, {machine['threads']} threads, {machine['cpu_kernel']}, torch {machine['torch']}"
    return ["", f"`{results['command']}`: {where}, commit {machine['commit']}, median of {results['rounds']} rounds."]


def _cells(own: Results, name: str) -> list[str]:
    """Return milliseconds, their ratio to the convolution, and MiB; or the reason why it was skipped."""
    if name in own["skipped"]:
        return [f"not run: {own['skipped'][name]}", "", ""]
    row = own["rows"].get(name, {})
    return [number(row.get(key)) for key in ("ms", "over_conv", "added_mib")]


_OURS = ["ms", "x convolution", "MiB measured beyond parameters, input, output"]


def _table_1(results: Results) -> list[str]:
    [(case, own)] = results["cases"].items()
    headers = ["", "parameters, paper", "by formula", "counted", "GFLOP by formula"]
    headers += ["MiB of generated filters by formula", *_OURS]
    rows = []
    for name, row in ROWS.items():
        cost = own["by_formula"][name]
        cells = [row.title, row.paper or "-", f"{cost['parameters_by_formula']:,.0f}", f"{cost['parameters']:,}"]
        cells += [number(cost["flops"] / 1e9), number(cost["filters_mib"])]
        rows.append([*cells, *_cells(own, name)])
    return [f"**Table 1**, measured on {_case('table1', case)}:", "", *table(headers, rows)]


def _table_2(results: Results) -> list[str]:
    [(case, own)] = results["cases"].items()
    headers = ["", "paper: ms", "x convolution", "MiB beyond input and output", "GFLOP by formula"]
    headers += ["MiB of generated filters by formula", *_OURS]
    rows = []
    for name, row in ROWS.items():
        theirs = ["-"] * 3
        if name in PAPER_2:
            milliseconds = PAPER_2[name][1]
            theirs = [number(milliseconds), number(milliseconds / PAPER_2["conv"][1]), number(paper_added(name))]
        cost = own["by_formula"][name]
        cells = [number(cost["flops"] / 1e9), number(cost["filters_mib"])]
        rows.append([row.title, *theirs, *cells, *_cells(own, name)])
    return [f"**Table 2**, on {_case('table2', case)}:", "", *table(headers, rows)]


def _table_a(results: Results) -> list[str]:
    titles = ["depthwise", "DDF, layer", "DDF, operator"]
    headers = ["pixels", "paper: ms of a convolution", *(f"{title}, x that" for title in titles)]
    headers += ["ours: ms of a convolution", *(f"{title}, x that" for title in titles)]
    measured = {case.size: results["cases"][case.name]["rows"] for case in LAYER_GROUPS["tableA"]}
    rows = []
    for size, (conv, *others) in PAPER_A.items():
        own = measured.get(size, {})
        cells = [str(size), *map(number, (conv, *(other / conv for other in others)))]
        cells.append(number(own.get(KINDS[0], {}).get("ms")))
        cells += [number(own.get(kind, {}).get("over_conv")) for kind in KINDS[1:]]
        rows.append(cells)
    title = "**Table A**, 256 channels, batch 32; 224 pixels: not run, because the check would hold about 20 GiB:"
    return [title, "", *table(headers, rows)]


def _case(group: str, name: str) -> str:
    [case] = [case for case in LAYER_GROUPS[group] if case.name == name]
    return "x".join(map(str, case.shape))


def main(folder: Path = HERE) -> None:
    """Read ``folder/results``, write ``folder/results.json`` and ``folder/table.md``."""
    sources = {name: folder / "results" / f"{name}.json" for name in TABLES}
    results = collect({name: documents.read(file) for name, file in sources.items() if file.is_file()})
    lines = tables(results)
    files.atomic_write(folder / "results.json", json.dumps(results, indent=2) + "\n")
    files.atomic_write(folder / "table.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
