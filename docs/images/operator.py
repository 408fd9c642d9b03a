"""Script that draws operator.svg: a few spatial and channel filters, and the products that are applied."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

matplotlib.rcParams["svg.hashsalt"] = "ddfnet"  # the same drawing gives the same file

COLOURS = "RdBu_r"  # blue below zero, red above, as in `ddfnet demo`
INK, QUIET, MARK = "#1c2733", "#5b6b7b", "#e8590c"
# Pixels of the example map as (row, column): on the edge, in the flat part, at the spot.
PIXELS = ((4, 6), (9, 9), (8, 2))
SPATIAL = np.array(
    [
        [[0.9, 0.5, -0.6], [0.9, 1.0, -0.5], [0.4, 0.9, 0.6]],
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]],
        [[-0.5, 0.6, -0.5], [0.6, 1.0, 0.6], [-0.5, 0.6, -0.5]],
    ]
)
CHANNEL = np.array(
    [
        [[0.3, 0.6, 0.3], [0.6, 1.0, 0.6], [0.3, 0.6, 0.3]],
        [[-0.6, 0.0, 0.6], [-1.0, 0.0, 1.0], [-0.6, 0.0, 0.6]],
        [[-0.6, -1.0, -0.6], [0.0, 0.0, 0.0], [0.6, 1.0, 0.6]],
        [[-0.3, -0.5, -0.3], [-0.5, 1.0, -0.5], [-0.3, -0.5, -0.3]],
    ]
)


def example_map() -> np.ndarray:
    """Return a map of 12x12 pixels: a bright and a dark part with an edge between them, and a spot."""
    rows, columns = np.mgrid[:12, :12]
    values = np.where(columns < 6.5 - 0.3 * (rows - 5), 0.78, 0.35) + 0.015 * rows
    spot = np.exp(-((rows - PIXELS[2][0]) ** 2 + (columns - PIXELS[2][1]) ** 2) / 1.2)
    return values - 0.55 * spot


class Drawing:
    """Sheet whose positions are in inches from its lower left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    def axes(self, left: float, bottom: float, size: float):
        place = left / self.width, bottom / self.height, size / self.width, size / self.height
        axes = self.figure.add_axes(place)
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=INK, linewidth=0.8)
        return axes

    def kernel(self, taps: np.ndarray, left: float, bottom: float, size: float) -> None:
        axes = self.axes(left, bottom, size)
        axes.imshow(taps, cmap=COLOURS, vmin=-1.1, vmax=1.1)
        for line in (0.5, 1.5):
            axes.axhline(line, color="white", linewidth=0.8)
            axes.axvline(line, color="white", linewidth=0.8)

    def text(self, left: float, bottom: float, words: str, *, size: float = 11, colour: str = INK, **options) -> None:
        place = left / self.width, bottom / self.height
        self.figure.text(*place, words, fontsize=size, color=colour, **{"ha": "center", "va": "center", **options})


def main() -> None:
    sheet = Drawing(8.9, 5.0)
    side, gap, left, top = 0.74, 0.18, 4.95, 3.42
    across = [left + index * (side + gap) for index in range(len(CHANNEL))]
    down = [top - side - 0.26 - index * (side + gap) for index in range(len(SPATIAL))]
    beside = left - side - 0.4

    large = down[0] + side - down[-1]
    axes = sheet.axes(0.3, down[-1], large)
    axes.imshow(example_map(), cmap="gray", vmin=0, vmax=1)
    for number, (row, column) in enumerate(PIXELS, start=1):
        corner = column - 1.5, row - 1.5
        axes.add_patch(Rectangle(corner, 3, 3, fill=False, color=MARK, linewidth=1.8))
        axes.text(column, row - 2.2, str(number), color=MARK, fontsize=12, fontweight="bold", ha="center", va="center")
    sheet.text(0.3 + large / 2, down[-1] - 0.2, "a map: n pixels, C channels")

    for index, taps in enumerate(CHANNEL):
        sheet.kernel(taps, across[index], top, side)
        sheet.text(across[index] + side / 2, top + side + 0.15, f"channel {index + 1}", size=9, colour=QUIET)
    for index, taps in enumerate(SPATIAL):
        sheet.kernel(taps, beside, down[index], side)
        sheet.text(beside - 0.12, down[index] + side / 2, f"pixel {index + 1}", size=9, colour=QUIET, ha="right")
        for channel, own in enumerate(CHANNEL):
            sheet.kernel(taps * own, across[channel], down[index], side)
    middle = (across[0] + across[-1] + side) / 2
    sheet.text(beside + side / 2, top + side / 2, r"$\times$", size=26)
    sheet.text(middle, top + side + 0.5, "channel filters: one per channel,\nthe same for all pixels")
    sheet.text(beside - 0.12, top + side / 2, "spatial filters: one per pixel,\nthe same for all channels", ha="right")
    applied = "applied: their products, tap by tap,\none per pixel and channel, none of them stored"
    sheet.text(middle, down[-1] - 0.32, applied)

    sheet.figure.savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
