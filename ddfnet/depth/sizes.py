"""Sizes of a depth map and its guide: whether both can show the same view."""

from __future__ import annotations

import math
from collections.abc import Sequence


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
