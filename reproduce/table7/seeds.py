"""Summarize the three seeds on NYU at 8x to results/seeds.json, and print their table: python seeds.py RESULTS.json

The lead of our networks over the plain ones is per seed, in per cent of the plain one's error, with the standard error
of its mean over the seeds.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reporting import spread, table  # noqa: E402

from ddfnet import files  # noqa: E402

TITLES = {"twin": "plain network, no DDF-Up", "ours": "ddfnet"}


def main(path: str) -> None:
    results = json.loads(Path(path).read_text())
    errors: dict[str, dict[str, float]] = {name: {} for name in TITLES}
    parameters = {}
    for row in results["rows"]:
        if row["scene"].startswith("mean of") and row["method"] != "bilinear":
            name, _, seed = row["method"].removesuffix("/model").rpartition("/")[2].partition("-")
            errors[name][seed] = row["rmse"]
    for network in results["networks"]:
        parameters[network["name"].removesuffix("/model").rpartition("/")[2].partition("-")[0]] = network["parameters"]
    leads = {seed: 100 * (1 - errors["ours"][seed] / error) for seed, error in errors["twin"].items()}
    summary: dict[str, Any] = {name: results[name] for name in ("command", "machine")}
    summary |= {"rmse": {name: spread(own) for name, own in errors.items()}, "parameters": parameters}
    summary["lead"] = spread(leads) | {"standard_error": stdev(leads.values()) / math.sqrt(len(leads))}
    summary["bilinear"] = next(
        row["rmse"] for row in results["rows"] if row["method"] == "bilinear" and row["scene"].startswith("mean of")
    )
    files.atomic_write(HERE / "results" / "seeds.json", json.dumps(summary, indent=1) + "\n")
    rows = [
        [
            title,
            f"{parameters[name]:,}",
            *(f"{errors[name][seed]:.2f}" for seed in leads),
            f"{fmean(errors[name].values()):.2f}",
        ]
        for name, title in TITLES.items()
    ]
    print("\n".join(table(["RMSE, cm", "parameters", *(f"seed {seed}" for seed in leads), "mean"], rows)))
    print(f"ahead by {summary['lead']['mean']:.1f} ± {summary['lead']['standard_error']:.1f} %")


if __name__ == "__main__":
    main(sys.argv[1])
