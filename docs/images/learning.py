"""Script that draws learning.svg: what the filters of a small network do in its first 200 steps."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from reproduce.learning.tables import PARTS, done, moved

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "reproduce" / "learning" / "results" / "look.json"
ROWS = {
    "depthwise": ("depthwise convolution", "black"),
    "ddf": ("DDF, the paper's form", "C3"),
    "spatial": ("spatial filters only", "C1"),
    "channel": ("channel filters only", "C0"),
    "static": ("DDF with a static weight", "C2"),
}
# The parameters that stand for a depthwise convolution's weight.
WEIGHTS = {"depthwise": "static weight", "ddf": "scale of channel filters", "static": "static weight"}


def main() -> None:
    matplotlib.rcParams["svg.hashsalt"] = "learning"  # the same file from the same results
    results = json.loads(RESULTS.read_text())["rows"]
    steps = [int(step) for step in results["ddf"]["seen"]]
    figure = Figure(figsize=(10, 3.4), facecolor="white", layout="constrained")
    share, speed, loss = figure.subplots(1, 3)
    for name, (title, colour) in ROWS.items():
        seen = results[name]["seen"]
        if name != "depthwise":
            dynamic = [100 * done(seen[str(step)]["mixers"])["dynamic"] for step in steps]
            share.plot(steps, dynamic, ".-", color=colour)
        if name in WEIGHTS:
            assert WEIGHTS[name] in PARTS.values()
            updates = [1000 * moved(seen[str(step)]["update"])[WEIGHTS[name]] for step in steps[1:]]
            speed.plot(steps[1:], updates, ".-", color=colour)
        loss.plot((50, 100, 150, 200), results[name]["loss_of_50_steps"], ".-", color=colour, label=title)
    share.set_title("variance from filters that differ, %", fontsize=10)
    speed.set_title("step over length of the weight, thousandths", fontsize=10)
    speed.set_yscale("log")
    loss.set_title("training loss of the last 50 steps", fontsize=10)
    for each in (share, speed, loss):
        each.set_xlabel("step")
        each.grid(alpha=0.3)
    share.set_ylim(0, 100)
    loss.legend(fontsize=8)
    figure.savefig(HERE / "learning.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
