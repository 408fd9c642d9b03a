"""Local planes: the slope of each sample, and its way through the stages, so that a plane is upsampled as the plane.

A filter alone averages depths. On a slope the average belongs to the mean position of the samples that the filter
chose, which is not the pixel's. Here each sample i is a plane of its own, :math:`d_i + g_i (p - p_i)`, and the filters
carry slopes and positions beside the depth.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.ops import ddf_upsample

_STEEPEST = 2.0  # times the smaller of the two differences of a sample to its neighbours


class Planes(NamedTuple):
    r"""Planes at the pixels of a grid, carried there by filters w over the samples i.

    Args:
        depth: (N, 1, H, W), the mean :math:`\sum_i w_i d_i`.
        tangent: (N, 1, H, W), :math:`\sum_i w_i\, g_i (p - p_i)` for the pixel at p.
        slope: (N, 2, H, W), :math:`g = \sum_i w_i g_i`, along y and x, per pixel of this grid.
        distance: (N, 2, H, W), :math:`p - \sum_i w_i p_i`, along y and x, in pixels of this grid.
    """

    depth: Tensor
    tangent: Tensor
    slope: Tensor
    distance: Tensor

    @staticmethod
    def at_samples(depth: Tensor, valid: Tensor) -> Planes:
        """Return the planes of the samples themselves.

        Args:
            depth: (N, 1, h, w), floating, finite.
            valid: (N, 1, h, w), 0 where the sample is not valid.
        """
        slope = sample_slopes(depth, valid)
        return Planes(depth, torch.zeros_like(depth), slope, torch.zeros_like(slope))

    def enlarge(self, taps: Tensor, kernel_size: int) -> Planes:
        """Return the planes on the grid of twice the size.

        Args:
            taps: (N, 4*K, H, W), filters of sum 1 for each of the four sub-pixels.
            kernel_size: k, K = k*k.
        """
        ones = torch.ones_like(self.depth)
        # Depth and slopes are averaged; slopes and ones once more, times the distance from the tap to the sub-pixel.
        maps = torch.cat([self.depth, self.tangent, self.slope, self.distance, self.slope, ones, ones], 1)
        filters = _distance_filters(kernel_size, taps).expand(len(taps), -1, -1, -1, -1)
        maps = ddf_upsample(maps, filters, taps, scale_factor=2, kernel_size=kernel_size)
        depth, tangent, slope, distance, rise, way = maps.split([1, 1, 2, 2, 2, 2], 1)
        # A pixel of the new grid is half as wide.
        return Planes(depth, tangent + rise.sum(1, keepdim=True), slope / 2, 2 * (distance + way))

    def at_pixels(self) -> Tensor:
        r"""Return the depth at the pixels, (N, 1, H, W): :math:`d + \frac12 t + \frac12 g (p - \bar p)`.

        The tangents lie outside of a curved surface, and the mean at its mean position inside, by as much: half of each
        gives planes exactly, whatever the filters are, and quadratics up to the square of the distance.
        """
        depth: Tensor = self.depth + (self.tangent + (self.slope * self.distance).sum(1, keepdim=True)) / 2
        return depth


def sample_slopes(depth: Tensor, valid: Tensor) -> Tensor:
    r"""Return the slope of the surface at each sample, along y and x.

    .. math::
        g = \mathrm{sign}(l + r)\,\min\bigl(\tfrac12 |l + r|,\ 2 |l|,\ 2 |r|\bigr), \quad
        g = 0 \text{ where } l\, r \le 0

    of the differences l and r to the two neighbours along the axis (the monotonized central limiter): at an edge it is
    the slope of the sample's own surface. It is no steeper than the differences beyond the two
    neighbours, either of them: a sample that is the average of two surfaces has no slope between them. Where only one
    neighbour is valid, the difference beyond that one stands in, and the smaller of the two is the slope; where there
    is none either, 0. Then it is averaged with those of its valid neighbours across the axis, by 1, 2, 1, which halves
    the noise. Exact for planes, at the border too, and for quadratics away from it.

    Args:
        depth: (N, 1, h, w), floating, finite.
        valid: (N, 1, h, w), 0 where the sample is not valid.

    Returns:
        (N, 2, h, w), per sample; 0 where the sample is not valid.

    Example:
        >>> import torch
        >>> depth = torch.tensor([[[[1.0, 3.0, 5.0, 50.0, 50.0]]]])  # an edge after three samples
        >>> sample_slopes(depth, torch.ones_like(depth))[0, 1]
        tensor([[2., 2., 2., 0., 0.]])

    Source: van Leer, Towards the ultimate conservative difference scheme IV, J. Comput. Phys. 23, 1977.
    """
    known = valid > 0
    weights = known.to(depth.dtype)
    across = depth.new_tensor([1.0, 2.0, 1.0])
    found = []
    for dimension in (2, 3):
        slope = torch.where(known, _limited(depth, known, dimension), 0)
        kernel = across.reshape((1, 1, 1, 3) if dimension == 2 else (1, 1, 3, 1))
        padding = (0, 1) if dimension == 2 else (1, 0)
        total, share = (F.conv2d(each, kernel, padding=padding) for each in (slope, weights))
        found.append(torch.where(known, total / share.clamp(min=1), 0))
    return torch.cat(found, 1)


def _limited(depth: Tensor, known: Tensor, dimension: int) -> Tensor:
    """Return the limited slope along one axis, see `sample_slopes`."""
    size = depth.shape[dimension]
    if size < 3:
        return torch.zeros_like(depth)
    # Differences between neighbours, (size - 1), with two that are not known before and after them.
    step = depth.narrow(dimension, 1, size - 1) - depth.narrow(dimension, 0, size - 1)
    both = known.narrow(dimension, 1, size - 1) & known.narrow(dimension, 0, size - 1)
    ends = [0, 0] * (3 - dimension) + [2, 2]
    step, both = F.pad(step, ends), F.pad(both, ends)
    (before2, b2), (before, b), (after, a), (after2, a2) = (
        (step.narrow(dimension, start, size), both.narrow(dimension, start, size)) for start in range(4)
    )
    middle = b & a
    beyond = torch.maximum(torch.where(b2, before2.abs(), 0), torch.where(a2, after2.abs(), 0))
    left = torch.where(b, before, after2)
    right = torch.where(a, after, before2)
    known_pair = middle | (b & b2) | (a & a2)
    central = (left + right) / 2
    smaller = torch.minimum(left.abs(), right.abs())
    limit = torch.where(middle, torch.minimum(central.abs(), _STEEPEST * smaller), smaller)
    limit = torch.where(b2 | a2, torch.minimum(limit, beyond), limit)
    # Not by the product, which is 0 for two small differences.
    return torch.where(known_pair & (left.sign() * right.sign() > 0), central.sign() * limit, 0)


def _distance_filters(kernel_size: int, like: Tensor) -> Tensor:
    """Return the channel filters of `Planes.enlarge`, (1, 4, 10, k, k): 1, or the distance from tap to sub-pixel."""
    taps = torch.arange(kernel_size, dtype=like.dtype, device=like.device) - kernel_size // 2
    distance = taps.new_tensor([[-0.25], [0.25]]) - taps  # both sub-pixels along an axis, in pixels of the input
    shape = (2, 2, kernel_size, kernel_size)
    y = distance[:, None, :, None].expand(shape)
    x = distance[None, :, None, :].expand(shape)
    one = torch.ones_like(y)
    return torch.stack([one] * 6 + [y, x] * 2, 2).reshape(1, 4, 10, kernel_size, kernel_size)
