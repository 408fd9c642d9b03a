"""Print the errors on the Middlebury pairs, each with the weights that did not see it: python halves.py RESULTS.json"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean

SEEN = {"half-a": "03 07 11 15 19 23 27".split(), "half-b": "05 09 13 17 21 25 29".split()}
FIELDS = "rmse", "flying_near_edges"


def main(file: str) -> None:
    """Print a line per factor and method; a method of no half is averaged over the same 14 pairs."""
    results = json.loads(Path(file).read_text())
    pairs = {f"middlebury {name}" for names in SEEN.values() for name in names}
    found: dict[tuple[int, str], list[list[float]]] = defaultdict(list)
    for row in results["rows"]:
        method, scene = row["method"], row["scene"]
        if scene in pairs and scene.removeprefix("middlebury ") not in SEEN.get(method, ()):
            name = "the other half's" if method in SEEN else method
            found[row["factor"], name].append([row[field] for field in FIELDS])
    for (factor, name), rows in sorted(found.items()):
        means = (f"{field} {fmean(own):.3f}" for field, own in zip(FIELDS, zip(*rows, strict=True), strict=True))
        print(f"{results['protocol']} {factor}x {name} ({len(rows)} pairs):", ", ".join(means))


if __name__ == "__main__":
    main(sys.argv[1])
