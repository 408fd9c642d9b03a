"""Join the runs of train.py to results.json, and make table.md: python -m reproduce.segmentation.collect FOLDER"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from ddfnet import files
from reproduce.reporting import commits, finished_runs, lead, spread, table, with_deviation, with_error

HERE = Path(__file__).parent
SCORES = {
    "miou": "mIoU",
    "boundary": "boundary F-score, 3 px",
    "boundary_fine": "1 px",
    "accuracy": "pixel accuracy",
}
LEADS = ("miou", "boundary", "boundary_fine")
BASE = "bilinear"
ENCODERS = {"frozen": "The encoder is frozen:", "trained": "The encoder learns too, for some steps more:"}
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
    runs = finished_runs(folder)
    summary: dict[str, Any] = {
        "command": "python -m reproduce.segmentation.train nyu8.tar PACKAGE FOLDER [--through STEPS]",
        "machine": runs[0]["machine"],
        "commits": commits(runs),
    }
    lines: list[str] = []
    for encoder, title in ENCODERS.items():
        own = [run for run in runs if run["encoder"] == encoder]
        if own:
            rows = _rows(own)
            loss = {f"{run['upsampler']}-{run['seed']}": run["loss"] for run in own}
            summary[encoder] = {"steps": own[0]["steps"], "rows": rows, "loss": loss}
            lines += [title, "", *_table(rows), ""]
    files.atomic_write(HERE / "results.json", json.dumps(summary, indent=1) + "\n")
    files.atomic_write(HERE / "table.md", text := "\n".join(lines[:-1]) + "\n")
    print(text)


def _rows(runs: list[dict[str, Any]]) -> dict[str, Any]:
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
            if name != BASE and own["miou"].keys() & found[BASE]["miou"].keys():
                rows[name]["over_bilinear"] = {score: lead(own[score], found[BASE][score]) for score in SCORES}
    return rows


def _table(rows: dict[str, Any]) -> list[str]:
    leads = (f"over bilinear: {SCORES[score]}" for score in LEADS)
    headers = ["upsampler", "parameters of the decoder", "seeds", *SCORES.values(), *leads]
    return table(
        headers,
        (
            [
                TITLES[name],
                f"{row['parameters'] / 1e3:.0f} k",
                str(len(row["miou"]["by_seed"])),
                *(with_deviation(row[score]) for score in SCORES),
                *(with_error(row.get("over_bilinear", {}).get(score)) for score in LEADS),
            ]
            for name, row in rows.items()
        ),
    )


if __name__ == "__main__":
    main(sys.argv[1])
