"""Join the runs of train.py to results.json, and make table.md: python -m reproduce.segmentation.collect FOLDER"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from ddfnet import files
from reproduce.reporting import lead, spread, table, with_deviation, with_error

HERE = Path(__file__).parent
SCORES = ("miou", "boundary", "accuracy")
BASE = "bilinear"
TITLES = {
    "nearest": "nearest",
    "bilinear": "bilinear",
    "pixelshuffle": "pixel shuffle",
    "carafe": "CARAFE",
    "dysample": "DySample",
    "paper": "DDF-Up, begun at random as the paper's",
    "ddf": "DDF-Up, begun as bilinear interpolation",
    "guided": "the same, guided by the image",
}


def main(folder: str) -> None:
    runs = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        for score in SCORES:
            found[run["upsampler"]][score][str(run["seed"])] = run[score]
    rows: dict[str, Any] = {}
    for name in TITLES:
        if name in found:
            own = found[name]
            rows[name] = {score: spread(values) for score, values in own.items()}
            rows[name]["parameters"] = next(run["parameters"] for run in runs if run["upsampler"] == name)
            if name != BASE and BASE in found:
                rows[name]["over_bilinear"] = {score: lead(own[score], found[BASE][score]) for score in SCORES}
    summary = {
        "command": "python -m reproduce.segmentation.train nyu8.tar PACKAGE FOLDER",
        "machine": runs[0]["machine"],
        "steps": runs[0]["steps"],
        "rows": rows,
        "loss": {f"{run['upsampler']}-{run['seed']}": run["loss"] for run in runs},
    }
    files.atomic_write(HERE / "results.json", json.dumps(summary, indent=1) + "\n")
    lines = table(
        [
            "upsampler",
            "seeds",
            "mIoU",
            "boundary F-score",
            "pixel accuracy",
            "mIoU over bilinear",
            "F-score over bilinear",
        ],
        (
            [
                TITLES[name],
                str(len(row["miou"]["by_seed"])),
                *(with_deviation(row[score]) for score in SCORES),
                *(with_error(row.get("over_bilinear", {}).get(score)) for score in ("miou", "boundary")),
            ]
            for name, row in rows.items()
        ),
    )
    files.atomic_write(HERE / "table.md", text := "\n".join(lines) + "\n")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1])
