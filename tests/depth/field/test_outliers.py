"""One wrong sample, as a sensor that blinks has them: it changes what is around it, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("safetensors")

import ddfnet
from ddfnet.depth.alignment import aligned_bilinear


@pytest.mark.parametrize("value", [65535.0, 1e10, 1e300])
@pytest.mark.parametrize("ratio", [4, 8])
def test_a_wrong_sample_in_the_corner_changes_no_other_pixels(ratio: int, value: float) -> None:
    """Those further than the 5x5: none jumps by 5 %, as with bilinear interpolation."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:192, :192]
    box = (abs(y - 90) < 50) & (abs(x - 100) < 40)
    true = np.where(box, 900.0, 2000 + 3 * x)
    guide = np.where(box[..., None], [180, 90, 60], [70, 120, 150]) + rng.normal(0, 6, (*true.shape, 3))
    image = guide.clip(0, 255).astype(np.uint8)
    depth = true[::ratio, ::ratio].copy()
    blinking = depth.copy()
    blinking[0, 0] = value
    far = np.maximum(y, x) > 3 * ratio
    for method in (
        lambda depth: ddfnet.upsample_depth(depth, image, offset=0),
        lambda depth: aligned_bilinear(depth, image.shape[:2], ratio=ratio, offset=0),
    ):
        before, after = method(depth), method(blinking)
        assert (np.abs(after - before) > 0.05 * before)[far].sum() == 0
        assert after[0, 0] > 10 * before[0, 0]  # the carried value is the sample's, however far


def test_a_range_of_few_values() -> None:
    """All samples make the range then, and the one that differs is seen."""
    depth = np.full((16, 16), 5.0)
    depth[8, 8] = 7
    result = ddfnet.upsample_depth(depth, np.full((64, 64, 3), 90, np.uint8))
    assert result.max() > 6 and result.min() == 5
