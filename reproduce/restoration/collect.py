"""Join the runs of train.py to results.json, and make table.md: python -m reproduce.restoration.collect FOLDER"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from ddfnet import files
from reproduce.reporting import commits, finished_runs, lead, spread, table, with_deviation, with_error
from reproduce.restoration import networks

HERE = Path(__file__).parent
PARTS = ("imagenette", "photographs")
TASKS = {
    "noise-25": "noise of deviation 25",
    "noise-camera": "noise of a camera",
    "enlarge-4": "enlargement by four",
}
EQUAL = {"macs": "equal multiply-accumulates", "parameters": "equal parameters"}
TITLES = {
    "convolution": "convolution",
    "depthwise": "depthwise convolution",
    "spatial": "DDF with a static weight, spatial filters only",
    "paper": "DDF, the paper's form",
    "ddf": "DDF with a static weight",
}


def main(folder: str) -> None:
    runs = finished_runs(folder)
    rows: list[dict[str, Any]] = []
    for task in TASKS:
        for equal in EQUAL:
            # The network with DDF is one for both comparisons.
            found = {mixer: _runs(runs, task, mixer, "macs" if mixer == "ddf" else equal) for mixer in networks.MIXERS}
            rows += [_row(task, equal, mixer, found) for mixer in TITLES if found[mixer]]
    summary = {
        "command": "python -m reproduce.restoration.train imagenette112.tar FOLDER",
        "machine": runs[0]["machine"],
        "commits": commits(runs),
        "steps": runs[0]["steps"],
        "rows": rows,
        "loss": {f"{run['task']}-{run['mixer']}-{run['equal']}-{run['seed']}": run["loss"] for run in runs},
    }
    files.atomic_write(HERE / "results.json", json.dumps(summary, indent=1) + "\n")
    files.atomic_write(HERE / "table.md", text := "\n".join(_tables(rows)) + "\n")
    print(text)


def _runs(runs: list[dict[str, Any]], task: str, mixer: str, equal: str) -> list[dict[str, Any]]:
    return [run for run in runs if (run["task"], run["mixer"], run["equal"]) == (task, mixer, equal)]


def _row(task: str, equal: str, mixer: str, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the scores of a mixer, and by how much DDF is ahead of it with the same seed."""
    facts = found[mixer][0]
    row: dict[str, Any] = {"task": task, "equal": equal, "mixer": mixer}
    row |= {name: facts[name] for name in ("channels", "parameters", "macs")}
    row["seconds"] = round(sum(run["seconds"] for run in found[mixer]) / len(found[mixer]))
    for part in PARTS:
        scores: dict[str, Any] = defaultdict(dict)
        for run in found[mixer]:
            for score, value in run[part].items():
                scores[score][str(run["seed"])] = value
        row[part] = {score: spread(values) for score, values in scores.items()}
        own = {str(run["seed"]): run[part]["psnr"] for run in found["ddf"]}
        if mixer != "ddf" and own.keys() & scores["psnr"].keys():
            row[part]["ddf_ahead"] = lead(own, scores["psnr"])
    return row


def _tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return one table per task and comparison."""
    lines: list[str] = []
    headers = ["layer", "channels", "1000 parameters", "MMAC", "seeds"]
    headers += [f"{part}: {score}" for part in PARTS for score in ("PSNR", "SSIM", "DDF is ahead by, dB")]
    for task, title in TASKS.items():
        for equal, comparison in EQUAL.items():
            own = [row for row in rows if (row["task"], row["equal"]) == (task, equal)]
            if own:
                lines += [f"## {title.capitalize()}, {comparison}", "", *table(headers, map(_cells, own)), ""]
    return lines[:-1]


def _cells(row: dict[str, Any]) -> list[str]:
    cells = [TITLES[row["mixer"]], str(row["channels"])]
    cells += [f"{row['parameters'] / 1e3:.1f}", f"{row['macs'] / 1e6:.1f}"]
    cells.append(str(len(row[PARTS[0]]["psnr"]["by_seed"])))
    for part in PARTS:
        found = row[part]
        cells += [with_deviation(found["psnr"]), f"{found['ssim']['mean']:.4f}", with_error(found.get("ddf_ahead"))]
    return cells


if __name__ == "__main__":
    main(sys.argv[1])
