"""Join the evaluations on NYU to results/nyu.json, and print its table: python nyu.py RESULTS.json...

Each file holds the 449 pairs of some methods. The summary has their means, and the lead of our network over the others,
in per cent, with its standard error over the pairs.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reporting import table  # noqa: E402

from ddfnet import files  # noqa: E402

OURS = "nyu/model"
TITLES = {
    "bilinear": "bilinear, aligned",
    "bicubic-pillow": "bicubic (Pillow)",
    "pacnet.py:pacnet": "PAC-Net of our own",
    "nyu-twin/model": "plain network, no DDF-Up",
    OURS: "ddfnet",
}
Case = tuple[str, int, str]  # protocol, factor and method


def read(paths: list[str]) -> tuple[dict[str, Any], dict[Case, dict[str, Any]], dict[Case, dict[str, float]]]:
    """Return what the files say of their runs, their mean rows, and the error of each pair."""
    facts: dict[str, Any] = {"commands": [], "machine": {}, "networks": {}}
    means: dict[Case, dict[str, Any]] = {}
    errors: dict[Case, dict[str, float]] = defaultdict(dict)
    for path in paths:
        results = json.loads(Path(path).read_text())
        facts["commands"].append(results["command"])
        facts["machine"] = results["machine"]
        for network in results["networks"]:
            card = {name: value for name, value in network["card"].items() if name != "config"}
            facts["networks"][network["name"]] = {"parameters": network["parameters"], "card": card}
        for row in results["rows"]:
            case = row["protocol"], row["factor"], row["method"].rpartition("table7/")[2]
            if row["scene"].startswith("mean of"):
                means[case] = row
            elif errors[case].setdefault(row["scene"], row["rmse"]) != row["rmse"]:
                raise ValueError(f"{path}: {row['method']} on {row['scene']} differs from another file's")
    return facts, means, errors


def lead(own: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Return by how much the mean error is below another's, in per cent, and the standard error of that."""
    differences = [100 * (other[scene] - error) / fmean(other.values()) for scene, error in own.items()]
    return {
        "percent": round(fmean(differences), 2),
        "standard_error": round(stdev(differences) / math.sqrt(len(differences)), 2),
    }


def main(paths: list[str]) -> None:
    facts, means, errors = read(paths)
    rows: list[dict[str, Any]] = []
    for (protocol, factor, method), mean in means.items():
        own = errors[protocol, factor, method]
        row = {"protocol": protocol, "factor": factor, "method": method, "pairs": len(own)}
        row |= {name: round(mean[name], 5) for name in ("rmse", "ratio", "flying_near_edges")}
        if method != OURS and (ours := errors.get((protocol, factor, OURS))) is not None:
            row["lead_of_ours"] = lead(ours, own)
        rows.append(row)
    files.atomic_write(HERE / "results" / "nyu.json", json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    cases = [(protocol, factor) for protocol in ("pac", "gdsr") for factor in (4, 8, 16)]
    shown = {case: f"{mean['rmse']:.2f}" for case, mean in means.items()}
    lines = ([title, *(shown.get((*case, name), "") for case in cases)] for name, title in TITLES.items())
    print("\n".join(table(["RMSE, cm", *(f"`{name}` {factor}x" for name, factor in cases)], lines)))


if __name__ == "__main__":
    main(sys.argv[1:])
