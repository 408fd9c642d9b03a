"""NYU Depth V2, labelled part, with its depth in 8 bits: ``nyu8.tar``, a copy of 114 MB.

An uncompressed tar archive of ``nyu_images/N.jpg`` and ``nyu_depths/N.png``, 640x480, N = 0 to 1448 in the order of
`ddfnet.data.depth.nyu`, mirrored left to right. A depth map has floor(metres / 10 * 255). No value of any map is below
18, which is 0.7 m: none means that the depth is missing. The steps of 3.9 cm are in every error; alone 1.15 cm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ddfnet.data.depth import archived
from ddfnet.data.depth.nyu import TRAIN
from ddfnet.data.depth.scenes import Scene, from_arrays

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

COUNT = 1449
SIZE = 480, 640
STEP = 10 / 255  # metres


def load(file: str | Path, split: str = "test") -> Sequence[Scene]:
    """Return the scenes of one part, which are read on access.

    A depth is the middle of its step, (value + 1/2) 10 / 255 metres.

    Args:
        file: nyu8.tar.
        split: "train" (the first 1000) or "test" (the other 449).

    Returns:
        A sequence of scenes, depth in metres, every pixel valid. It can be pickled.

    Raises:
        DataError: the file is missing, damaged or compressed, or lacks an image. A broken image in it, or one of
            another size, is found when its scene is accessed.
        ValueError: an unknown split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    numbers = range(COUNT)[:TRAIN] if split == "train" else range(COUNT)[TRAIN:]
    return archived.load(file, [(f"nyu_images/{n}.jpg", f"nyu_depths/{n}.png") for n in numbers], _scene, SIZE)


def _scene(name: str, guide: Array, values: Array) -> Scene:
    number = int(PurePosixPath(name).stem)
    part = "training" if number < TRAIN else "test"
    origin = f"NYU Depth V2, labelled part, in 8 bits and mirrored: {name}, of the {part} split."
    return from_arrays(f"nyu8 {number}", guide, (values.astype("float32") + 0.5) * STEP, "m", origin)
