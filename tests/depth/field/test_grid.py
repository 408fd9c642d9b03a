"""Size of the network's grid: about that of the image, and none where there is nothing to enlarge."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest

import ddfnet
from ddfnet.depth.network import GuidedUpsampler
from tests.guided_networks import network

# At 3x and 6.5x the coarser grid would cost accuracy.
MOST = {1: 0, 2: 1, 3: 1.8, 4: 1, 4.5: 1, 5.25: 1.3, 6.5: 1.6, 7.5: 1.3, 8: 1, 9: 1, 11: 1, 16: 1, 20: 1.3}


@pytest.mark.parametrize(("ratio", "most"), MOST.items())
def test_pixels_of_the_grid_per_pixel_of_the_guide(ratio: float, most: float) -> None:
    pixels = 0
    run = GuidedUpsampler.scaled_pixels

    def counted(self: GuidedUpsampler, scaled: Any, mask: Any, guide: Any, *others: Any) -> Any:
        nonlocal pixels
        pixels += guide.shape[2] * guide.shape[3]
        return run(self, scaled, mask, guide, *others)

    depth = np.random.default_rng(0).random((8, 8)) + 1
    guide = np.zeros((round(8 * ratio), round(8 * ratio), 3), np.uint8)
    with mock.patch.object(GuidedUpsampler, "scaled_pixels", counted):
        ddfnet.upsample_depth(depth, guide, model=network(16, channels=4, guide_channels=4), quality="fast")
    assert pixels <= most * guide.shape[0] * guide.shape[1] + 1e-6
    assert pixels or ratio == 1
