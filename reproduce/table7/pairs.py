"""Write some pairs of middlebury15.tar into a folder that ``--data.rooms`` takes: python pairs.py TAR FOLDER NN..."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ddfnet.data.depth import middlebury15

MILLIMETRES = 250  # per grey level, after 1 is added: 0 would be missing


def main(file: str, folder: str, *names: str) -> None:
    """Write rgb/NN.png and depth/NN.png, 16 bits, for each NN."""
    scenes = dict(zip(middlebury15.NAMES, middlebury15.load(file), strict=True))
    for kind in ("rgb", "depth"):
        (Path(folder) / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        scene = scenes[name]
        Image.fromarray(scene.guide.permute(1, 2, 0).numpy()).save(Path(folder) / "rgb" / f"{name}.png")
        levels = (scene.depth.numpy().astype(np.uint16) + 1) * MILLIMETRES
        Image.fromarray(levels).save(Path(folder) / "depth" / f"{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
