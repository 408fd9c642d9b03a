"""Collection of results.json and table.md from the results of `ddfnet evaluate` and `ddfnet bench depth`, for run.sh.

Missing results are left out.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reporting import spread, table  # noqa: E402

from ddfnet import files  # noqa: E402

COSTS = HERE.parents[1] / "benchmarks" / "results" / "depth.json"
FACTOR = 8  # factor of the comparison of small networks
ROWS = {  # descriptions in that comparison, by the names in run.sh
    "carried": "the package's form: softmax filters carry the depth, and are the features' too",
    "twin": "plain network: bilinear x2 and the same guide",
    "features": "the paper's form: features alone bring the depth; both filters, `mul`, softmax",
    "features-filter": "the same with FilterNorm, as the paper has it",
    "features-spatial": "the same with spatial filters only",
    "features-channel": "the same with channel filters only",
    "features-add": "the same with `add`",
}

Results = dict[str, Any]  # a results file: command, machine, rows and more


def markdown(title: str, headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([f"{title}\n", *table(headers, rows)])


def method_table(results: Results, what: str, field: str, form: str) -> str:
    """Format one field, with one row per method and one column per scene and factor; the title has the protocol."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for row in results["rows"]:
        cells[row["method"]][f"{row['scene']} {row['factor']}x"] = format(row[field], form)
    cases = list(dict.fromkeys(case for own in cells.values() for case in own))
    title = f"{what}, protocol `{results['protocol']}`"
    return markdown(
        title, ["method", *cases], ([name, *(own.get(c, "") for c in cases)] for name, own in cells.items())
    )


def over_seeds(results: Results) -> dict[str, Results]:
    """Summarise the rows of the comparison: parameters, and per scene the ratio by seed, its mean and deviation."""
    ratios: dict[str, dict[str, float]] = defaultdict(dict)
    for row in results["rows"]:
        if row["factor"] == FACTOR:
            ratios[row["method"]][row["scene"]] = row["ratio"]
    parameters: dict[str, set[int]] = defaultdict(set)
    seeded: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for network in results["networks"]:
        name, _, seed = Path(network["file"]).parent.name.rpartition("-")
        parameters[name].add(network["parameters"])
        for scene, ratio in ratios[network["name"]].items():
            seeded[name][scene][seed] = ratio
    if unknown := seeded.keys() - ROWS:
        raise SystemExit(f"rows of the comparison must be some of {', '.join(ROWS)}, got {', '.join(sorted(unknown))}")
    summary: dict[str, Results] = {}
    for name in (name for name in ROWS if name in seeded):
        [count] = parameters[name]  # alike for every seed
        scenes = {scene: spread(dict(sorted(own.items()))) for scene, own in seeded[name].items()}
        summary[name] = {"parameters": count, "scenes": scenes}
    return summary


def comparison(results: Results, summary: dict[str, Results]) -> str:
    """Format the summary of `over_seeds`."""
    scenes = list(dict.fromkeys(scene for own in summary.values() for scene in own["scenes"]))
    rows = []
    for name, own in summary.items():
        seeds = sorted({seed for each in own["scenes"].values() for seed in each["by_seed"]})
        cells = []
        for each in (own["scenes"][scene] for scene in scenes):
            deviation = "(one seed)" if each["std"] is None else f"± {each['std']:.3f}"
            cells.append(f"{each['mean']:.3f} {deviation}")
        rows.append([ROWS[name], f"{own['parameters']:,}", *cells, ", ".join(seeds)])
    what = f"Small networks at {FACTOR}x: RMSE as a share of aligned bilinear's, mean and standard deviation over seeds"
    return markdown(f"{what}, protocol `{results['protocol']}`", ["network", "parameters", *scenes, "seeds"], rows)


def cost(results: Results) -> str:
    rows = []
    for row in results["rows"]:
        seconds, mib = row["seconds_per_megapixel"], row["mib_per_megapixel"]
        memory = "not measured" if mib is None else f"{mib:.0f}"
        rows.append([row["method"], row["shape"], f"{row['factor']}x", f"{seconds:.2f}", memory])
    return markdown("Cost per megapixel", ["method", "image", "factor", "seconds", "MiB"], rows)


def main(folder: Path = HERE, costs: Path = COSTS) -> None:
    """Read ``folder/results`` and ``costs``, write ``folder/results.json`` and ``folder/table.md``."""
    sources = {name: folder / "results" / f"{name}.json" for name in ("pac", "bicubic", "probe", "ablation")}
    sources["cost"] = costs
    found: dict[str, Results] = {name: json.loads(file.read_text()) for name, file in sources.items() if file.is_file()}
    ratio = "RMSE as a share of aligned bilinear's", "ratio", ".3f"
    tables = []
    if "pac" in found:
        flying = "Share of the pixels near depth edges that fly", "flying_near_edges", ".1%"
        tables += [method_table(found["pac"], *ratio), method_table(found["pac"], *flying)]
    if "bicubic" in found:
        tables.append(method_table(found["bicubic"], *ratio))
    if "probe" in found:
        tables.append(
            method_table(
                found["probe"],
                "The network on one view alone, and with one of its sources taken away: " + ratio[0],
                *ratio[1:],
            )
        )
    kept = {name: {key: own[key] for key in ("command", "machine", "rows")} for name, own in found.items()}
    if "ablation" in found:
        kept["ablation"]["rows"] = over_seeds(found["ablation"])
        tables.append(comparison(found["ablation"], kept["ablation"]["rows"]))
    if "cost" in found:
        tables.append(cost(found["cost"]))
    text = "\n\n".join(tables)
    files.atomic_write(folder / "results.json", json.dumps(kept, indent=2) + "\n")
    files.atomic_write(folder / "table.md", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
