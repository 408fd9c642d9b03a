"""Roofline plot of the operator's results: the speed of each case below the limit of the machine.

Speed over arithmetic intensity (FLOPs per byte), both on logarithmic axes. The roof comes from the same run, see
`ddfnet.bench.limits`: level where the FMA peak is the limit, sloped where the bandwidth is. There are two slopes, for
the largest and the smallest bandwidth among the cases, because data that fit into a cache are copied faster. A line
connects each point with its own limit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ddfnet.bench.result import Result

_INK, _ROOF, _POINT = "#222222", "#777777", "#1f5fa8"
_MIN_INTENSITY = 0.25
_GAP = 0.05  # between labels, as a share of the axis


@dataclass(frozen=True)
class Point:
    """A case: FLOPs per byte, and GFLOP/s reached and possible."""

    name: str
    intensity: float
    reached: float
    possible: float


def points(results: Sequence[Result], direction: str) -> list[Point]:
    """Return the points of the results in this direction that have a limit, the fastest first."""
    found = []
    for result in results:
        if result.limit is None or result.direction != direction:
            continue
        work, milliseconds = result.limit.flops / 1e6, result.timing(result.ours).median
        intensity = result.limit.flops / result.limit.bytes
        found.append(Point(result.case.name, intensity, work / milliseconds, work / result.limit.milliseconds))
    return sorted(found, key=lambda point: -point.reached)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions in descending order apart to leave this gap between them, and keep them within 0 and 1.

    Example:
        >>> spread([0.5, 0.5, 0.1], 0.2)
        [0.6, 0.4, 0.1]
    """
    last = len(positions) - 1
    gap = min(gap, 1 / max(1, last))

    def pushed_down(positions: Sequence[float]) -> list[float]:
        moved: list[float] = []
        for position in positions:
            moved.append(min(position, moved[-1] - gap) if moved else position)
        return moved

    down, up = pushed_down(positions), [-moved for moved in pushed_down([-p for p in reversed(positions)])][::-1]
    middles = [(a + b) / 2 for a, b in zip(down, up, strict=True)]  # both have the gaps, so their middle has them
    return [round(min(max(middle, (last - index) * gap), 1 - index * gap), 6) for index, middle in enumerate(middles)]


def draw(results: Sequence[Result], title: str, file: Path) -> None:
    """Draw one panel per direction, with a labelled point per case.

    Args:
        results: results of `ddfnet.bench.op`.
        title: the title, such as the machine.
        file: the image; its suffix chooses the format.

    Raises:
        ValueError: no result has a limit, or the format is unknown.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = {
        direction: found
        for direction in dict.fromkeys(result.direction for result in results)
        if (found := points(results, direction))
    }
    if not panels:
        raise ValueError("none of the results has a limit to compare with; give results of `ddfnet bench op`")
    # A white background, because a page may be dark. Text stays text, and the same results give the same file.
    style = {"svg.fonttype": "none", "svg.hashsalt": "ddfnet", "text.color": _INK, "axes.labelcolor": _INK}
    with rc_context(style):
        figure = Figure(figsize=(1 + 5.5 * len(panels), 6), facecolor="white", layout="constrained")
        figure.suptitle(title, fontsize=10)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for panel, (direction, found) in zip(axes, panels.items(), strict=True):
            _panel(panel, direction, [result for result in results if result.direction == direction], found)
        metadata = {"Date": None} if file.suffix == ".svg" else None
        figure.savefig(file, dpi=150, facecolor="white", metadata=metadata)


def _panel(panel, direction: str, results: Sequence[Result], found: Sequence[Point]) -> None:  # type: ignore[no-untyped-def]
    limits = [result.limit for result in results if result.limit is not None]
    peak = statistics.median(limit.gigaflops_per_second for limit in limits)
    bandwidths = sorted({limit.gigabytes_per_second for limit in limits})
    low = 10 ** math.floor(math.log10(min(point.reached for point in found) / 1.5))
    high = 2 * max(peak, *(point.possible for point in found))
    left, right = _MIN_INTENSITY, max(64, *(2 * point.intensity for point in found))
    panel.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high), title=direction)
    panel.set(xlabel="FLOPs per byte", ylabel="GFLOP/s")
    panel.grid(True, which="major", color="#e4e4e4", linewidth=0.6)
    panel.set_axisbelow(True)

    for bandwidth in {bandwidths[0], bandwidths[-1]}:
        panel.plot((left, peak / bandwidth, right), (left * bandwidth, peak, peak), color=_ROOF)
    extent = f"{bandwidths[0]:.0f}" if len(bandwidths) == 1 else f"{bandwidths[0]:.0f} to {bandwidths[-1]:.0f}"
    roof = f"peak {peak:.0f} GFLOP/s, copy {extent} GB/s"
    panel.text(0.02, 0.98, roof, transform=panel.transAxes, ha="left", va="top", fontsize=8, color=_INK)

    def height(value: float) -> float:
        return math.log(value / low) / math.log(high / low)

    labels = spread([height(point.reached) for point in found], _GAP)
    for point, label in zip(found, labels, strict=True):
        panel.plot((point.intensity,) * 2, (point.reached, point.possible), color=_POINT, linewidth=0.5, alpha=0.6)
        panel.plot(point.intensity, point.possible, marker="_", color=_POINT, markersize=7)
        panel.plot(point.intensity, point.reached, marker="o", color=_POINT, markersize=4)
        panel.annotate(
            f"{point.name}  {point.reached / point.possible:.0%}",
            (point.intensity, point.reached),
            (1.02, label),
            textcoords=panel.transAxes,
            ha="left",
            va="center",
            fontsize=8,
            color=_INK,
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "relpos": (0, 0.5)},
        )
