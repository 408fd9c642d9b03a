"""Depth maps laid over larger guides: positions of the samples, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from ddfnet.depth.valid import MISSING, valid_depth

if TYPE_CHECKING:
    import numpy.typing as npt

    Map = TypeVar("Map", Tensor, npt.NDArray[Any])


@dataclass(frozen=True)
class AxisAlignment:
    """One axis of a depth map on a guide: sample i lies on pixel ``i*ratio + offset``.

    Args:
        samples: size of the depth map along this axis.
        pixels: size of the guide along this axis.
        ratio: pixels per sample.
        offset: pixel of sample 0.
    """

    samples: int
    pixels: int
    ratio: float
    offset: float

    @property
    def is_centered(self) -> bool:
        """True where each sample lies in the middle of its block of ``ratio`` pixels."""
        return abs(self.offset - (self.ratio - 1) / 2) < 1e-6

    def positions(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the position of each pixel in samples, (pixels,), float64, held between the outermost samples."""
        pixels = torch.arange(self.pixels, dtype=torch.float64, device=device)
        return ((pixels - self.offset) / self.ratio).clamp(0, self.samples - 1)

    def nearest_sample(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the sample nearest to each pixel, (pixels,), int64."""
        return self.positions(device).round().long()


def align(
    depth_size: Sequence[int],
    guide_size: Sequence[int],
    ratio: float | tuple[float, float] | None = None,
    offset: float | tuple[float, float] | None = None,
) -> tuple[AxisAlignment, AxisAlignment]:
    """Return the alignment of a depth map (h, w) on a guide (H, W, ...), along y and x.

    Args:
        depth_size: (h, w).
        guide_size: (H, W), or a longer shape that begins so.
        ratio: pixels per sample, for both axes or (y, x), see `ddfnet.upsample_depth`.
        offset: pixel of sample 0, likewise.

    Raises:
        ValueError: no numbers, a ratio below 1, or samples that lie beside the guide.

    Example:
        >>> align((60, 80), (480, 640))[0]
        AxisAlignment(samples=60, pixels=480, ratio=8.0, offset=3.5)
    """
    sizes, offsets = list(zip(depth_size, guide_size[:2], strict=True)), _per_axis("offset", offset)
    ratios = [
        _default_ratio(*size, start) if step is None else step
        for size, step, start in zip(sizes, _per_axis("ratio", ratio), offsets, strict=True)
    ]
    if min(ratios) < 1:
        raise ValueError(f"ratio must be at least 1, got {min(ratios)}")
    y, x = (
        AxisAlignment(samples, pixels, step, (step - 1) / 2 if start is None else start)
        for (samples, pixels), step, start in zip(sizes, ratios, offsets, strict=True)
    )
    for name, axis in (("y", y), ("x", x)):
        first, last = axis.offset, axis.offset + (axis.samples - 1) * axis.ratio
        if first < -axis.ratio / 2 or last > axis.pixels - 1 + axis.ratio / 2:
            raise ValueError(
                f"ratio and offset must put every sample within half a ratio of the guide's pixels 0 to "
                f"{axis.pixels - 1}, along {name} they put {axis.samples} on {first:g} to {last:g}; without them the "
                "samples cover the guide evenly"
            )
    return y, x


def _default_ratio(samples: int, pixels: int, offset: float | None) -> float:
    ratio = pixels / samples
    if offset is not None and offset.is_integer() and 0 <= offset < pixels:
        # The smallest and the largest step with which the samples are those of a strided subsampling, if any is.
        least = -((offset - pixels) // samples)
        most = (pixels - offset - 1) // (samples - 1) if samples > 1 else pixels
        if least <= most:
            return float(min(max(round(ratio), least), most))
    return ratio


def aligned_bilinear(
    depth: Map,
    guide_size: tuple[int, int],
    *,
    valid: Map | None = None,
    ratio: float | tuple[float, float] | None = None,
    offset: float | tuple[float, float] | None = None,
    wanted: Sequence[Any] | None = None,
) -> Map:
    """Upsample bilinearly, with the samples where they lie and without those that are not valid.

    Sample i lies on pixel ``ratio * i + offset``. A pixel is the mean of the valid ones among the four samples around
    it, by their bilinear weights. Where none is valid it is the nearest valid sample. Beyond the outermost samples the
    map goes on as it is at them. Computed in float64: a constant float32 map stays exactly that constant.

    Args:
        depth: (h, w), array or tensor, any real dtype and unit.
        guide_size: (H, W), of the result.
        valid: (h, w), bool; nan and inf are never valid. None: where the depth is finite and not 0.
        ratio: pixels per sample, for both axes or (y, x). None: (H/h, W/w). Give it where the size is no multiple.
        offset: pixel of sample 0, for both axes or (y, x). None: the middle of its block, (ratio - 1) / 2.
        wanted: rows and columns of the result that are computed, two vectors of int64. None: all.

    Returns:
        (H, W), or the rows and columns that are wanted, array or tensor as ``depth`` is, in its dtype, or float32 for
        integers.

    Raises:
        ValueError: wrong shapes, a ratio that is not positive, or no valid sample.
        ModuleNotFoundError: pixels without a valid sample around them need SciPy, which the extra ``upsample`` has.

    Example:
        >>> import torch
        >>> row = torch.tensor([[1.0, 3.0]])
        >>> aligned_bilinear(row, (1, 4))  # samples at 0.5 and 2.5
        tensor([[1.0000, 1.5000, 2.5000, 3.0000]])
        >>> aligned_bilinear(row, (1, 4), offset=0)  # samples at 0 and 2
        tensor([[1., 2., 3., 3.]])
    """
    if not isinstance(depth, Tensor):
        import numpy as np

        mask = None if valid is None else torch.from_numpy(np.ascontiguousarray(valid))
        tensor = torch.from_numpy(np.ascontiguousarray(depth))
        vectors = wanted and [torch.from_numpy(each) for each in wanted]
        return aligned_bilinear(tensor, guide_size, valid=mask, ratio=ratio, offset=offset, wanted=vectors).numpy()
    if depth.ndim != 2 or depth.numel() == 0 or (valid is not None and valid.shape != depth.shape):
        shape = None if valid is None else tuple(valid.shape)
        raise ValueError(f"a map (h, w) and a mask of its size are required, got {tuple(depth.shape)} and {shape}")
    values = depth.double()  # the rounding of the weights is lost in that of the result, even in float32
    mask = valid_depth(values, valid, missing=MISSING if valid is None else ())
    if not mask.any():
        raise ValueError("a depth map with a valid sample is required, got none")
    axes = []
    for samples, pixels, step, start in zip(
        depth.shape, guide_size, _per_axis("ratio", ratio), _per_axis("offset", offset), strict=True
    ):
        step = pixels / samples if step is None else step
        if step <= 0:
            raise ValueError(f"a positive ratio is required, got {ratio}")
        axes.append(AxisAlignment(samples, pixels, step, (step - 1) / 2 if start is None else start))
    positions = [axis.positions(depth.device) for axis in axes]
    if wanted is not None:
        positions = [every[own] for every, own in zip(positions, wanted, strict=True)]
    total = _interpolate(mask.double(), positions)
    result = _interpolate(torch.where(mask, values, 0.0), positions) / total
    reached = total > 1e-9  # a smaller weight is the rounding of a position
    if not reached.all():
        filled = nearest_valid(values, mask, spacing=(axes[0].ratio, axes[1].ratio))
        rows, columns = (position.round().long() for position in positions)
        result = torch.where(reached, result, filled[rows][:, columns])
    return result.to(depth.dtype if depth.is_floating_point() else torch.float32)


def nearest_valid(values: Tensor, valid: Tensor, *, spacing: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Return the value of the nearest valid sample for each sample: a valid one keeps its own.

    By exact Euclidean distance; among equally near ones always the same one. SciPy's distance transform finds it, on
    the CPU whatever the device: the samples are few beside the pixels of their guide.

    Args:
        values: (h, w).
        valid: (h, w), bool, somewhere true.
        spacing: distance between samples, (y, x).

    Returns:
        (h, w), values of valid samples only.

    Raises:
        ValueError: no sample is valid.
        ModuleNotFoundError: no SciPy, which the extra ``upsample`` has.

    Example:
        >>> import torch
        >>> values = torch.tensor([[1.0, 0.0, 0.0, 2.0]])
        >>> nearest_valid(values, values > 0)
        tensor([[1., 1., 2., 2.]])
    """
    if not valid.any():
        raise ValueError("a map with a valid sample is required, got none")
    if valid.all():
        return values
    try:
        from scipy.ndimage import distance_transform_edt  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "filling with the nearest valid sample needs SciPy: pip install 'ddfnet[upsample]'", name=error.name
        ) from error
    missing = valid.logical_not().numpy(force=True)
    indices = distance_transform_edt(missing, sampling=spacing, return_distances=False, return_indices=True)
    rows, columns = torch.from_numpy(indices).long().to(values.device)
    return values[rows, columns]


def _interpolate(values: Tensor, positions: Sequence[Tensor]) -> Tensor:
    """Interpolate bilinearly on the grid of two axes of positions, in samples."""
    for dimension, position in enumerate(positions):
        low = position.floor().long()
        high = (low + 1).clamp(max=values.shape[dimension] - 1)
        share = (position - low).reshape([-1, 1] if dimension == 0 else [1, -1])
        values = values.index_select(dimension, low) * (1 - share) + values.index_select(dimension, high) * share
    return values


def _per_axis(name: str, value: float | tuple[float, float] | None) -> tuple[float | None, float | None]:
    """Return the values along y and x of one number for both or of a pair."""
    if value is None:
        return None, None
    values = value if isinstance(value, tuple | list) else (value, value)
    if len(values) != 2 or not all(isinstance(each, Real) and math.isfinite(each) for each in values):
        raise ValueError(f"{name} must be a number or (y, x), in pixels of the guide, got {value!r}")
    return float(values[0]), float(values[1])
