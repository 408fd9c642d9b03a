"""Holes of a depth map filled with the help of an image of its size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.depth.alignment import AxisAlignment
from ddfnet.depth.sizes import ROWS, tile_slices

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

# Chosen on 15 Middlebury scenes, together for holes of 10 to 50 pixels and for random points of 5, 1 and 0.13 %.
_CONTRAST = 2.0  # difference of two neighbours, in steps of 8-bit colour, at which their bond has fallen to 37 %
_LEAST = 1e-4  # bond across the strongest edge; without any, what an edge encloses would have no depth at all
_DIAGONAL = 0.5  # bond of diagonal neighbours beside that of the others: the squared inverse of their distance
_TOLERANCE = 1e-7  # residual of the solution, relative to that of zeros
_ITERATIONS = 200
_AT_ONCE = 1_000_000  # missing values that are solved for at once: time and memory grow with them


def fill_guided(values: Tensor, valid: Tensor, guide: Tensor) -> Tensor:
    r"""Return the map with its holes filled: smooth where the guide is, with steps where the guide has edges.

    .. math::
        \min_u \sum_{p \sim q} b_{pq}\,(u_p - u_q)^2, \qquad u_p = d_p \text{ where valid}, \qquad
        b_{pq} = f_{pq}\,\bigl(e^{-\max_c |I_{p,c} - I_{q,c}| / 2} + 10^{-4}\bigr)

    over the eight neighbours q of each pixel, with f = 1/2 for the diagonal ones. Each value is an average of valid
    ones with positive weights, so nothing overshoots, and a constant stays. The sparse system is solved by PyAMG
    (conjugate gradients with a Ruge-Stueben multigrid) on the CPU, to a relative residual of 1e-7. More than a million
    of missing values are solved for on the map of 2x2 means, and each pixel is the average of the four means around it,
    by distance and likeness of colour.

    Args:
        values: (h, w), float64. What is not valid may hold anything.
        valid: (h, w), bool, somewhere true.
        guide: (h, w, 3), from 0 to 255, any real dtype.

    Returns:
        (h, w), float64; valid values as they are, to the bit.

    Raises:
        ValueError: no value is valid.
        ModuleNotFoundError: no PyAMG or SciPy, which the extra ``upsample`` has.

    Example:
        >>> import torch
        >>> row = torch.tensor([[1.0, 0.0, 0.0, 0.0, 2.0]], dtype=torch.float64)
        >>> image = torch.tensor([[[9], [9], [9], [200], [200]]]).expand(1, 5, 3)  # an edge after three pixels
        >>> fill_guided(row, row > 0, image).round(decimals=2)
        tensor([[1., 1., 1., 2., 2.]], dtype=torch.float64)

    Source: Levin, Lischinski and Weiss, Colorization using optimization, SIGGRAPH 2004, with other bonds.
    """
    if not valid.any():
        raise ValueError("a map with a valid sample is required, got none")
    if valid.all():
        return values
    known = values[valid]
    lowest, highest = known.min(), known.max()
    span = highest - lowest
    if span == 0:
        return torch.where(valid, values, lowest)
    scaled = torch.where(valid, (values - lowest) / span, 0)
    if valid.numel() - len(known) > _AT_ONCE:
        found = _fill_by_means(scaled, valid, guide)
    else:
        solved = _solve(scaled.numpy(force=True), valid.numpy(force=True), guide.numpy(force=True))
        found = torch.from_numpy(solved).to(values.device)
    filled = found.clamp(0, 1) * span + lowest
    # The product can round to beyond the ends.
    return torch.where(valid, values, filled.clamp(lowest, highest))


def near_valid(valid: Tensor) -> Tensor:
    """Return where a sample or one of its eight neighbours is valid, (h, w), bool."""
    return F.max_pool2d(valid.float()[None], 3, 1, 1)[0] > 0


def guide_at_samples(guide: Tensor, axes: Sequence[AxisAlignment]) -> Tensor:
    """Return the mean colour of the pixels nearest to each sample, (h, w, 3), float64.

    Args:
        guide: (H, W, 3).
        axes: y and x.
    """
    y, x = axes
    rows, columns = (axis.nearest_sample(guide.device) for axis in axes)
    result = torch.empty(y.samples, x.samples, 3, dtype=torch.float64, device=guide.device)
    for part in tile_slices(y.samples, max(1, int(ROWS / y.ratio))):
        own = slice(*torch.searchsorted(rows, rows.new_tensor([part.start, part.stop])).tolist())
        image = _mean_along(guide[own].double(), 0, rows[own] - part.start, part.stop - part.start)
        result[part] = _mean_along(image, 1, columns, x.samples)
    return result


def _mean_along(image: Tensor, dimension: int, groups: Tensor, count: int) -> Tensor:
    """Return the mean of each of ``count`` groups of rows or columns."""
    size = [*image.shape]
    size[dimension] = count
    total = image.new_zeros(size).index_add_(dimension, groups, image)
    members = torch.bincount(groups, minlength=count).clamp(min=1)
    return total / members.reshape([-1, 1, 1] if dimension == 0 else [1, -1, 1])


def _fill_by_means(values: Tensor, valid: Tensor, guide: Tensor) -> Tensor:
    """Return the map that `fill_guided` makes of the 2x2 means, read at each pixel by distance and colour."""

    def means(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps[None], 2, ceil_mode=True, count_include_pad=False)[0]

    share = means(valid.double()[None])[0]
    known = means(torch.where(valid, values, 0)[None])[0] / share.clamp(min=0.25)
    # Means of whole numbers are exact in float32, down to a 65536th, which no guide comes to.
    exact = torch.float64 if guide.dtype == torch.float64 else torch.float32
    colours = guide.new_empty(*share.shape, 3, dtype=exact)
    for part in tile_slices(len(share), ROWS):
        colours[part] = means(guide[2 * part.start : 2 * part.stop].double().permute(2, 0, 1)).permute(1, 2, 0)
    filled = fill_guided(known, share > 0, colours)
    result = torch.empty_like(values)
    axes = [AxisAlignment(*sizes, 2.0, 0.5) for sizes in zip(share.shape, values.shape, strict=True)]
    all_rows, x = (axis.positions(values.device) for axis in axes)
    for part in tile_slices(len(values), ROWS):
        y, image = all_rows[part], guide[part].double()
        total, weights = torch.zeros_like(values[part]), torch.zeros_like(values[part])
        for far_y, far_x in ((0, 0), (0, 1), (1, 0), (1, 1)):
            rows, columns = (
                (at.floor().long() + far).clamp(max=size - 1)
                for at, far, size in zip((y, x), (far_y, far_x), share.shape, strict=True)
            )
            near_y, near_x = ((far + (1 - 2 * far) * (1 - at % 1)) for at, far in ((y, far_y), (x, far_x)))
            contrast = (colours[rows][:, columns] - image).abs().amax(2)
            weight = near_y[:, None] * near_x * (torch.exp(-contrast / _CONTRAST) + _LEAST)
            total += weight * filled[rows][:, columns]
            weights += weight
        result[part] = total / weights
    return result


def _solve(values: Array, valid: Array, guide: Array) -> Array:
    """Return the map with what is not valid solved for."""
    try:
        import numpy as np
        import pyamg  # type: ignore[import-untyped]
        from scipy.sparse import coo_array, csr_array, diags_array  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "filling with the guide's help needs SciPy and PyAMG: pip install 'ddfnet[upsample]'", name=error.name
        ) from error
    missing = np.flatnonzero(~valid)
    number = np.full(valid.size, -1, np.int32)
    number[missing] = np.arange(len(missing), dtype=np.int32)
    pixels = np.arange(valid.size).reshape(valid.shape)
    total, right = np.zeros(len(missing)), np.zeros(len(missing))
    bonds, ones, others = [], [], []
    for here, there, factor in (
        (np.s_[:, :-1], np.s_[:, 1:], 1.0),
        (np.s_[:-1], np.s_[1:], 1.0),
        (np.s_[:-1, :-1], np.s_[1:, 1:], _DIAGONAL),
        (np.s_[:-1, 1:], np.s_[1:, :-1], _DIAGONAL),
    ):
        near = ~(valid[here] & valid[there])
        contrast = np.abs(guide[here][near].astype(np.float64) - guide[there][near]).max(1)
        bond = factor * (np.exp(-contrast / _CONTRAST) + _LEAST)
        first, second = pixels[here][near], pixels[there][near]
        for own, other in ((first, second), (second, first)):
            row, column = number[own], number[other]
            wanted = row >= 0
            total += np.bincount(row[wanted], bond[wanted], len(missing))
            given = wanted & (column < 0)
            right += np.bincount(row[given], bond[given] * values.flat[other[given]], len(missing))
            both = wanted & (column >= 0)
            bonds.append(bond[both])
            ones.append(row[both])
            others.append(column[both])
    between = coo_array((np.concatenate(bonds), (np.concatenate(ones), np.concatenate(others))), (len(missing),) * 2)
    system = csr_array(diags_array(total) - between.tocsr())
    system.sort_indices()
    levels = pyamg.ruge_stuben_solver(system)
    found = values.copy()
    found.flat[missing] = levels.solve(right, tol=_TOLERANCE, maxiter=_ITERATIONS, accel="cg")
    return found
