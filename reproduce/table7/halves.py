"""Print the errors on the Middlebury pairs, each with the weights that did not see it: python halves.py RESULTS.json"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

HALVES = {"a": (3, 7, 11, 15, 19, 23, 27), "b": (5, 9, 13, 17, 21, 25, 29)}
SEEN = {f"{kind}-{name}/model": numbers for kind in ("half", "middlebury") for name, numbers in HALVES.items()}
FIELDS = "rmse", "flying_near_edges"


def main(file: str) -> None:
    """Print a line per factor and method; a method of no half is averaged over the same 14 pairs."""
    results = json.loads(Path(file).read_text())
    pairs = {f"middlebury {number:02}": number for numbers in HALVES.values() for number in numbers}
    found: dict[tuple[int, str], list[list[float]]] = defaultdict(list)
    for row in results["rows"]:
        method, scene = row["method"], row["scene"]
        if scene in pairs and pairs[scene] not in SEEN.get(method, ()):
            name = f"{method.partition('-')[0]}, of the other half" if method in SEEN else method
            found[row["factor"], name].append([row[field] for field in FIELDS])
    for (factor, name), rows in sorted(found.items()):
        means = (f"{field} {fmean(own):.3f}" for field, own in zip(FIELDS, zip(*rows, strict=True), strict=True))
        print(f"{results['protocol']} {factor}x {name} ({len(rows)} pairs):", ", ".join(means))


if __name__ == "__main__":
    main(sys.argv[1])
