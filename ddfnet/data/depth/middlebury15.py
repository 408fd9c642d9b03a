"""Fifteen Middlebury pairs of 2001 to 2006, as guided depth super-resolution measures on them: ``middlebury15.tar``.

An uncompressed tar archive of ``RGB/NN.png`` and ``Depth/NN.png``, NN = 01, 03, ... 29: every other pair of the thirty
that the field has. The maps are disparities in the 8 bits of their files, each scene's own scale, near surfaces larger.
Their holes were filled by those who made the set, so every value counts. Three of the maps have a few pixels of 0 left,
which are no disparity, and count as the others do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ddfnet.data.depth import archived
from ddfnet.data.depth.scenes import Scene, from_arrays

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

NAMES = tuple(f"{number:02}" for number in range(1, 30, 2))

# RMSE of Pillow's bicubic filter, down and up again, under `gdsr` (grey levels): `bicubic-pillow` among the methods.
BICUBIC_LEVELS = {4: 2.176, 8: 3.766, 16: 6.111}


def load(file: str | Path) -> Sequence[Scene]:
    """Return the fifteen scenes, which are read on access.

    Args:
        file: middlebury15.tar.

    Returns:
        A sequence of scenes, disparity in grey levels, every pixel valid. It can be pickled.

    Raises:
        DataError: the file is missing, damaged or compressed, or lacks an image. A broken image in it, or a map of
            another size than its image, is found when its scene is accessed.
    """
    return archived.load(file, [(f"RGB/{name}.png", f"Depth/{name}.png") for name in NAMES], _scene)


def _scene(name: str, guide: Array, values: Array) -> Scene:
    number = PurePosixPath(name).stem
    origin = f"Pair {number} of the thirty Middlebury pairs (2001 to 2006) of guided depth super-resolution."
    return from_arrays(f"middlebury {number}", guide, values, "levels", origin, missing=(), limits=(0, 255))
