"""Script that draws depth.jpg: a real depth map, eight times smaller, upsampled without and with the photograph."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from ddfnet.data.depth import middlebury
from ddfnet.data.depth.protocols import PAC
from ddfnet.demo.depth import FACTOR, worst_boxes
from ddfnet.tasks.depth.baselines import METHODS

SHOWN = {"nearest": "given: every eighth pixel", "bilinear": "bilinear", "ddfnet": "ddfnet"}
WINDOW = (125, 185)  # height and width of the enlarged part in pixels


def main() -> None:
    scene = middlebury.motorcycle()
    low = PAC.lowres(scene.depth, scene.valid, FACTOR)
    maps = {name: METHODS[name](low.depth, low.valid, scene.guide, factor=FACTOR, offset=low.offset) for name in SHOWN}
    [window] = worst_boxes(torch.where(PAC.scored(scene), maps["bilinear"] - scene.depth, 0), WINDOW, 1)
    known = scene.depth[scene.valid]
    colours = colormaps["viridis"].with_extremes(bad="0.6")  # grey where the depth is unknown
    limits = {"cmap": colours, "vmin": known.quantile(0.01).item(), "vmax": known.quantile(0.99).item()}

    columns = [
        ("photograph", scene.guide.permute(1, 2, 0)),
        *((title, maps[name]) for name, title in SHOWN.items()),
        ("as measured", torch.where(scene.valid, scene.depth, torch.nan)),
    ]
    figure = Figure(figsize=(16, 4.5), facecolor="white", layout="constrained")
    axes = figure.subplots(2, len(columns))
    for (whole, part), (title, values) in zip(axes.T, columns, strict=True):
        whole.set_title(title, fontsize=12)
        whole.imshow(values, **limits)
        part.imshow(values[window.slices], interpolation="nearest", **limits)
        for each in (whole, part):
            each.set_axis_off()
    figure.savefig(Path(__file__).with_suffix(".jpg"), dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
