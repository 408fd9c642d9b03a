"""Script that draws rooms.jpg: rendered rooms of seed 0 and their depth; it needs Debian's sweethome3d-furniture."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from ddfnet.data.depth.rooms import furniture
from ddfnet.data.depth.rooms.render import Renderer
from ddfnet.data.depth.textures import photographs

ROOMS = (2, 6, 10, 15, 16, 19, 20, 23)


def main() -> None:
    if not furniture.FOLDER.is_dir():
        warnings.warn("rooms.jpg stays as it is; run: apt-get install sweethome3d-furniture", stacklevel=2)
        return
    renderer = Renderer(furniture.load().models, photographs())
    figure = Figure(figsize=(11, 8.3), facecolor="white", layout="constrained")
    axes = figure.subplots(2, len(ROOMS) // 2).ravel()
    for axis, index in zip(axes, ROOMS, strict=True):
        room = renderer(index)
        height, width = room.depth.shape
        axis.imshow(room.image, extent=(0, width, height, 0))
        axis.imshow(-room.depth, extent=(0, width, 2 * height, height), cmap="viridis")
        axis.set_ylim(2 * height, 0)
        axis.set_axis_off()
    figure.savefig(Path(__file__).with_suffix(".jpg"), dpi=100, pil_kwargs={"quality": 88})


if __name__ == "__main__":
    main()
