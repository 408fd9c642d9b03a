"""Script of run.sh that draws the learning curves (curves.svg) and the accuracy against MACs (accuracy.svg)."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "ddfnet"  # the same figures give the same file

import matplotlib.pyplot as plt  # noqa: E402

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from rows import ROWS  # noqa: E402

from ddfnet.bench.roofline import spread  # noqa: E402

DRAWN = ("conv", "depthwise", "spatial", "channel", "ddf", "add")  # as curves; more would hide each other
_METADATA = {"Date": None}


def curves(rows: dict[str, Any], file: Path) -> bool:
    """Draw the top-1 accuracy after each epoch: the mean over the seeds, between the worst and the best seed."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name in DRAWN:
        seeds = [[100 * top1 for top1 in run["curve"]] for run in rows[name]["by_seed"].values() if "curve" in run]
        if not seeds:
            continue
        at = list(zip(*seeds, strict=False))  # the seeds' values after each epoch
        epochs = range(1, len(at) + 1)
        [line] = axes.plot(epochs, [statistics.mean(values) for values in at], label=ROWS[name].title)
        axes.fill_between(epochs, list(map(min, at)), list(map(max, at)), alpha=0.2, color=line.get_color(), lw=0)
    return _save(figure, axes, file, "epoch", legend=True)


def accuracy(rows: dict[str, Any], file: Path) -> bool:
    """Draw the top-1 accuracy against MACs, with the deviation over the seeds."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    known = sorted((row["mean"], name) for name, row in rows.items() if row["mean"] is not None)[::-1]
    for mean, name in known:
        axes.errorbar(rows[name]["macs"] / 1e6, mean, yerr=rows[name]["std"] or 0, fmt="o", capsize=3)
    axes.margins(x=0.1)
    low, high = axes.get_ylim()
    heights = spread([(mean - low) / (high - low) for mean, _ in known], 0.05)
    for (mean, name), height in zip(known, heights, strict=True):  # beside the plot, where none hides another
        at = rows[name]["macs"] / 1e6, mean
        line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "relpos": (0, 0.5)}
        place = {"xytext": (1.03, height), "textcoords": axes.transAxes, "va": "center"}
        axes.annotate(name, at, fontsize=8, arrowprops=line, **place)
    return _save(figure, axes, file, "million multiply-accumulates per image", legend=False)


def _save(figure: Any, axes: Any, file: Path, x: str, *, legend: bool) -> bool:
    """Save the figure if it has data, and return that."""
    drawn = axes.has_data()
    if drawn:
        axes.set(xlabel=x, ylabel="top-1 on CIFAR-10, per cent")
        axes.grid(alpha=0.3)
        if legend:
            axes.legend()
        figure.savefig(file, metadata=_METADATA)
    plt.close(figure)
    return drawn


def main() -> None:
    rows = json.loads((HERE / "results.json").read_text())["rows"]
    for draw, name in ((curves, "curves.svg"), (accuracy, "accuracy.svg")):
        print(f"{name}: {'drawn' if draw(rows, HERE / name) else 'no run to draw yet'}")


if __name__ == "__main__":
    main()
