"""Join trainings to results/choices.json, and print their table: python -m reproduce.learning.collect RUN...

Each RUN is the folder of a ``ddfnet train classification``; its name is the row's.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from ddfnet import files
from reproduce.reporting import table

HERE = Path(__file__).parent


def read(folder: Path) -> dict[str, Any]:
    """Return what a run was, and its loss and top-1 accuracy of each epoch."""
    card = json.loads((folder / "model.json").read_text())
    losses: dict[int, list[float]] = defaultdict(list)
    top1: dict[int, float] = {}
    with (folder / "csv" / "version_0" / "metrics.csv").open() as lines:
        for row in csv.DictReader(lines):
            if row["loss"]:
                losses[int(row["epoch"])].append(float(row["loss"]))
            if row["top1"]:
                top1.setdefault(int(row["epoch"]), float(row["top1"]))
    return {
        "network": card["network"],
        "epochs": card["epochs"],
        "seed": card["seed"],
        "precision": card["config"]["trainer"]["precision"],
        "parameters": card["parameters"],
        "machine": card["machine"],
        "loss": [round(fmean(own), 4) for _, own in sorted(losses.items())],
        "top1": [100 * own for _, own in sorted(top1.items())],
    }


def main(folders: list[str]) -> None:
    target = HERE / "results" / "choices.json"
    rows = json.loads(target.read_text())["rows"] if target.exists() else {}
    rows |= {Path(folder).name: read(Path(folder)) for folder in folders}
    what = "ddfnet train classification --config reproduce/table3/cifar10.yaml --data.path cifar10-validation.tar"
    target.parent.mkdir(exist_ok=True)
    files.atomic_write(target, json.dumps({"command": what, "rows": rows}, indent=1) + "\n")
    lines = (
        [name, str(row["epochs"]), str(row["seed"]), f"{row['loss'][-1]:.3f}", f"{row['top1'][-1]:.1f}"]
        for name, row in sorted(rows.items(), key=lambda item: (item[1]["epochs"], item[0]))
    )
    print("\n".join(table(["row", "epochs", "seed", "loss of the last epoch", "top-1 on validation"], lines)))


if __name__ == "__main__":
    main(sys.argv[1:])
