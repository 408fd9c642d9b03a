"""Small maps laid over large ones: which sample lies where, and what lies between, without what is not valid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy.typing as npt

    Map = TypeVar("Map", Tensor, npt.NDArray[Any])

_AT_ONCE = 2**20  # samples, of which each takes some 100 bytes for a while


def aligned_bilinear(
    depth: Map,
    guide_size: tuple[int, int],
    *,
    valid: Map | None = None,
    ratio: float | tuple[float, float] | None = None,
    offset: float | tuple[float, float] | None = None,
) -> Map:
    """Bilinear upsampling that knows where the samples lie and which of them are valid.

    Sample i lies on pixel ``ratio * i + offset``. A pixel is the mean of the valid ones among the four samples around
    it, by their bilinear weights; where none is valid it is the nearest valid sample. Beyond the outermost samples the
    map goes on as it is at them. Computed in float64: a constant float32 map stays exactly that constant.

    Args:
        depth: (h, w), array or tensor, any real dtype and unit.
        guide_size: (H, W), of the result.
        valid: (h, w), bool; nan and inf are never valid. None: where the depth is finite and not 0.
        ratio: pixels a sample, for both axes or (y, x). None: (H/h, W/w). Name it where the size is not its multiple.
        offset: the pixel of sample 0, for both axes or (y, x). None: the middle of its block, (ratio - 1) / 2.

    Returns:
        (H, W), array or tensor as ``depth`` is, in its dtype, or float32 for integers.

    Raises:
        ValueError: shapes, a ratio that is not positive, or no valid sample.

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

        given = None if valid is None else torch.from_numpy(np.ascontiguousarray(valid))
        tensor = torch.from_numpy(np.ascontiguousarray(depth))
        return aligned_bilinear(tensor, guide_size, valid=given, ratio=ratio, offset=offset).numpy()
    if depth.ndim != 2 or depth.numel() == 0 or (valid is not None and valid.shape != depth.shape):
        shape = None if valid is None else tuple(valid.shape)
        raise ValueError(f"a map (h, w) and a mask of its size are required, got {tuple(depth.shape)} and {shape}")
    values = depth.double()  # so that the weights' rounding is lost in the result's, even in float32
    known = values.isfinite() & (values != 0 if valid is None else valid)
    if not known.any():
        raise ValueError("a depth map with a valid sample is required, got none")
    ratios = _both(ratio) if ratio is not None else [large / small for large, small in zip(guide_size, depth.shape)]  # noqa: B905
    if min(ratios) <= 0:
        raise ValueError(f"a positive ratio is required, got {ratio}")
    offsets = _both(offset) if offset is not None else [(each - 1) / 2 for each in ratios]
    axes = [
        ((torch.arange(large, dtype=torch.float64, device=depth.device) - first) / step).clamp(0, small - 1)
        for large, small, first, step in zip(guide_size, depth.shape, offsets, ratios, strict=True)
    ]
    weight = known.double()
    total = _between(weight, axes)
    result = _between(torch.where(known, values, 0.0), axes) / total
    reached = total > 1e-9  # a weight of less than that is a position's rounding
    if not reached.all():
        filled = nearest_valid(values, known, spacing=(ratios[0], ratios[1]))
        rows, columns = (axis.round().long() for axis in axes)
        result = torch.where(reached, result, filled[rows][:, columns])
    return result.to(depth.dtype if depth.is_floating_point() else torch.float32)


def nearest_valid(values: Tensor, valid: Tensor, *, spacing: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """Each sample's nearest valid one: the value of a valid sample is its own.

    By exact Euclidean distance; among equally near ones always the same.

    Args:
        values: (h, w).
        valid: (h, w), bool, somewhere true.
        spacing: how far samples are apart, (y, x).

    Returns:
        (h, w), values of valid samples only.

    Raises:
        ValueError: no sample is valid.

    Example:
        >>> import torch
        >>> values = torch.tensor([[1.0, 0.0, 0.0, 2.0]])
        >>> nearest_valid(values, values > 0)
        tensor([[1., 1., 2., 2.]])
    """
    if not valid.any():
        raise ValueError("a map with a valid sample is required, got none")
    height, width = values.shape
    # First down each column that has a valid sample: in which row the nearest is, and how far that is, squared.
    columns = valid.any(0).nonzero()[:, 0]
    rows = torch.arange(height, device=values.device)[:, None]
    above = torch.where(valid[:, columns], rows, -1).cummax(0).values
    below = torch.where(valid[:, columns], rows, height).flip(0).cummin(0).values.flip(0)
    upward = (above >= 0) & ((rows - above <= below - rows) | (below == height))
    source = torch.where(upward, above, below)
    away = ((source - rows).double() * spacing[0]).square()
    # Then along each row: in which of these columns the nearest is. In parts, which bounds the memory.
    places, at = (each.double() * spacing[1] for each in (columns, torch.arange(width, device=values.device)))
    chosen = torch.cat([_lowest(part, places, at) for part in away.split(max(1, _AT_ONCE // width))])
    return values[source.gather(1, chosen), columns[chosen]]


def _lowest(heights: Tensor, places: Tensor, at: Tensor) -> Tensor:
    """For each row and each of the ascending x in ``at``: the i of the least ``heights[row, i] + (x - places[i])**2``.

    It never decreases with x, so that between two x's whose i is known only the i's between theirs come into question.
    Each round halves the steps between known x's, and tries less than two i's an x and place.
    """
    device, number, last = heights.device, len(at), len(places) - 1
    found = torch.zeros(len(heights), number + 1, dtype=torch.long, device=device)  # of x number 1, 2, ...
    for step in (2**power for power in reversed(range(number.bit_length()))):
        x = torch.arange(step, number + 1, 2 * step, device=device)
        low = found[:, x - step]
        high = torch.where(x + step <= number, found[:, (x + step).clamp(max=number)], last)
        counts = (high - low + 1).flatten()
        whose = torch.repeat_interleave(counts)  # all candidates of all x's in one line
        i = low.flatten()[whose] + torch.arange(len(whose), device=device) - (counts.cumsum(0) - counts)[whose]
        costs = heights[whose // len(x), i] + (at[x - 1][whose % len(x)] - places[i]).square()
        least = costs.new_full(counts.shape, torch.inf).scatter_reduce(0, whose, costs, "amin")
        first = torch.where(costs == least[whose], i, last)
        found[:, x] = torch.full_like(counts, last).scatter_reduce(0, whose, first, "amin").reshape(low.shape)
    return found[:, 1:]


def _between(values: Tensor, axes: Sequence[Tensor]) -> Tensor:
    """Bilinear interpolation at the grid of two axes of positions, in samples."""
    for dimension, position in enumerate(axes):
        low = position.floor().long()
        high = (low + 1).clamp(max=values.shape[dimension] - 1)
        shape = [-1, 1] if dimension == 0 else [1, -1]
        share = (position - low).reshape(shape)
        values = values.index_select(dimension, low) * (1 - share) + values.index_select(dimension, high) * share
    return values


def _both(value: float | tuple[float, float]) -> tuple[float, float]:
    return value if isinstance(value, tuple) else (value, value)
