"""Back-projection: a depth map that gives its samples when it is reduced as they were."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddfnet.depth.samples import local_range, reduce_known
from ddfnet.depth.stage import Carried, enlarge

_ROUNDS = 3
_REACH = {"average": 0, "bicubic": 2}  # samples on each side of a block that its sample is made of
_STEP = 1.6  # over-relaxation: three rounds come as near as five of step 1


def back_project(
    depth: Tensor, known: Tensor, samples: Tensor, mask: Tensor, filters: Sequence[Tensor], kernel_size: int, way: str
) -> Tensor:
    r"""Return the map moved towards one that is reduced to its samples, along the filters that made it.

    .. math::
        d \leftarrow \mathrm{clamp}_{range}\bigl(d + 1.6\, U (s - R\, d)\bigr), \quad \text{three times}

    with the reduction R of `reduce_known` and the chain U of the DDF-Ups that carried the samples s to the pixels. So a
    sample that mixes two surfaces hands what it misses to the pixels that have chosen it, each on its own side of the
    edge. A pixel stays within the range of the valid samples of the 5x5 around it, or where the map was beyond that
    before, as the plane of a sample can be.

    Args:
        depth: (N, 1, s*h, s*w), float32; 0 where it is not known.
        known: (N, 1, s*h, s*w), bool.
        samples: (N, 1, h, w), float32.
        mask: (N, 1, h, w), 0 where the sample is not valid: such a one asks for nothing.
        filters: per stage (N, 4*K, h', w'), from coarse to fine.
        kernel_size: k, K = k*k.
        way: ``"average"`` or ``"bicubic"``, see `ddfnet.depth.samples`.

    Returns:
        (N, 1, s*h, s*w).

    Source: Irani and Peleg, Improving resolution by image registration, CVGIP 53, 1991, whose kernel is fixed; here it
    is the network's filters.
    """
    factor = depth.shape[2] // samples.shape[2]
    below, above = (torch.where(known, bound, depth) for bound in _bounds(depth, samples, mask, factor))
    for _ in range(_ROUNDS):
        own, seen = reduce_known(depth, known, factor, way)
        missed: Carried = torch.where(seen & (mask > 0), samples - own, 0)
        for taps in filters:
            missed = enlarge(missed, taps, kernel_size)
        assert isinstance(missed, Tensor)
        depth = torch.minimum(torch.maximum(depth + _STEP * missed, below), above)
    return depth


def receptive_radius(way: str, kernel_size: int) -> int:
    """Return the receptive radius of `back_project` in samples; 0 for ``"point"``."""
    if way == "point":
        return 0
    chain = 2 * (kernel_size // 2)  # radius of the filters: that of one, half of it, and so on
    return _ROUNDS * (chain + _REACH[way])


def _bounds(depth: Tensor, samples: Tensor, mask: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the least and the largest depth that a pixel may get."""
    around = local_range(samples, mask > 0)
    low, high = (F.interpolate(bound, scale_factor=factor, mode="nearest") for bound in around)
    return torch.minimum(low, depth), torch.maximum(high, depth)
