"""Print the tables of README.md from results/look.json: python -m reproduce.learning.tables"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from reproduce.reporting import table

HERE = Path(__file__).parent

ROWS = {
    "depthwise": "depthwise convolution",
    "channel": "DDF, channel filters only",
    "spatial": "DDF, spatial filters only",
    "spatial-none": "... without FilterNorm",
    "ddf": "DDF, the paper's form",
    "start-depthwise": "DDF, begun as a depthwise convolution (`zero_init`)",
    "scale": "DDF, scales of channel filters begun as small as depthwise weights",
    "started": "... and what predicts filters as PyTorch begins it",
    "static": "DDF with a static weight",
}
PARTS = {
    r"conv[13]\.weight": "1x1 convolutions",
    r"conv2\.weight": "static weight",
    r"channel\.norm\.scale": "scale of channel filters",
    r"channel\.expand\.weight": "weight, channel",
    r"channel\.expand\.bias": "bias, channel",
    r"spatial\.norm\.scale": "scale of spatial filters",
    r"spatial\.conv\.weight": "weight, spatial",
    r"spatial\.conv\.bias": "bias, spatial",
}
FACTS = ("energy", "rank", "neighbours", "dynamic")


def moved(updates: dict[str, float]) -> dict[str, float]:
    """Return the median update of each part over the network's blocks."""
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in updates.items():
        for pattern, part in PARTS.items():
            if re.search(rf"\.{pattern}$", name):
                found[part].append(value)
    return {part: median(values) for part, values in found.items()}


def done(mixers: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the median of each fact over the network's mixers."""
    return {
        fact: median(own[fact] for own in mixers.values())
        for fact in FACTS
        if all(fact in own for own in mixers.values())
    }


def main() -> None:
    results: dict[str, Any] = json.loads((HERE / "results" / "look.json").read_text())["rows"]
    rows = {name: title for name, title in ROWS.items() if name in results}
    steps = sorted({int(step) for own in results.values() for step in own["seen"]})
    first, last = steps[0], steps[-1]
    print(f"Update over length, in thousandths, mean of the 20 steps before step {last}, median over seven blocks\n")
    updates = {name: moved(results[name]["seen"][str(last)]["update"]) for name in rows}
    lines = (
        [title, *(_number(updates[name].get(part), 1000) for part in PARTS.values())] for name, title in rows.items()
    )
    print("\n".join(table(["", *PARTS.values()], lines)))
    print(f"\nAt the start and after {last} steps, median over seven mixers; loss of the last 50 steps\n")
    facts = {name: [done(results[name]["seen"][str(step)]["mixers"]) for step in (first, last)] for name in rows}
    lines = (
        [
            title,
            *(
                " → ".join(_number(own.get(fact)) for own in facts[name]) if fact in facts[name][1] else ""
                for fact in FACTS
            ),
            f"{results[name]['loss_of_50_steps'][-1]:.3f}",
        ]
        for name, title in rows.items()
    )
    print("\n".join(table(["", *FACTS, "loss"], lines)))


def _number(value: float | None, times: float = 1) -> str:
    if value is None:
        return ""
    return "-" if math.isnan(value) else f"{value * times:.2g}"


if __name__ == "__main__":
    main()
