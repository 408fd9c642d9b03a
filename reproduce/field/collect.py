"""Table of two results files of `measure.py`, before and after, and results.json with both; for run.sh.

python reproduce/field/collect.py BEFORE.json AFTER.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from reporting import table  # noqa: E402

from ddfnet import files  # noqa: E402

Results = dict[str, Any]
INPUTS = {"strided": "every r-th pixel", "mean": "block means", "median": "block medians"}


def pair(before: float, after: float, form: str = ".2f") -> str:
    return f"{before:{form}} → {after:{form}}"


def shares(before: Results, after: Results) -> list[str]:
    """Format the medians over frames."""
    ratios = list(after["strided"])
    rows = [
        [name, *(pair(median(before[kind][ratio]), median(after[kind][ratio]), ".3f") for ratio in ratios)]
        for kind, name in INPUTS.items()
    ]
    return table(["input", *(f"{ratio}x" for ratio in ratios)], rows)


def main(before: Results, after: Results) -> str:
    lines = ["RMSE as a share of aligned bilinear's, before → after, median over eight rendered scenes of two layers\n"]
    lines += shares(before["scenes"], after["scenes"])
    if "sensors" in after and "sensors" in before:
        count = len(after["frames"])
        lines += [f"\nThe same over {count} frames of sensors, whose own map is the truth\n"]
        lines += shares(before["sensors"], after["sensors"])
    lines += [
        "\nRMSE in holes of full-size maps, as a share of SciPy's linear interpolation, mean over six of the scenes\n"
    ]
    lines += table(
        ["missing but for", "before → after"],
        (
            [name, pair(sum(before["holes"][name]) / len(own), sum(own) / len(own))]
            for name, own in after["holes"].items()
        ),
    )
    lines += ["\nIoU of the validity of a disc on an empty background\n"]
    lines += table(
        ["ratio", "nearest sample", "ddfnet, before → after"],
        (
            [f"{ratio}x", f"{own['nearest']:.3f}", pair(before["validity"][ratio]["ddfnet"], own["ddfnet"], ".3f")]
            for ratio, own in after["validity"].items()
        ),
    )
    lines += ["\nA plane, before → after: mean angle to its normal; bias and largest jitter, in pixels\n"]
    lines += table(
        ["ratio", "normal, degrees", "bias", "jitter"],
        (
            [
                f"{ratio}x",
                pair(before["planes"][ratio]["normal"], own["normal"], ".3f"),
                pair(before["planes"][ratio]["bias"], own["bias"], ".3f"),
                pair(before["planes"][ratio]["jitter"], own["jitter"], ".3f"),
            ]
            for ratio, own in after["planes"].items()
        ),
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    found = [json.loads(Path(file).read_text()) for file in sys.argv[1:3]]
    files.atomic_write(HERE / "results.json", json.dumps({"before": found[0], "after": found[1]}, indent=1) + "\n")
    files.atomic_write(HERE / "table.md", text := main(*found))
    print(text)
