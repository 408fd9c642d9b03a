"""Make results.json and table.md of what `ddfnet evaluate` left in results/: run by run.sh."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCENES = ("motorcycle", "aloe")
FACTORS = (4, 8, 16)
ROWS = {  # of the comparison at 8x, by the names that run.sh gives them
    "carried": "depth carried by softmax filters, which are the features' too (the package's form)",
    "twin": "plain twin: bilinear x2 and the same guide",
    "paper": "the paper's form: features alone, both filters, `mul`, FilterNorm",
    "paper-softmax": "the same with softmax for FilterNorm",
    "paper-spatial": "the same with spatial filters only",
    "paper-channel": "the same with channel filters only",
    "paper-add": "the same with `add`",
}


def read(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((HERE / "results" / f"{name}.json").read_text())
    return results


def by_method(results: dict[str, Any]) -> dict[str, dict[tuple[str, int], dict[str, Any]]]:
    rows: dict[str, dict[tuple[str, int], dict[str, Any]]] = defaultdict(dict)
    for row in results["rows"]:
        rows[row["method"]][row["scene"], row["factor"]] = row
    return rows


def seeds(results: dict[str, Any]) -> dict[str, Any]:
    """Of each row of the comparison at 8x: the ratio on each scene, by seed, with mean and standard deviation."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for method, rows in by_method(results).items():
        run, _, _ = method.partition("/")
        name, _, seed = run.rpartition("-")
        if name in ROWS:
            for (scene, _), row in rows.items():
                found[name][scene][seed] = row["ratio"]
    return {
        name: {
            scene: {
                "by_seed": values,
                "mean": statistics.mean(values.values()),
                "std": statistics.stdev(values.values()) if len(values) > 1 else None,
            }
            for scene, values in found[name].items()
        }
        for name in ROWS
        if name in found
    }


def main() -> None:
    pac, lines = read("pac"), []
    methods = by_method(pac)
    lines += [
        "| RMSE as a share of aligned bilinear's, `pac` | "
        + " | ".join(f"{s} {f}x" for s in SCENES for f in FACTORS)
        + " |"
    ]
    lines += ["|---" * (1 + len(SCENES) * len(FACTORS)) + "|"]
    for method, rows in methods.items():
        cells = [f"{rows[scene, factor]['ratio']:.3f}" for scene in SCENES for factor in FACTORS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    summary: dict[str, Any] = {"pac": {"command": pac["command"], "machine": pac["machine"], "rows": pac["rows"]}}
    if (HERE / "results" / "ablation.json").exists():
        ablation = read("ablation")
        summary["ablation"] = {"command": ablation["command"], "machine": ablation["machine"], "rows": seeds(ablation)}
        lines += ["", "| at 8x, mean and standard deviation of three seeds | motorcycle | aloe |", "|---|---|---|"]
        for name, scenes in summary["ablation"]["rows"].items():
            cells = [f"{scenes[s]['mean']:.3f} ± {scenes[s]['std'] or 0:.3f}" for s in SCENES]
            lines.append(f"| {ROWS[name]} | " + " | ".join(cells) + " |")
    (HERE / "results.json").write_text(json.dumps(summary, indent=2) + "\n")
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
