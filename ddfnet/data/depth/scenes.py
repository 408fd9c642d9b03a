"""Scenes: an image and its depth map, pixel by pixel, as every source of them returns it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddfnet.depth.valid import valid_depth
from ddfnet.errors import DataError


@dataclass(frozen=True)
class Scene:
    """Image with its depth map.

    Args:
        name: name in results.
        guide: image (3, H, W), uint8.
        depth: (H, W), float32, in ``unit``; 0 where not valid.
        valid: (H, W), bool: whether the depth was measured.
        unit: "m", "px" for disparities, "levels" for those in grey levels of a file, "" where it is not known.
        origin: source of the scene, a sentence for readers of a result.
        limits: least and largest value that a map of its kind can hold, such as (0, 255) for 8 bits; None for any.
    """

    name: str
    guide: Tensor
    depth: Tensor
    valid: Tensor
    unit: str
    origin: str
    limits: tuple[float, float] | None = None

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.depth.shape
        return height, width


def from_arrays(
    name: str,
    guide: Any,
    depth: Any,
    unit: str,
    origin: str,
    *,
    missing: Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
) -> Scene:
    """Return the scene of NumPy arrays, valid where `ddfnet.depth.valid.valid_depth` says so.

    Args:
        name: name in results and messages.
        guide: (H, W, 3), uint8.
        depth: (H, W), any real dtype.
        unit: unit of the depth.
        origin: source, a sentence.
        missing: values that mean "no depth" besides nan and inf, as for `valid_depth`: None for 0, () for none.
        limits: see `Scene`.

    Returns:
        The scene.

    Raises:
        DataError: the two differ in size, or no pixel is valid.

    Example:
        >>> import numpy as np
        >>> scene = from_arrays("wall", np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 2.5), "m", "A wall.")
        >>> scene.size, scene.valid.all().item()
        ((4, 6), True)
    """
    if depth.ndim != 2 or guide.shape != (*depth.shape, 3):
        raise DataError(
            f"{name}: an image (H, W, 3) and a depth map (H, W) of one size are required, "
            f"got {tuple(guide.shape)} and {tuple(depth.shape)}; resize the image to the depth map"
        )
    values = torch.tensor(depth.astype("float32"))
    valid = valid_depth(values, missing=missing)
    if not valid.any():
        raise DataError(f"{name}: a depth map with a valid pixel is required, got only 0, nan and inf")
    return Scene(
        name=name,
        guide=torch.tensor(guide).permute(2, 0, 1).contiguous(),
        depth=torch.where(valid, values, torch.zeros(())),
        valid=valid,
        unit=unit,
        origin=origin,
        limits=limits,
    )
