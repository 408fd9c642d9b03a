"""Script that draws filters.jpg: the spatial filters that the classifier of table 3 predicts for photographs."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

from ddfnet.data.depth import photographs
from ddfnet.demo.filters import Components, record
from ddfnet.pretrained import load, read_header

HERE = Path(__file__).parent
CLASSIFIER = HERE.parents[1] / "reproduce" / "table3" / "model.safetensors"
SIZE = 320  # height and width of a photograph in pixels
FURTHEST = 0.99  # quantile of the distances from the mean filter that gets the brightest colour


def main() -> None:
    network, preprocessing = load(CLASSIFIER, "classification"), read_header(CLASSIFIER).extra["preprocessing"]
    mean, deviation = (torch.tensor(preprocessing[name])[:, None, None] for name in ("mean", "std"))
    seen = [photograph.image.float() / 255 for photograph in photographs.load(SIZE)]
    recorded = [record(network.eval(), (image - mean) / deviation) for image in seen]
    firsts, lasts = ([layers[index].spatial for layers in recorded] for index in (0, -1))
    colours = [Components.fit(maps) for maps in (firsts, lasts)]
    departures = [colours[0].departure(spatial) for spatial in firsts]
    furthest = torch.cat([departure.flatten() for departure in departures]).quantile(FURTHEST).item()

    figure = Figure(figsize=(10, 7.9), facecolor="white", layout="constrained")
    axes = figure.subplots(3, 4)
    layers = "filters of the first layer", "... their distance from the mean", "filters of the last layer"
    for row, (image, first, departure, last) in enumerate(zip(seen, firsts, departures, lasts, strict=True)):
        axes[row, 0].imshow(image.permute(1, 2, 0))
        axes[row, 1].imshow(colours[0].colours(first), interpolation="nearest")
        axes[row, 2].imshow(departure, cmap="magma", vmin=0, vmax=furthest, interpolation="nearest")
        axes[row, 3].imshow(colours[1].colours(last), interpolation="nearest")
    for each, title in zip(axes[0], ("photograph", *layers), strict=True):
        each.set_title(title, fontsize=11)
    for each in axes.flat:
        each.set_axis_off()
    figure.savefig(HERE / "filters.jpg", dpi=110, pil_kwargs={"quality": 80})


if __name__ == "__main__":
    main()
