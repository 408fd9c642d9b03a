"""Sizes of a depth map and its guide: whether both can show the same view, and the parts that are worked on."""

from __future__ import annotations

import math
from collections.abc import Sequence

ASPECT_TOLERANCE = 0.02  # share; calibrated cameras and networks' multiples of 14 or 32 pixels miss by up to it

ROWS = 64
"""Rows of a map of the guide's size that are converted at once, for a map of float64 is larger than all else."""


def covers(guide_size: Sequence[int], depth_size: Sequence[int]) -> bool:
    """Return whether a guide (H, W, ...) is at least as large as a depth map (h, w), as upsampling requires."""
    return guide_size[0] >= depth_size[0] and guide_size[1] >= depth_size[1]


def same_aspect_ratio(guide_size: Sequence[int], depth_size: Sequence[int]) -> bool:
    """Return whether one factor explains both sizes.

    It takes the guide's (H, W) to the depth map's (h, w) to within one sample, however they were rounded.
    """
    sizes = list(zip(depth_size, guide_size[:2], strict=True))
    least = max(pixels / (samples + 1) for samples, pixels in sizes)
    most = min(pixels / (samples - 1) if samples > 1 else math.inf for samples, pixels in sizes)
    return least < most


def aspect_error(guide_size: Sequence[int], depth_size: Sequence[int]) -> float:
    """Return by what share the aspect ratio of a guide (H, W, ...) differs from that of a depth map (h, w).

    Example:
        >>> round(aspect_error((968, 1296), (480, 640)), 4)  # ScanNet
        0.0041
    """
    ratios = [size[1] / size[0] for size in (guide_size, depth_size)]
    return max(ratios) / min(ratios) - 1


def shows_same_view(guide_size: Sequence[int], depth_size: Sequence[int]) -> bool:
    """Return whether a guide (H, W, ...) is large enough for a depth map (h, w) and has about its aspect ratio."""
    if not covers(guide_size, depth_size):
        return False
    return same_aspect_ratio(guide_size, depth_size) or aspect_error(guide_size, depth_size) <= ASPECT_TOLERANCE


def tile_slices(size: int, step: int) -> list[slice]:
    """Return slices of ``step`` that cover an axis of this size.

    Example:
        >>> tile_slices(5, 3)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def pad_slice(inner: slice, by: int, size: int) -> slice:
    """Return a slice that is wider at both ends, as far as the axis goes."""
    return slice(max(inner.start - by, 0), min(inner.stop + by, size))


def relative_slice(inner: slice, outer: slice) -> slice:
    """Return the inner slice in what the outer one cuts out."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


Region = tuple[slice, slice]
"""Rows and columns of a grid."""


def scale_region(region: Region, factor: int) -> Region:
    """Return the pixels of a region's samples, ``factor`` per sample."""
    rows, columns = (slice(each.start * factor, each.stop * factor) for each in region)
    return rows, columns


def pad_region(inner: Region, by: int, size: Sequence[int]) -> Region:
    """Return what `pad_slice` does of both axes."""
    rows, columns = (pad_slice(each, by, length) for each, length in zip(inner, size, strict=True))
    return rows, columns


def relative_region(inner: Region, outer: Region) -> Region:
    """Return what `relative_slice` does of both axes."""
    rows, columns = (relative_slice(*each) for each in zip(inner, outer, strict=True))
    return rows, columns
