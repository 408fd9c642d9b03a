"""Evaluation protocols of the field: downsampling of a test map, and scoring of a result.

`PAC` (PAC-Net, DDF-Up-Net) takes every f-th pixel; `BICUBIC` (DKN, SGNet, DORNet) averages with Pillow's bicubic
filter, an easier input. Both leave out 6 pixels at the border. `GDSR`, of guided depth super-resolution, has the input
of `BICUBIC` and leaves out none. All take the RMSE of each image, and average those; metres are reported as
centimetres. `ddfnet.depth.alignment.aligned_bilinear` is the reference of all. No table may mix them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ddfnet.data.depth.scenes import Scene
from ddfnet.depth.alignment import nearest_valid
from ddfnet.errors import DataError


class LowRes(NamedTuple):
    """Map downsampled by a factor: its sample i lies on pixel ``i * factor + offset`` of that map.

    Args:
        depth: (h, w), float32; 0 where not valid.
        valid: (h, w), bool.
        offset: pixel of sample 0, the same along both axes.
    """

    depth: Tensor
    valid: Tensor
    offset: float


class Protocol(ABC):
    """Protocol: downsampling (`lowres`), scored pixels (`scored`) and their error (`rmse`)."""

    name: ClassVar[str]
    border: ClassVar[int] = 6  # width of the frame that is not scored, in pixels

    @abstractmethod
    def offset(self, factor: int) -> float:
        """Return the pixel of sample 0, along both axes."""

    def crop(self, scene: Scene, factor: int) -> Scene:
        """Return the part of a scene that is used at this factor."""
        return scene

    @abstractmethod
    def lowres(self, depth: Tensor, valid: Tensor, factor: int) -> LowRes:
        """Downsample a map.

        Args:
            depth: (H, W), any unit.
            valid: (H, W), bool.
            factor: from 1 up.

        Returns:
            The small map; samples that are not valid are marked, and 0.

        Raises:
            ValueError: a factor out of range, or one that does not divide the map.
        """

    def scored(self, scene: Scene) -> Tensor:
        """Return which pixels are scored, (H, W), bool: those with a true value, inside the border.

        Raises:
            DataError: none is.
        """
        inside = torch.zeros_like(scene.valid)
        rows, columns = (slice(self.border, max(0, size - self.border)) for size in scene.size)
        inside[rows, columns] = True
        scored = scene.valid & inside
        if not scored.any():
            place = f" further than {self.border} from the border" if self.border else ""
            raise DataError(
                f"{scene.name}: a valid pixel{place} is required to score a result, "
                f"got none in {scene.size[0]}x{scene.size[1]} pixels"
            )
        return scored

    def rmse(self, prediction: Tensor, scene: Scene) -> float:
        """Return the root mean square error of a result, in `unit`.

        Args:
            prediction: (H, W), in the scene's unit.
            scene: scene with the true map (H, W).

        Returns:
            The error over the pixels that are `scored`, computed in float64.

        Raises:
            ValueError: wrong size, or a scored pixel is nan or inf: a method must fill every pixel.
        """
        if prediction.shape != scene.depth.shape:
            raise ValueError(f"{scene.name}: a map {scene.size} is required, got {tuple(prediction.shape)}")
        scored = self.scored(scene)
        values = prediction[scored].double()
        if not values.isfinite().all():
            missing = int((~values.isfinite()).sum())
            raise ValueError(f"{scene.name}: a value at every scored pixel is required, got nan or inf at {missing}")
        error = self.limited(values, scene) - scene.depth[scored].double()
        return error.square().mean().sqrt().item() * (100 if scene.unit == "m" else 1)

    def limited(self, values: Tensor, scene: Scene) -> Tensor:
        """Return the values of a result as they are scored, of any shape."""
        return values

    def unit(self, scene: Scene) -> str:
        """Return the unit of `rmse`: cm for metres, else the scene's own."""
        return "cm" if scene.unit == "m" else scene.unit


class _Pac(Protocol):
    name = "pac"

    def offset(self, factor: int) -> float:
        return (factor - 1) // 2

    def lowres(self, depth: Tensor, valid: Tensor, factor: int) -> LowRes:
        _check(depth, valid, factor)
        first = (factor - 1) // 2
        small, known = depth[first::factor, first::factor].float(), valid[first::factor, first::factor].clone()
        return LowRes(_masked(known, small), known, first)


class _Bicubic(Protocol):
    name = "bicubic"

    def offset(self, factor: int) -> float:
        return (factor - 1) / 2

    def crop(self, scene: Scene, factor: int) -> Scene:
        """Return the scene without the last rows and columns, which do not fill a block, as that family crops."""
        rows, columns = (size - size % factor for size in scene.size)
        if (rows, columns) == scene.size:
            return scene
        return replace(
            scene,
            guide=scene.guide[:, :rows, :columns],
            depth=scene.depth[:rows, :columns],
            valid=scene.valid[:rows, :columns],
        )

    def lowres(self, depth: Tensor, valid: Tensor, factor: int) -> LowRes:
        """Downsample a map, see `Protocol.lowres`.

        The family's data has no holes. Here a sample is valid where at least half of its block is, and the filter reads
        the nearest valid pixel in place of a hole.
        """
        import numpy as np
        from PIL import Image

        _check(depth, valid, factor)
        height, width = depth.shape
        if height % factor or width % factor:
            raise ValueError(f"a map that {factor} divides is required, got {height}x{width}; crop it first (`crop`)")
        blocks = valid.reshape(height // factor, factor, width // factor, factor)
        known = 2 * blocks.sum((1, 3)) >= factor * factor
        filled = depth.float() if valid.all() or not valid.any() else nearest_valid(depth.float(), valid)
        size = width // factor, height // factor
        small = np.array(Image.fromarray(filled.numpy(force=True)).resize(size, Image.Resampling.BICUBIC))
        return LowRes(_masked(known, torch.from_numpy(small).to(depth.device)), known, (factor - 1) / 2)


class _Gdsr(_Bicubic):
    """Holes are handled as `BICUBIC` does: the data of guided depth super-resolution has none."""

    name = "gdsr"
    border = 0

    def limited(self, values: Tensor, scene: Scene) -> Tensor:
        """Return the values clipped to the scene's limits, such as 0 to 255: a file of its type holds no others."""
        return values if scene.limits is None else values.clamp(*scene.limits)


def _check(depth: Tensor, valid: Tensor, factor: int) -> None:
    if depth.ndim != 2 or valid.shape != depth.shape or valid.dtype != torch.bool:
        raise ValueError(
            f"a map (H, W) and a bool mask of its size are required, got {tuple(depth.shape)}, {tuple(valid.shape)}"
        )
    if factor < 1 or min(depth.shape) <= (factor - 1) // 2:
        raise ValueError(f"a factor from 1 up to the map's size is required, got {factor} for {tuple(depth.shape)}")


def _masked(valid: Tensor, depth: Tensor) -> Tensor:
    return torch.where(valid, depth, torch.zeros((), device=depth.device))


PAC: Protocol = _Pac()
BICUBIC: Protocol = _Bicubic()
GDSR: Protocol = _Gdsr()
PROTOCOLS = {protocol.name: protocol for protocol in (PAC, BICUBIC, GDSR)}
